//! The kernel's own price of a container: the calls that no runtime can leave out, by the shortest way we know, with no specification read
//! and no state kept. What a runtime costs more than this is its own doing.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Instant;

use berth_seccomp::default_profile;
use berth_sys::clone::{CloneArgs, clone_child, namespace_bits};
use berth_sys::process::{StringArray, execve};
use berth_sys::seccomp::{FilterFlags, load_filter};
use rustix::fs::{CWD, Dev, FileType, Mode, makedev, mknodat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change, unmount,
};
use rustix::process::{Pid, WaitOptions, chdir, pivot_root, waitpid};
use rustix::thread::UnshareFlags;

/// Everything that can be made ready before.
#[derive(Debug)]
pub struct Floor {
    rootfs: PathBuf,
    cgroup: String,
    filter: Vec<u8>,
}

impl Floor {
    /// `rootfs`: with `/bin/true`. `cgroup`: path of the group to make in each hierarchy.
    pub fn new(rootfs: &Path, cgroup: &str) -> Self {
        let parent = Path::new(cgroup).parent().expect("a group below another").to_str().expect("a plain name");
        for root in hierarchies() {
            let parent = root.join(parent.trim_start_matches('/'));
            if !parent.is_dir() {
                make_group(&parent);
            }
        }
        let filter =
            default_profile().resolve(&[], (6, 1)).and_then(|filter| filter.compile()).expect("our own profile");
        Self { rootfs: rootfs.to_owned(), cgroup: cgroup.to_owned(), filter: filter.to_bytes() }
    }

    /// One container from decision to the end of `true`; milliseconds. The caller has no other thread.
    pub fn run(&self) -> f64 {
        let start = Instant::now();
        let groups: Vec<PathBuf> = hierarchies().map(|root| root.join(self.cgroup.trim_start_matches('/'))).collect();
        groups.iter().for_each(|group| make_group(group));
        let attach: Vec<File> =
            groups.iter().map(|group| File::options().write(true).open(group.join("cgroup.procs")).unwrap()).collect();
        let namespaces = UnshareFlags::NEWNS
            | UnshareFlags::NEWUTS
            | UnshareFlags::NEWIPC
            | UnshareFlags::NEWPID
            | UnshareFlags::NEWNET;
        let args = CloneArgs { namespaces: namespace_bits(namespaces), ..CloneArgs::default() };
        let child = clone_child(&args, || self.init(&attach)).unwrap();
        let pid = Pid::from_raw(i32::try_from(child.pid).expect("pids are small")).expect("not zero");
        let status = waitpid(Some(pid), WaitOptions::empty()).unwrap().expect("it has ended").1;
        assert_eq!(status.exit_status(), Some(0), "the floor's container");
        groups.iter().for_each(|group| fs::remove_dir(group).unwrap());
        start.elapsed().as_secs_f64() * 1e3
    }

    fn init(&self, attach: &[File]) -> u8 {
        attach.iter().for_each(|mut file| file.write_all(b"0").unwrap());
        self.enter_root();
        load_filter(&self.filter, FilterFlags::default()).unwrap();
        let arguments = StringArray::new(vec![CString::new("true").expect("no NUL")]);
        execve(&CString::new("/bin/true").expect("no NUL"), &arguments, &StringArray::new(Vec::new()));
        127
    }

    fn enter_root(&self) {
        let root = &self.rootfs;
        let none = MountFlags::empty();
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).unwrap();
        mount_bind_recursive(root, root).unwrap();
        mount("proc", root.join("proc"), "proc", none, None).unwrap();
        mount("tmpfs", root.join("dev"), "tmpfs", none, c"size=65536k,mode=755").unwrap();
        mount("sysfs", root.join("sys"), "sysfs", MountFlags::RDONLY, None).unwrap();
        for name in ["pts", "shm", "mqueue"] {
            fs::create_dir(root.join("dev").join(name)).unwrap();
        }
        mount("devpts", root.join("dev/pts"), "devpts", none, c"newinstance,ptmxmode=0666,mode=0620").unwrap();
        mount("shm", root.join("dev/shm"), "tmpfs", none, c"size=65536k").unwrap();
        mount("mqueue", root.join("dev/mqueue"), "mqueue", none, None).unwrap();
        for (name, major, minor) in
            [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)]
        {
            let device: Dev = makedev(major, minor);
            mknodat(CWD, root.join("dev").join(name), FileType::CharacterDevice, Mode::from_raw_mode(0o666), device)
                .unwrap();
        }
        for (name, target) in [("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("ptmx", "pts/ptmx")] {
            symlink(target, root.join("dev").join(name)).unwrap();
        }
        chdir(root).unwrap();
        pivot_root(".", ".").unwrap();
        unmount(".", UnmountFlags::DETACH).unwrap();
        chdir("/").unwrap();
    }
}

/// A group of `cpuset` takes processes only once it has processors and memory nodes.
fn make_group(group: &Path) {
    fs::create_dir(group).unwrap();
    for knob in ["cpuset.cpus", "cpuset.mems"] {
        let inherited = group.parent().expect("a group below the root").join(knob);
        if let Ok(value) = fs::read(inherited) {
            fs::write(group.join(knob), value).unwrap();
        }
    }
}

/// Every v1 hierarchy; groups of v2 cost less and are left out.
fn hierarchies() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}
