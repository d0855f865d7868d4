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

/// A copy of a program, by a process of its own: written by this one, it could not be executed ("Text file busy") as long as a child that
/// another thread makes just then still holds the descriptor.
///
/// # Panics
/// When it cannot be copied.
pub fn copy_program(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg(from).arg(to).status().expect("cp starts");
    assert!(copied.success(), "{} is copied to {}", from.display(), to.display());
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

/// The stock docker client: the one that `BERTH_DOCKER` names, the machine's own, else Debian's.
pub fn docker() -> PathBuf {
    if let Some(named) = std::env::var_os("BERTH_DOCKER") {
        return named.into();
    }
    let own = Path::new("/usr/local/bin/docker");
    if own.exists() { own.to_owned() } else { peer("usr/bin/docker") }
}

/// A command that runs a peer with the libraries it was unpacked with, in a directory of the test's: what is started by a daemon of ours gets
/// no environment that says where they are. The unified hierarchy of a hybrid host is taken out of its sight, as crun wants it.
pub fn wrapped(path: &str, into: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let binary = peer(path);
    let root = binary.ancestors().find(|directory| directory.join("usr/lib").exists()).expect("peers have libraries");
    let file = into.join(binary.file_name().expect("a binary has a name"));
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let run = format!("exec env LD_LIBRARY_PATH={} {} \"$@\"", libraries.display(), binary.display());
    let text = format!(
        "#!/bin/sh\nmountpoint -q /sys/fs/cgroup/unified || {run}\n\
         exec unshare --mount --propagation slave sh -c 'umount -l /sys/fs/cgroup/unified; {run}' sh \"$@\"\n"
    );
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    file
}
