//! Choosing a driver: the one that is asked for, if it works here; else the one that was in use, whose writable layers are there; else the best that
//! works. Each is tried, not guessed from versions.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::{BtrfsDriver, Driver, ErofsDriver, NativeDriver, OverlayDriver};
use crate::{Result, SnapshotError};

/// Drivers by name, best first (`docs/adr/0012-layers-are-erofs-images.md`).
pub const DRIVERS: [&str; 4] = ["erofs", "overlay", "btrfs", "native"];

/// `asked`: a name of [`DRIVERS`] (`overlayfs` and `overlay2` are `overlay`); nothing: the one in use below `root`, else the best that works.
///
/// # Errors
/// `InvalidArgument` for an unknown name, `FailedPrecondition` with the reason when the driver asked for, or in use, does not work here.
pub fn choose(root: &Path, asked: Option<&str>) -> Result<Box<dyn Driver>> {
    if let Some(name) = asked.or_else(|| in_use(root)) {
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

/// The driver whose store was opened first in the latest boot; the better one where that says nothing.
fn in_use(root: &Path) -> Option<&'static str> {
    let opened = |name: &str| {
        let store = root.join(name);
        let boot = std::fs::metadata(store.join("boot")).and_then(|found| found.modified());
        store.join("version").exists().then(|| boot.unwrap_or(std::time::SystemTime::UNIX_EPOCH))
    };
    let stores = DRIVERS.iter().rev().filter_map(|name| Some((opened(name)?, *name)));
    stores.max_by_key(|(opened, _)| *opened).map(|(_, name)| name)
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
    driver.let_go();
    for home in ["container", "layer"] {
        // What cannot go now goes before the next attempt.
        drop(driver.destroy(&place.join(home)));
    }
    // What stays is cleared before the next attempt.
    drop(std::fs::remove_dir_all(place));
}
