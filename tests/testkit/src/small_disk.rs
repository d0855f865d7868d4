//! A data root with little room.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Instance;
use crate::instance::run;

/// A small file system of its own, unmounted when dropped: declare it before the instance on it.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    pub fn mount(mebibytes: u32) -> Self {
        let root = std::env::var_os("BERTH_TEST_ROOT").map_or_else(std::env::temp_dir, PathBuf::from);
        let path = root.join(format!("disk-{}-{mebibytes}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m,mode=755"), "tmpfs"]).arg(&path);
        assert_eq!(run(mount, b"").code, 0, "this needs a mount namespace of its own, as root");
        Self(path)
    }

    pub fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    pub fn instance(&self) -> Instance {
        let disk = self.0.clone();
        Instance::start_in(&[], &[], move |directory: &Path| {
            std::os::unix::fs::symlink(disk, directory.join("root")).unwrap();
        })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut unmount = Command::new("umount");
        unmount.arg(&self.0);
        let done = run(unmount, b"");
        assert!(done.code == 0 || std::thread::panicking(), "{done:?}");
        std::fs::remove_dir(&self.0).unwrap();
    }
}
