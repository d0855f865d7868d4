//! A root file system's plan as the mounts that containerd's clients make themselves, and back.

use std::io;
use std::path::PathBuf;

use berth_rootfs::OverlayRootfs;

use crate::{Result, SnapshotError};

/// A mount as containerd's clients carry it out: mount(8) with a type, a source and options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub kind: String,
    pub source: String,
    pub options: Vec<String>,
}

/// A root file system's plan as mounts: one directory alone is bound, several are an overlay.
///
/// # Errors
/// `InvalidArgument` for a path that is no text.
pub fn mounts(rootfs: &OverlayRootfs) -> Result<Vec<Mount>> {
    let text = |path: &PathBuf| {
        path.to_str().map(str::to_owned).ok_or_else(|| {
            SnapshotError::io("name", path, io::Error::new(io::ErrorKind::InvalidInput, "the path is no text"))
        })
    };
    let bind = |source: String, access: &str| Mount {
        kind: "bind".to_owned(),
        source,
        options: vec![access.to_owned(), "rbind".to_owned()],
    };
    let lowers = rootfs.lowers.iter().map(text).collect::<Result<Vec<String>>>()?;
    let mount = match (&rootfs.upper, &rootfs.work, lowers.as_slice()) {
        (Some(upper), _, []) => bind(text(upper)?, "rw"),
        (None, _, [lower]) => bind(lower.clone(), "ro"),
        (upper, work, lowers) => {
            let mut options = vec!["index=off".to_owned()];
            if let (Some(upper), Some(work)) = (upper, work) {
                options.push(format!("workdir={}", text(work)?));
                options.push(format!("upperdir={}", text(upper)?));
            }
            options.push(format!("lowerdir={}", lowers.join(":")));
            Mount { kind: "overlay".to_owned(), source: "overlay".to_owned(), options }
        }
    };
    Ok(vec![mount])
}

/// The plan of mounts as [`mounts`] makes them, whoever made these.
///
/// # Errors
/// `InvalidArgument` for other mounts than one overlay or bind mount.
pub fn rootfs_of_mounts(mounts: &[Mount]) -> Result<OverlayRootfs> {
    let [mount] = mounts else { return Err(SnapshotError::Mounts { why: "exactly one is expected" }) };
    let option = |name: &str| mount.options.iter().find_map(|option| option.strip_prefix(name));
    match mount.kind.as_str() {
        "bind" if mount.options.iter().any(|option| option == "ro") => {
            Ok(OverlayRootfs { lowers: vec![PathBuf::from(&mount.source)], ..OverlayRootfs::default() })
        }
        "bind" => {
            let directory = Some(PathBuf::from(&mount.source));
            Ok(OverlayRootfs { upper: directory.clone(), work: directory, ..OverlayRootfs::default() })
        }
        "overlay" => Ok(OverlayRootfs {
            lowers: option("lowerdir=").unwrap_or_default().split(':').map(PathBuf::from).collect(),
            upper: option("upperdir=").map(PathBuf::from),
            work: option("workdir=").map(PathBuf::from),
            is_volatile: false,
        }),
        _ => Err(SnapshotError::Mounts { why: "an overlay or a bind mount is expected" }),
    }
}
