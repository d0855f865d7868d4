//! Choosing a driver: the one that is asked for, if it works here; else the best that does. Each is tried, not guessed from versions.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::{BtrfsDriver, Driver, ErofsDriver, NativeDriver, OverlayDriver};
use crate::{Result, SnapshotError};

/// Drivers by name, best first.
pub const DRIVERS: [&str; 4] = ["overlay", "erofs", "btrfs", "native"];

/// `asked`: a name of [`DRIVERS`] (`overlayfs` and `overlay2` are the first); nothing: the best that works below `root`.
///
/// # Errors
/// `InvalidArgument` for an unknown name, `FailedPrecondition` with the reason when the driver asked for does not work here.
pub fn choose(root: &Path, asked: Option<&str>) -> Result<Box<dyn Driver>> {
    if let Some(name) = asked {
        let driver =
            by_name(name).ok_or_else(|| SnapshotError::UnknownDriver { name: name.chars().take(40).collect() })?;
        try_out(root, driver.as_ref())?;
        return Ok(driver);
    }
    let mut first_error = None;
    for driver in DRIVERS.iter().filter_map(|name| by_name(name)) {
        match try_out(root, driver.as_ref()) {
            Ok(()) => return Ok(driver),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or_else(|| SnapshotError::UnknownDriver { name: String::new() }))
}

fn by_name(name: &str) -> Option<Box<dyn Driver>> {
    match name {
        "overlay" | "overlayfs" | "overlay2" => Some(Box::new(OverlayDriver)),
        "erofs" => Some(Box::new(ErofsDriver::default())),
        "btrfs" => Some(Box::new(BtrfsDriver)),
        "native" | "vfs" => Some(Box::new(NativeDriver)),
        _ => None,
    }
}

/// Makes a layer, a writable layer on it, and mounts that: what any driver must be able to do below `root`.
///
/// # Errors
/// `FailedPrecondition` with the reason when it does not work here.
pub fn try_out(root: &Path, driver: &dyn Driver) -> Result<()> {
    let place = root.join(format!(".try-{}", driver.name()));
    let unusable =
        |why: String| SnapshotError::Unusable { driver: driver.name().to_owned(), root: root.to_owned(), why };
    std::fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(root)
        .map_err(|source| SnapshotError::io("create", root, source))?;
    clear(driver, &place);
    let outcome = attempt(driver, &place);
    clear(driver, &place);
    outcome.map_err(|error| unusable(berth_types::report(error.as_ref())))
}

fn attempt(driver: &dyn Driver, place: &Path) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let (layer, container) = (place.join("layer"), place.join("container"));
    for directory in [place, &layer, &container] {
        std::fs::DirBuilder::new().mode(0o700).create(directory)?;
    }
    let files = driver.make_layer(&layer, None)?;
    std::fs::write(files.join("a"), "a")?;
    driver.finish_layer(&layer)?;
    let lowers = vec![driver.lower(&layer)];
    driver.make_writable(&container, &lowers)?;
    // Volatile: unmounting flushes nothing.
    let mounted = driver.rootfs(&container, lowers, true)?.mount_detached()?;
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&mounted));
    std::fs::write(Path::new(&path).join("b"), "b")?;
    // Overlay: the file system must have the marks for deleted files.
    std::fs::remove_file(Path::new(&path).join("a"))?;
    Ok(())
}

fn clear(driver: &dyn Driver, place: &Path) {
    driver.forget(&place.join("layer"));
    for home in ["container", "layer"] {
        // What cannot go now goes before the next attempt.
        drop(driver.destroy(&place.join(home)));
    }
    // What stays is cleared before the next attempt.
    drop(std::fs::remove_dir_all(place));
}
