//! Foreign programs from Debian's packages, unpacked below `target/peers` by `make peers`.

use std::path::{Path, PathBuf};

/// The workspace's root.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("tests/testkit is two below the root").to_owned()
}

/// A file of the unpacked packages (`usr/bin/ctr`).
///
/// # Panics
/// When it is not there, naming the command that fetches it.
pub fn peer(path: &str) -> PathBuf {
    let root = std::env::var_os("BERTH_PEERS").map_or_else(|| workspace().join("target/peers"), PathBuf::from);
    let file = root.join("root").join(path);
    assert!(file.exists(), "{} is missing: run `make peers`", file.display());
    file
}

/// Debian's static busybox.
pub fn busybox() -> PathBuf {
    peer("bin/busybox")
}

/// Directory of our own built binaries (`make build`).
///
/// # Panics
/// When they are not built.
pub fn binaries() -> PathBuf {
    let bin = std::env::var_os("BERTH_BIN").map_or_else(|| workspace().join("target/bin"), PathBuf::from);
    assert!(bin.join("berthd").exists(), "{} has no berthd: run `make build`", bin.display());
    bin
}

/// The stock docker client: the machine's own, else Debian's.
pub fn docker() -> PathBuf {
    let own = Path::new("/usr/local/bin/docker");
    if own.exists() { own.to_owned() } else { peer("usr/bin/docker") }
}
