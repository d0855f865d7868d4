//! Where images and containers are kept: the kind of file system, space, and whether an overlay can write on it.

use std::path::{Path, PathBuf};

use super::Check;

const AREA: &str = "files";
const FREE_BYTES: u64 = 2 << 30;
const FREE_INODES: u64 = 50_000;
/// File systems an overlay cannot write on, by their magic numbers (statfs(2)).
const UNFIT: [(u64, &str); 6] = [
    (0x6969, "nfs"),
    (0x794c_7630, "overlay"),
    (0x4d44, "vfat"),
    (0xff53_4d42, "cifs"),
    (0x6573_5546, "fuse"),
    (0xf15f, "ecryptfs"),
];

pub(super) fn checks(root: &str) -> Vec<Check> {
    let place = existing(Path::new(root));
    let Ok(found) = rustix::fs::statfs(&place) else {
        return vec![Check::warn(AREA, "data root", place.display().to_string(), "it cannot be looked at")];
    };
    let magic = u64::try_from(found.f_type).unwrap_or(0) & 0xffff_ffff;
    let block = u64::try_from(found.f_bsize).unwrap_or(0);
    vec![kind(&place, magic), space(found.f_bavail.saturating_mul(block), found.f_files, found.f_ffree)]
}

/// The directory, or the nearest above it that exists.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|place| place.exists()).map_or_else(|| "/".into(), Path::to_owned)
}

fn kind(place: &Path, magic: u64) -> Check {
    let place = place.display();
    match UNFIT.iter().find(|(unfit, _)| *unfit == magic) {
        Some((_, name)) => Check::bad(
            AREA,
            "data root",
            format!("{place} is on {name}"),
            "an overlay cannot write on it: use --root on ext4, xfs, btrfs or tmpfs",
        ),
        None => {
            let name = match magic {
                0xef53 => "ext4".to_owned(),
                0x5846_5342 => "xfs".to_owned(),
                0x9123_683e => "btrfs".to_owned(),
                0x0102_1994 => "tmpfs".to_owned(),
                other => format!("a file system of type {other:#x}"),
            };
            Check::good(AREA, "data root", format!("{place} is on {name}"))
        }
    }
}

/// File systems without a table of inodes say 0 of 0.
fn space(free_bytes: u64, inodes: u64, free_inodes: u64) -> Check {
    let size = berth_types::ByteCount(free_bytes);
    let is_enough = free_bytes >= FREE_BYTES && (inodes == 0 || free_inodes >= FREE_INODES);
    let found = if inodes == 0 { format!("{size} free") } else { format!("{size} and {free_inodes} inodes free") };
    Check::when(
        is_enough,
        Check::warn,
        AREA,
        "space",
        found,
        "images will not fit: berth system prune, or a larger --root",
    )
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn fit_and_unfit() {
        assert_eq!(kind(Path::new("/x"), 0xef53).found, "/x is on ext4");
        assert_eq!(kind(Path::new("/x"), 0x6969).state, State::Bad);
        assert_eq!(space(3 << 30, 0, 0).state, State::Good);
        assert_eq!(space(3 << 30, 100, 5).state, State::Warn);
        assert_eq!(space(1, 0, 0).state, State::Warn);
        assert_eq!(existing(Path::new("/no/such/place")), Path::new("/"));
    }
}
