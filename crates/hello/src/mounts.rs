//! The mount table, and the layers of the root file system.

use crate::json::Value;
use crate::page::{Row, Section};
use crate::unit::{self, plural};

/// One line of `/proc/self/mountinfo` (proc(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) root: String,
    pub(crate) target: String,
    pub(crate) options: String,
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) super_options: String,
}

pub(crate) fn read() -> Vec<Mount> {
    unit::read("/proc/self/mountinfo").map(|text| text.lines().filter_map(Mount::parse).collect()).unwrap_or_default()
}

impl Mount {
    /// `id parent dev root target options [tags...] - type source super-options`
    fn parse(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let mut after = after.splitn(3, ' ');
        Some(Self {
            root: unescape(before.next()?),
            target: unescape(before.next()?),
            options: before.next()?.to_owned(),
            kind: after.next()?.to_owned(),
            source: unescape(after.next()?),
            super_options: unescape(after.next().unwrap_or_default()),
        })
    }

    fn is_read_only(&self) -> bool {
        self.options.split(',').any(|option| option == "ro")
            || self.super_options.split(',').any(|option| option == "ro")
    }

    /// Hidden from the container: an empty directory or the null device on top of it.
    fn is_mask(&self) -> bool {
        let groups = self.target.starts_with("/sys/fs/cgroup");
        let covers = self.target.starts_with("/proc/") || self.target.starts_with("/sys/");
        covers && !groups && (self.root == "/null" || self.kind == "tmpfs")
    }

    fn note(&self) -> &'static str {
        match (self.target.as_str(), self.kind.as_str()) {
            ("/", _) => "the image, and what was written since",
            ("/proc", _) => "processes of this PID namespace",
            (_, "proc") => "part of it, protected",
            (_, "sysfs") => "devices and kernel objects",
            (_, "cgroup" | "cgroup2") | ("/sys/fs/cgroup", _) => "resource groups",
            (_, "devpts") => "terminals of its own",
            (_, "mqueue") => "message queues of its own",
            ("/dev", _) => "a few harmless devices",
            ("/dev/shm", _) => "shared memory of its own",
            ("/etc/hosts" | "/etc/hostname" | "/etc/resolv.conf", _) => "written by the engine",
            _ => "",
        }
    }
}

/// The directories an overlay is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Overlay {
    pub(crate) lower: Vec<String>,
    pub(crate) upper: Option<String>,
    pub(crate) work: Option<String>,
}

impl Overlay {
    /// Layers appear as `lowerdir=a:b` or, each on its own, as `lowerdir+=a`. A colon or comma in a path is escaped by a
    /// backslash.
    fn parse(options: &str) -> Self {
        let mut overlay = Self::default();
        for option in split_unescaped(options, ',') {
            match option.split_once('=') {
                Some(("lowerdir", paths)) => {
                    overlay.lower.extend(split_unescaped(paths, ':').into_iter().filter(|path| !path.is_empty()));
                }
                Some(("lowerdir+" | "datadir+", path)) => overlay.lower.push(path.to_owned()),
                Some(("upperdir", path)) => overlay.upper = Some(path.to_owned()),
                Some(("workdir", path)) => overlay.work = Some(path.to_owned()),
                _ => {}
            }
        }
        overlay
    }
}

pub(crate) fn section(mounts: &[Mount]) -> Section {
    let root = mounts.iter().rev().find(|mount| mount.target == "/");
    let overlay = root.filter(|mount| mount.kind == "overlay").map(|mount| Overlay::parse(&mount.super_options));
    let (masked, shown): (Vec<&Mount>, Vec<&Mount>) = mounts.iter().partition(|mount| mount.is_mask());
    let mut rows: Vec<Row> = Vec::new();
    for mount in shown {
        let access = if mount.is_read_only() { "ro" } else { "rw" };
        rows.push(Row::new(&mount.target, format!("{} {access}", mount.kind), mount.note()));
        if let Some(overlay) = overlay.as_ref().filter(|_| root == Some(mount)) {
            rows.extend(layer_rows(overlay));
        }
    }
    if !masked.is_empty() {
        let targets: Vec<&str> = masked.iter().map(|mount| mount.target.as_str()).collect();
        rows.push(Row::new("masked", plural(masked.len(), "path", "paths"), targets.join(" ")));
    }
    let json = Value::object([
        ("count", mounts.len().into()),
        ("root", root.map_or(Value::Null, |root| root_json(root, overlay.as_ref()))),
        ("masked", Value::list(masked.iter().map(|mount| mount.target.as_str()))),
        ("mounts", Value::list(mounts.iter().map(mount_json))),
    ]);
    Section {
        key: "mounts",
        title: "Mounts",
        meaning: "a file system tree of its own, put together for it",
        rows,
        json,
    }
}

fn layer_rows(overlay: &Overlay) -> Vec<Row> {
    let mut rows = vec![Row::new(
        "  layers",
        plural(overlay.lower.len(), "lower directory", "lower directories"),
        "read-only, shared with every container of the image",
    )];
    rows.extend(overlay.lower.iter().map(|path| Row::new("", path, "")));
    let own = [("  upper", &overlay.upper, "what this container changes"), ("  work", &overlay.work, "the kernel's")];
    rows.extend(own.into_iter().filter_map(|(label, path, note)| Some(Row::new(label, path.as_deref()?, note))));
    rows
}

fn root_json(root: &Mount, overlay: Option<&Overlay>) -> Value {
    Value::object([
        ("type", Value::from(root.kind.as_str())),
        ("read_only", root.is_read_only().into()),
        ("layers", overlay.map(|overlay| overlay.lower.len()).into()),
        ("lowerdir", overlay.map_or(Value::Null, |overlay| Value::list(overlay.lower.iter().map(String::as_str)))),
        ("upperdir", overlay.and_then(|overlay| overlay.upper.as_deref()).into()),
        ("workdir", overlay.and_then(|overlay| overlay.work.as_deref()).into()),
    ])
}

fn mount_json(mount: &Mount) -> Value {
    Value::object([
        ("target", Value::from(mount.target.as_str())),
        ("type", mount.kind.as_str().into()),
        ("source", mount.source.as_str().into()),
        ("root", mount.root.as_str().into()),
        ("options", mount.options.as_str().into()),
        ("super_options", mount.super_options.as_str().into()),
    ])
}

fn split_unescaped(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for character in text.chars() {
        if character == separator && !escaped {
            parts.push(String::new());
            continue;
        }
        escaped = character == '\\' && !escaped;
        if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    parts
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digits =
            tail.get(..3).filter(|digits| *first == b'\\' && digits.iter().all(|it| (b'0'..=b'7').contains(it)));
        let value = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        if let Some(value) = value {
            bytes.push(value);
            rest = &tail[3..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_in_both_spellings() {
        let old = "1 2 0:3 / / rw,relatime - overlay overlay rw,lowerdir=/l/2:/l/1,upperdir=/u,workdir=/w,volatile";
        let new = "1 2 0:3 / / rw - overlay overlay rw,lowerdir+=/l/2,lowerdir+=/l/1,upperdir=/u,workdir=/w";
        for line in [old, new] {
            let overlay = Overlay::parse(&Mount::parse(line).unwrap().super_options);
            assert_eq!(overlay.lower, ["/l/2", "/l/1"]);
            assert_eq!((overlay.upper.as_deref(), overlay.work.as_deref()), (Some("/u"), Some("/w")));
        }
    }

    #[test]
    fn optional_tags_blanks_and_masks() {
        let mount =
            Mount::parse(r"36 35 0:6 /null /proc/a\040b ro shared:1 master:2 - devtmpfs dev\134tmp rw,x=1").unwrap();
        assert_eq!((mount.target.as_str(), mount.source.as_str()), ("/proc/a b", r"dev\tmp"));
        assert!(mount.is_mask() && mount.is_read_only());
        assert_eq!(Mount::parse("nonsense"), None);
        assert_eq!(split_unescaped(r"/a\:b:/c", ':'), [r"/a\:b", "/c"]);
    }
}
