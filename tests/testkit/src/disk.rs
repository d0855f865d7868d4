//! File systems of a test's own, in its mount namespace.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Instance;
use crate::instance::run;
use crate::peers;

/// A small file system of its own, unmounted when dropped: declare it before the instance on it.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
    /// The file it is in, where it is not in memory.
    file: Option<PathBuf>,
}

fn place(name: &str) -> PathBuf {
    let root = std::env::var_os("BERTH_TEST_ROOT").map_or_else(std::env::temp_dir, PathBuf::from);
    root.join(format!("disk-{}-{name}", std::process::id()))
}

#[track_caller]
fn must(program: impl AsRef<Path>, words: &[&str], path: &Path) {
    let mut command = Command::new(program.as_ref());
    command.args(words).arg(path);
    let done = run(command, b"");
    assert_eq!(done.code, 0, "this needs a mount namespace of its own, as root: {done:?}");
}

impl SmallDisk {
    /// In memory.
    pub fn mount(mebibytes: u32) -> Self {
        let path = place(&mebibytes.to_string());
        std::fs::create_dir_all(&path).unwrap();
        must("mount", &["-t", "tmpfs", "-o", &format!("size={mebibytes}m,mode=755"), "tmpfs"], &path);
        Self { path, file: None }
    }

    /// A btrfs in a file.
    pub fn btrfs(mebibytes: u64) -> Self {
        let (path, file) = (place("btrfs"), place("btrfs.image"));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::File::create(&file).unwrap().set_len(mebibytes << 20).unwrap();
        must(peers::peer("sbin/mkfs.btrfs"), &["-q"], &file);
        must("mount", &["-t", "btrfs", "-o", "loop", file.to_str().unwrap()], &path);
        Self { path, file: Some(file) }
    }

    pub fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.path).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// A daemon whose data root is on it.
    pub fn instance(&self, options: &[&str]) -> Instance {
        let disk = self.path.clone();
        Instance::start_in(options, &[], move |directory: &Path| {
            std::os::unix::fs::symlink(disk, directory.join("root")).unwrap();
        })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut unmount = Command::new("umount");
        unmount.arg(&self.path);
        let done = run(unmount, b"");
        assert!(done.code == 0 || std::thread::panicking(), "{done:?}");
        std::fs::remove_dir(&self.path).unwrap();
        self.file.iter().for_each(|file| std::fs::remove_file(file).unwrap());
    }
}
