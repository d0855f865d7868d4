//! The mounts of a Create request as what the runtime takes: nothing is ever mounted on the host.

use std::path::PathBuf;

use berth_oci::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, Spec};
use berth_proto::task::Mount;
use berth_runtime::{LayerOwners, OverlayRootfs, Rootfs};

use crate::error::TaskError;

/// An overlay is mounted detached by the runtime; one without lower directories is its upper directory alone (snapshotters that keep whole
/// trees). A bind of one directory is used in place: the spec's root points at it.
pub(super) fn from_wire(mounts: &[Mount], spec: &mut Spec) -> Result<Rootfs, TaskError> {
    match mounts {
        [] => Ok(Rootfs::Bundle),
        [mount] if mount.type_ == "overlay" => overlay(mount).map(|(overlay, owners)| Rootfs::Overlay(overlay, owners)),
        [mount] if mount.type_ == "bind" => {
            let mut root = spec.root().clone().unwrap_or_default();
            root.set_path(PathBuf::from(&mount.source));
            if mount.options.iter().any(|option| option == "ro") {
                root.set_readonly(Some(true));
            }
            spec.set_root(Some(root));
            Ok(Rootfs::Bundle)
        }
        [mount] => Err(TaskError::Rootfs { fstype: mount.type_.clone() }),
        [first, ..] => Err(TaskError::Rootfs { fstype: format!("{} (one of {})", first.type_, mounts.len()) }),
    }
}

/// `idmap` is our own engine's; `uidmap` and `gidmap` are those of containerd's overlay snapshotter (2.0 and later).
fn overlay(mount: &Mount) -> Result<(OverlayRootfs, LayerOwners), TaskError> {
    let mut rootfs = OverlayRootfs::default();
    let (mut is_mapped, mut uids, mut gids) = (false, Vec::new(), Vec::new());
    for option in &mount.options {
        match option.split_once('=') {
            Some(("lowerdir", dirs)) => rootfs.lowers = split_dirs(dirs),
            Some(("upperdir", dir)) => rootfs.upper = Some(PathBuf::from(unescape(dir))),
            Some(("workdir", dir)) => rootfs.work = Some(PathBuf::from(unescape(dir))),
            None if option == "volatile" => rootfs.is_volatile = true,
            None if option == "idmap" => is_mapped = true,
            Some(("uidmap", text)) => uids = mappings(option, text)?,
            Some(("gidmap", text)) => gids = mappings(option, text)?,
            // Our overlays are made with these anyway.
            Some(("index" | "metacopy" | "redirect_dir", "off" | "nofollow")) => {}
            None if option == "rw" || option == "ro" => {}
            _ => return Err(TaskError::Argument { what: "overlay option", value: option.clone() }),
        }
    }
    let absolute = rootfs.lowers.iter().chain(&rootfs.upper).chain(&rootfs.work).all(|path| path.is_absolute());
    let is_nothing = rootfs.lowers.is_empty() && rootfs.upper.is_none();
    if !absolute || rootfs.upper.is_some() != rootfs.work.is_some() || is_nothing {
        return Err(TaskError::Argument { what: "overlay", value: mount.options.join(",") });
    }
    let owners = match (is_mapped, uids.is_empty() && gids.is_empty()) {
        (true, true) => LayerOwners::Mapped,
        (false, true) => LayerOwners::AsStored,
        (false, false) => LayerOwners::LowersMapped { uids, gids },
        (true, false) => return Err(TaskError::Argument { what: "overlay", value: mount.options.join(",") }),
    };
    Ok((rootfs, owners))
}

/// `container:host:size`, several with commas between them.
fn mappings(option: &str, text: &str) -> Result<Vec<LinuxIdMapping>, TaskError> {
    let one = |triple: &str| {
        let mut numbers = triple.splitn(3, ':').map(|number| number.parse::<u32>().ok());
        let mut next = || numbers.next().flatten();
        let (container, host, size) = (next()?, next()?, next()?);
        LinuxIdMappingBuilder::default().container_id(container).host_id(host).size(size).build().ok()
    };
    let all: Option<Vec<_>> = text.split(',').map(one).collect();
    all.ok_or_else(|| TaskError::Argument { what: "overlay option", value: option.to_owned() })
}

/// Colons separate; a backslash takes the next character as it is.
fn split_dirs(text: &str) -> Vec<PathBuf> {
    let mut dirs = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            ':' => dirs.push(String::new()),
            '\\' => dirs.last_mut().into_iter().for_each(|dir| dir.extend(characters.next())),
            _ => dirs.last_mut().into_iter().for_each(|dir| dir.push(character)),
        }
    }
    dirs.into_iter().map(PathBuf::from).collect()
}

fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(fstype: &str, options: &[&str]) -> Mount {
        Mount {
            type_: fstype.to_owned(),
            source: "/src".to_owned(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            ..Default::default()
        }
    }

    fn parse(options: &[&str]) -> Result<(OverlayRootfs, LayerOwners), TaskError> {
        overlay(&mount("overlay", options))
    }

    #[test]
    fn overlays() {
        let rootfs = parse(&["lowerdir=/a\\:b:/c", "upperdir=/u", "workdir=/w", "volatile", "index=off"]).unwrap();
        let expected = OverlayRootfs {
            lowers: vec!["/a:b".into(), "/c".into()],
            upper: Some("/u".into()),
            work: Some("/w".into()),
            is_volatile: true,
        };
        assert_eq!(rootfs, (expected, LayerOwners::AsStored));
        assert!(parse(&["upperdir=/u", "workdir=/w"]).unwrap().0.lowers.is_empty());
        for bad in [
            &["upperdir=/u"][..],
            &["index=off"],
            &["lowerdir=/a", "upperdir=/u"],
            &["lowerdir=a"],
            &["lowerdir=/a", "userxattr"],
            &["lowerdir=/a", "uidmap=0:1"],
            &["lowerdir=/a", "idmap", "uidmap=0:1:1"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn owners() {
        assert_eq!(parse(&["lowerdir=/a", "idmap"]).unwrap().1, LayerOwners::Mapped);
        let ids =
            |host: u32| LinuxIdMappingBuilder::default().container_id(0_u32).host_id(host).size(9_u32).build().unwrap();
        let mapped = parse(&["lowerdir=/a", "uidmap=0:5:9,0:6:9", "gidmap=0:7:9"]).unwrap().1;
        let expected = LayerOwners::LowersMapped { uids: vec![ids(5), ids(6)], gids: vec![ids(7)] };
        assert_eq!(mapped, expected);
    }

    #[test]
    fn other_mounts() {
        let mut spec = Spec::default();
        assert!(matches!(from_wire(&[], &mut spec), Ok(Rootfs::Bundle)));
        assert!(matches!(from_wire(&[mount("bind", &["rbind", "ro"])], &mut spec), Ok(Rootfs::Bundle)));
        let root = spec.root().clone().unwrap();
        assert_eq!((root.path().as_path(), root.readonly()), (std::path::Path::new("/src"), Some(true)));
        assert!(from_wire(&[mount("btrfs", &[])], &mut spec).is_err());
        assert!(from_wire(&[mount("bind", &[]), mount("bind", &[])], &mut spec).is_err());
    }
}
