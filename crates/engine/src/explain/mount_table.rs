//! `/proc/<pid>/mountinfo` (proc_pid_mountinfo(5)): pure reading of its lines.

/// One mount, in the table's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) root: String,
    pub(super) target: String,
    /// Per mount: `ro`, `nosuid`, …
    pub(super) options: Vec<String>,
    /// `shared:1`, `master:2`; empty: private.
    pub(super) propagation: Vec<String>,
    pub(super) kind: String,
    pub(super) source: String,
    pub(super) super_options: String,
}

/// Lines that are in no form we know are left out.
pub(super) fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(line).collect()
}

fn line(text: &str) -> Option<Mount> {
    let (left, right) = text.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (root, target, options) = (left.next()?, left.next()?, left.next()?);
    let mut right = right.splitn(3, ' ');
    Some(Mount {
        root: unescaped(root),
        target: unescaped(target),
        options: options.split(',').map(str::to_owned).collect(),
        propagation: left.map(str::to_owned).collect(),
        kind: right.next()?.to_owned(),
        source: unescaped(right.next()?),
        super_options: right.next().unwrap_or_default().to_owned(),
    })
}

/// Space, tab, newline and backslash are written as `\040` and so on.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let code = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line() {
        let text = "139 138 254:0 /a\\040b /x ro,relatime shared:3 - ext4 /dev/vda rw,discard\nnonsense\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 1);
        let mount = &mounts[0];
        assert_eq!((mount.root.as_str(), mount.target.as_str(), mount.source.as_str()), ("/a b", "/x", "/dev/vda"));
        assert_eq!(mount.options, ["ro", "relatime"]);
        assert_eq!(mount.propagation, ["shared:3"]);
        assert_eq!(unescaped("a\\04"), "a\\04");
    }
}
