//! The path of a group as somebody gave it, checked once: it cannot leave the hierarchy, nor be its root.

use crate::error::CgroupError;

/// Components without `.`, `..`, control characters; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupPath {
    text: String,
    absolute: bool,
}

impl GroupPath {
    const LENGTH_MAX: usize = 3000;
    const NAME_MAX: usize = 255;

    pub(crate) fn parse(path: &str) -> Result<Self, CgroupError> {
        let wrong = |reason| CgroupError::BadPath { path: path.chars().take(80).collect(), reason };
        if path.len() > Self::LENGTH_MAX {
            return Err(wrong("it is too long"));
        }
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        if names.is_empty() {
            return Err(wrong("it is the root of the hierarchy"));
        }
        for name in &names {
            if matches!(*name, "." | "..") {
                return Err(wrong("it has . or .. in it"));
            }
            if name.len() > Self::NAME_MAX || name.chars().any(char::is_control) {
                return Err(wrong("one of its names is too long or has control characters"));
            }
        }
        Ok(Self { text: names.join("/"), absolute: path.starts_with('/') })
    }

    /// The path below a mount, given where this process is in that hierarchy. Begins with `/`.
    pub(crate) fn below(&self, own: &str) -> String {
        let base = if self.absolute { "" } else { own.trim_end_matches('/') };
        format!("{base}/{}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_mount() {
        let below = |path: &str| GroupPath::parse(path).unwrap().below("/own");
        assert_eq!(below("/a/b"), "/a/b");
        assert_eq!(below("//a///b/"), "/a/b");
        assert_eq!(below("a"), "/own/a");
        assert_eq!(GroupPath::parse("a").unwrap().below("/"), "/a");
        let long = "x".repeat(256);
        for path in ["", "/", "..", "/a/../b", "a/.", "a\nb", "/a\0", &long, &"x/".repeat(2000)] {
            assert!(matches!(GroupPath::parse(path), Err(CgroupError::BadPath { .. })), "{path}");
        }
    }
}
