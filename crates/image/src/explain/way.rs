//! Where a path leads: `.` and `..`, links on the way and trailing slashes are taken as the kernel takes them, in the view that all layers make. What
//! is below a mount is not looked into.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::{MountPoint, shown};
use crate::{ImageError, Result};

/// As many as Linux follows (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// `PATH_MAX`.
const PATH_BYTES_MAX: usize = 4096;

/// What stands under a path in the view of all layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    Nothing,
    Directory,
    Link(PathBuf),
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'p> {
    Name(&'p OsStr),
    Up,
}

/// The end of the way.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) components: Vec<OsString>,
    /// Links that were followed, as `/lib -> usr/lib`.
    pub(super) links: Vec<String>,
    /// What is on the way, or at its end where a directory is wanted, and is none.
    pub(super) no_directory: Option<PathBuf>,
}

impl Way {
    pub(super) fn path(&self) -> PathBuf {
        path_of(&self.components)
    }
}

fn path_of(components: &[OsString]) -> PathBuf {
    Path::new("/").join(components.iter().collect::<PathBuf>())
}

fn parts(path: &OsStr) -> impl DoubleEndedIterator<Item = Part<'_>> {
    let names = path.as_bytes().split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    names.map(|name| if name == b".." { Part::Up } else { Part::Name(OsStr::from_bytes(name)) })
}

fn refused(path: &Path, why: impl std::fmt::Display) -> ImageError {
    ImageError::Invalid { what: "path", why: format!("{} {why}", shown(path)) }
}

/// Follows a path. `see` tells what stands under components.
pub(super) fn follow(path: &Path, mounts: &[MountPoint], see: &dyn Fn(&[OsString]) -> Result<Seen>) -> Result<Way> {
    let text = path.as_os_str().as_bytes();
    if !text.starts_with(b"/") {
        return Err(refused(path, "is not absolute"));
    }
    if text.len() > PATH_BYTES_MAX || text.contains(&0) {
        return Err(refused(path, "is longer than 4096 bytes, or has a zero byte"));
    }
    let wants_directory = [&b"/"[..], b"/.", b"/.."].iter().any(|end| text.ends_with(end));
    let owned = |part: Part<'_>| match part {
        Part::Name(name) => Some(name.to_owned()),
        Part::Up => None,
    };
    let mut left: VecDeque<Option<OsString>> = parts(path.as_os_str()).map(owned).collect();
    let mut way = Way::default();
    while let Some(part) = left.pop_front() {
        let Some(name) = part else {
            way.components.pop();
            continue;
        };
        way.components.push(name);
        let here = way.path();
        let is_mount = mounts.iter().any(|mount| mount.destination == here);
        let is_last = left.is_empty();
        match if is_mount { Seen::Other } else { see(&way.components)? } {
            Seen::Directory => continue,
            Seen::Link(target) if !is_last || wants_directory => {
                way.links.push(format!("{} -> {}", shown(&here), shown(&target)));
                if way.links.len() > LINKS_MAX {
                    return Err(refused(path, format_args!("leads through more than {LINKS_MAX} links")));
                }
                way.components.pop();
                if target.is_absolute() {
                    way.components.clear();
                }
                parts(target.as_os_str()).rev().for_each(|part| left.push_front(owned(part)));
                continue;
            }
            // A mount may be a directory or a file.
            Seen::Other if !is_mount && (!is_last || wants_directory) => way.no_directory = Some(here.clone()),
            Seen::Nothing | Seen::Link(_) | Seen::Other => {}
        }
        // Nothing is known of what follows: it is taken as it is written.
        for part in left.drain(..) {
            way.components.push(part.ok_or_else(|| {
                refused(path, format_args!("goes up again from {}, below which it cannot be followed", shown(&here)))
            })?);
        }
    }
    Ok(way)
}

/// A path for people and for JSON: bytes that are no text as `\xff`.
pub(super) fn escaped(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").expect("writing to a String cannot fail");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `/lib -> usr/lib`, `/abs -> /usr/lib`, `/loop -> loop`, `/usr/lib/up -> ../../etc`, `/data` mounted, `/etc/hosts` a file.
    fn see(components: &[OsString]) -> Result<Seen> {
        let path = path_of(components);
        Ok(match path.to_str().unwrap_or_default() {
            "/usr" | "/usr/lib" | "/etc" => Seen::Directory,
            "/lib" => Seen::Link("usr/lib".into()),
            "/abs" => Seen::Link("/usr/lib".into()),
            "/loop" => Seen::Link("loop".into()),
            "/usr/lib/up" => Seen::Link("../../etc".into()),
            "/etc/hosts" => Seen::Other,
            _ => Seen::Nothing,
        })
    }

    #[test]
    fn ways() {
        let mounts = [MountPoint { destination: "/data".into(), what: "volume data".to_owned(), is_kept: true }];
        for (path, end, links, no_directory) in [
            ("/", "/", 0, None),
            ("//usr/./lib//", "/usr/lib", 0, None),
            ("/lib", "/lib", 0, None),
            ("/lib/", "/usr/lib", 1, None),
            ("/lib/.", "/usr/lib", 1, None),
            ("/lib/x", "/usr/lib/x", 1, None),
            ("/lib/..", "/usr", 1, None),
            ("/abs/up/hosts", "/etc/hosts", 2, None),
            ("/../../etc/hosts", "/etc/hosts", 0, None),
            ("/etc/hosts/", "/etc/hosts", 0, Some("/etc/hosts")),
            ("/etc/hosts/x/y", "/etc/hosts/x/y", 0, Some("/etc/hosts")),
            ("/none/x", "/none/x", 0, None),
            ("/loop", "/loop", 0, None),
            ("/data/x/y", "/data/x/y", 0, None),
        ] {
            let way = follow(Path::new(path), &mounts, &see).unwrap();
            assert_eq!((way.path(), way.links.len()), (PathBuf::from(end), links), "{path}");
            assert_eq!(way.no_directory.as_deref(), no_directory.map(Path::new), "{path}");
        }
        for (path, why) in [
            ("etc", "etc is not absolute"),
            ("", " is not absolute"),
            ("/loop/x", "leads through more than 40 links"),
            ("/none/../etc", "goes up again from /none"),
            ("/etc/hosts/..", "goes up again from /etc/hosts"),
            ("/data/../etc", "goes up again from /data"),
            ("/a\0b", "has a zero byte"),
        ] {
            let error = follow(Path::new(path), &mounts, &see).unwrap_err().to_string();
            assert!(error.contains(why), "{path}: {error}");
        }
    }

    #[test]
    fn bytes_that_are_no_text() {
        assert_eq!(escaped(b"/a\xff\xfe/\xc3\xbc"), "/a\\xff\\xfe/ü");
        assert_eq!(escaped(b"/plain"), "/plain");
    }
}
