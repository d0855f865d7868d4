//! Reading hierarchies out of proc_pid_mountinfo(5) and our place in them out of cgroups(7), `/proc/[pid]/cgroup`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::{Hierarchy, Unified};

/// A mount of a cgroup file system.
struct Mount {
    /// The directory of the hierarchy that is mounted, `/` for its root.
    root: String,
    point: PathBuf,
    unified: bool,
    /// Super block options, where v1 names the controllers.
    options: Vec<String>,
}

pub(super) fn parse(mountinfo: &str, membership: &str) -> (Vec<Hierarchy>, Option<Unified>) {
    let mut hierarchies: Vec<Hierarchy> = Vec::new();
    let mut unified: Option<Unified> = None;
    for mount in mountinfo.lines().filter_map(mount) {
        if mount.unified {
            // The first mount wins: later ones are bind mounts of containers and the like.
            unified.get_or_insert_with(|| Unified {
                own: own(membership, "", &mount.root),
                mount: mount.point,
                controllers: Vec::new(),
            });
            continue;
        }
        let controllers = v1_controllers(&mount.options, membership);
        let known = |h: &Hierarchy| h.controllers.first() == controllers.first();
        if let Some(first) = controllers.first()
            && !hierarchies.iter().any(known)
        {
            hierarchies.push(Hierarchy { own: own(membership, first, &mount.root), mount: mount.point, controllers });
        }
    }
    (hierarchies, unified)
}

fn mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (root, point) = (left.next()?, left.next()?);
    let mut right = right.split(' ');
    let unified = match right.next()? {
        "cgroup" => false,
        "cgroup2" => true,
        _ => return None,
    };
    let options = right.nth(1).unwrap_or_default().split(',').map(str::to_owned).collect();
    let root = String::from_utf8(unescape(root)).ok()?;
    Some(Mount { root, point: PathBuf::from(OsString::from_vec(unescape(point))), unified, options })
}

/// Of the mount options those the kernel lists as hierarchies in `/proc/self/cgroup`, so flags such as `xattr` are not among them.
fn v1_controllers(options: &[String], membership: &str) -> Vec<String> {
    let is_controller = |option: &str| memberships(membership).any(|(names, _)| names.split(',').any(|n| n == option));
    options.iter().filter(|option| is_controller(option)).cloned().collect()
}

/// Lines `id:names:path`; the v2 hierarchy has no names.
fn memberships(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'))
}

/// Our path below the mount point. Of a hierarchy whose mounted part we are not in, the mount's root.
fn own(membership: &str, controller: &str, root: &str) -> String {
    let path = memberships(membership).find(|(names, _)| names.split(',').any(|name| name == controller));
    let path = path.map_or("/", |(_, path)| path.strip_suffix(" (deleted)").unwrap_or(path));
    let below = if root == "/" { Some(path) } else { path.strip_prefix(root) };
    match below {
        Some(below) if below.starts_with('/') && !below.contains("/..") => below.to_owned(),
        _ => "/".to_owned(),
    }
}

/// Undoes the octal escapes of blanks and backslashes.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escape = tail.get(..3).filter(|digits| first == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match escape.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    bytes
}
