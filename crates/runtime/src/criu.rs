//! Checkpoint and restore through criu (criu.org), where it is installed: `criu swrk`, one process per request, spoken to over a socket.
//!
//! A restored container is a full one: its cgroup is made first and criu is put into it, so what criu restores is born there; init
//! becomes our child. On a failure nothing is left of it.

mod mounts;
mod rpc;
mod worker;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_cgroup::{Cgroup, Layout};
use berth_oci::runtime::Spec;
use berth_rootfs::RootDir;
use berth_types::ContainerId;
use rustix::io::Errno;
use rustix::process::PidfdFlags;
use rustix::termios::Winsize;

use crate::cgroup_driver::CgroupDriver;
use crate::container::{Container, Process};
use crate::create::KILL_TIMEOUT;
use crate::error::RuntimeError;
use crate::hooks::{self, HookStage};
use crate::meanwhile::Meanwhile;
use crate::namespaces::{Namespace, Namespaces};
use crate::options::{LayerOwners, Rootfs, Stdio};
use crate::process::{Inherited, ProcessPlan, capability_names};
use crate::seccomp::Filter;
use crate::sources::SourceError;
use crate::state::{ContainerState, OCI_VERSION, Status};
use rpc::{Answer, Message};
use worker::{RestorePlace, Worker};

/// What a checkpoint and a restore share.
#[derive(Debug, Clone)]
pub struct CriuOptions {
    /// The program, an absolute path.
    pub program: PathBuf,
    /// Directory of the images; made when it is missing.
    pub images: PathBuf,
    /// Directory of logs; the images' if not given.
    pub work: Option<PathBuf>,
    pub switches: CriuSwitches,
}

/// Switches by criu's own names.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of criu by its own name")]
pub struct CriuSwitches {
    pub tcp_established: bool,
    pub tcp_skip_in_flight: bool,
    pub link_remap: bool,
    pub ext_unix_sk: bool,
    pub shell_job: bool,
    pub file_locks: bool,
    pub auto_dedup: bool,
}

/// What a restored container gets besides what config.json and the images say.
#[derive(Debug)]
pub struct RestoreOptions<'a> {
    /// A directory of ours for the time of it.
    pub scratch: &'a Path,
    pub rootfs: Rootfs,
    /// In place of the streams that were saved, where those were pipes, or of the terminal, whose master comes back in `Process::console`.
    /// `None`: the caller's own streams.
    pub stdio: Option<Stdio>,
    /// Also while criu works.
    pub meanwhile: Meanwhile,
}

/// What happens to the processes that are saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checkpoint {
    /// They end.
    Stop,
    LeaveRunning,
    /// Memory only, for a later checkpoint that names this one as its parent.
    PreDump,
}

const DUMP: u64 = 1;
const RESTORE: u64 = 2;
const PRE_DUMP: u64 = 4;
const FEATURE_CHECK: u64 = 9;
/// `criu_cg_mode`: criu leaves cgroups alone, for they are ours.
const CGROUPS_IGNORED: u64 = 0;
/// `criu_network_lock_method` (criu 3.18; older ones pass it over).
const NETWORK_LOCK_NFTABLES: u64 = 2;
const NETWORK_LOCK_SKIPPED: u64 = 3;
const LOG_LEVEL: u64 = 4;
const DESCRIPTORS: &str = "descriptors.json";
const LOG_MAX: u64 = 4 << 20;
/// Number of a descriptor that is passed to criu: 0 to 2 are the streams, 3 is the socket.
const PASSED_FIRST: u64 = 4;

impl Container {
    /// Saves the container's processes. `parent` is a directory of an earlier pre-dump, relative to the images.
    ///
    /// # Errors
    /// `FailedPrecondition` in a state without processes; `Unimplemented` for what criu cannot do on this kernel; what criu says.
    pub fn checkpoint(
        &self,
        spec: &Spec,
        options: &CriuOptions,
        kind: Checkpoint,
        parent: Option<&str>,
    ) -> Result<(), RuntimeError> {
        if !matches!(self.status(), Status::Running | Status::Paused) {
            return Err(RuntimeError::State { state: self.status().text(), wanted: "only a running one can be saved" });
        }
        if !self.namespaces.is_private(Namespace::Mount) {
            let what = "the checkpoint of a container in the host's mount namespace".to_owned();
            return Err(RuntimeError::Unsupported { what });
        }
        if kind == Checkpoint::PreDump {
            check_memory_tracking(options)?;
        }
        let directories = Directories::open(options)?;
        let mut asked = options.message(&directories, "dump.log");
        asked.number(2, u64::from(self.init.pid)).switch(3, kind == Checkpoint::LeaveRunning);
        asked.text(13, &rootfs(spec, &self.state.bundle).display().to_string());
        if let Some(parent) = parent {
            asked.text(14, parent).switch(15, true);
        }
        if let Some(freezer) = self.cgroup.paths().get("freezer") {
            asked.text(44, &freezer.display().to_string());
        }
        if kind != Checkpoint::PreDump {
            self.describe_outside(spec, &directories, &mut asked)?;
        }
        let mut request = Message::default();
        request.number(1, if kind == Checkpoint::PreDump { PRE_DUMP } else { DUMP }).message(2, &asked);
        let mut worker = Worker::start(&options.program, &directories.passed(), None)?;
        let answer = worker.ask(&request, Meanwhile::default(), |_, _| Ok(()))?;
        options.check(answer, "save the container", "dump.log").map(drop)
    }

    /// What is the host's and not to be saved: binds, masks, joined namespaces, the streams.
    fn describe_outside(
        &self,
        spec: &Spec,
        directories: &Directories,
        asked: &mut Message,
    ) -> Result<(), RuntimeError> {
        let root = RootDir::open_host(Path::new(&format!("/proc/{}/root", self.init.pid)))
            .map_err(|error| RuntimeError::Kernel { what: "look into the container's root", source: error.source })?;
        let externals = mounts::of_spec(spec, &self.state.bundle)?;
        for (place, name) in mounts::found_in(&root, spec, &externals)? {
            asked.message(23, &pair(&place, &name));
        }
        for bound in mounts::cgroups(spec, &self.namespaces, &self.cgroup)? {
            asked.message(23, &pair(&bound.destination.display().to_string(), &bound.name));
        }
        for (kind, path) in &self.namespaces.joined {
            let stat = rustix::fs::stat(path).map_err(|errno| worker::file_error("stat", path, errno))?;
            let (name, key) = external_namespace(*kind)?;
            asked.text(37, &format!("{name}[{}]:{key}", stat.st_ino));
        }
        let streams: Vec<String> = (0..3).map(|number| stream_of(self.init.pid, number)).collect();
        let text = serde_json::to_vec(&streams).unwrap_or_default();
        worker::write(&directories.images, DESCRIPTORS, &text)
            .map_err(|errno| worker::file_error("write", Path::new(DESCRIPTORS), errno))
    }

    /// Makes a running container of saved processes; init is our child.
    ///
    /// # Errors
    /// As for [`Container::create`], and what criu says; nothing is left then.
    pub fn restore(
        spec: &Spec,
        id: &ContainerId,
        bundle: &Path,
        options: &CriuOptions,
        restore: RestoreOptions<'_>,
    ) -> Result<Self, RuntimeError> {
        let linux = spec.linux().clone().unwrap_or_default();
        let namespaces = Namespaces::of_spec(linux.namespaces().as_deref().unwrap_or_default())?;
        let cgroup_error = |what| move |source| RuntimeError::Cgroup { what, source: Box::new(source) };
        let layout = Layout::detect().map_err(cgroup_error("find"))?;
        let path = CgroupDriver::Cgroupfs.path_of(spec, id.as_str())?;
        let group = Cgroup::create(&layout, &path).map_err(cgroup_error("create"))?;
        let restoring =
            Restoring { spec, id, bundle, options, restore: &restore, namespaces: &namespaces, group: &group };
        let restored = crate::cgroups::resources(linux.resources().as_ref())
            .and_then(|resources| Ok(berth_cgroup::plan(&layout, &resources)?))
            .and_then(|settings| group.apply(&settings).map_err(cgroup_error("limit")))
            .and_then(|()| restoring.run());
        let made = restored.and_then(|init| {
            let (filter, inherited) = restoring.filter_and_inherited()?;
            Ok((init.pid, init, filter, inherited))
        });
        match made {
            Ok((pid, init, filter, inherited)) => Ok(Self {
                state: state_of(spec, id, bundle, Status::Running, pid),
                init,
                warnings: Vec::new(),
                hooks: spec.hooks().clone(),
                namespaces: namespaces.with_time_of(pid),
                filter,
                cgroup: group,
                waiting: None,
                state_dir: None,
                inherited,
                rdt: None,
                meanwhile: restore.meanwhile,
            }),
            Err(error) => {
                let _killed = group.kill_all(berth_types::Signal::KILL, KILL_TIMEOUT);
                let _removed = group.delete(KILL_TIMEOUT);
                Err(error)
            }
        }
    }
}

/// A restore under way.
struct Restoring<'a> {
    spec: &'a Spec,
    id: &'a ContainerId,
    bundle: &'a Path,
    options: &'a CriuOptions,
    restore: &'a RestoreOptions<'a>,
    namespaces: &'a Namespaces,
    group: &'a Cgroup,
}

impl Restoring<'_> {
    fn run(&self) -> Result<Process, RuntimeError> {
        let tree = self.tree()?;
        let opened = rustix::io::fcntl_dupfd_cloexec(&tree, 0);
        let opened = opened.map_err(|source| RuntimeError::Kernel { what: "open the root file system", source })?;
        mounts::make_places(&RootDir::new(opened), self.spec, self.bundle)?;
        let mut directories = Directories::open(self.options)?;
        let mut asked = self.options.message(&directories, "restore.log");
        let place = self.restore.scratch.join("criu-root");
        worker::directory(&place)?;
        asked.switch(6, true).text(13, &place.display().to_string()).switch(26, true);
        for (name, source) in mounts::sources(&mounts::of_spec(self.spec, self.bundle)?) {
            asked.message(23, &pair(&name, &source));
        }
        for bound in mounts::cgroups(self.spec, self.namespaces, self.group)? {
            asked.message(23, &pair(&bound.name, &bound.source.display().to_string()));
        }
        for (kind, path) in &self.namespaces.joined {
            let (_, key) = external_namespace(*kind)?;
            asked.message(27, &inherited(key, directories.add(worker::open(path)?)));
        }
        for (number, stream) in saved_streams(&directories.images)?.iter().enumerate() {
            if stream.starts_with("pipe:") {
                asked.message(27, &inherited(stream, number as u64));
            }
        }
        let mut request = Message::default();
        request.number(1, RESTORE).message(2, &asked);
        let cgroup = |source| RuntimeError::Cgroup { what: "enter", source: Box::new(source) };
        let groups = self.group.attach_fds().map_err(cgroup)?;
        let streams = match &self.restore.stdio {
            Some(Stdio::Fds { stdin, stdout, stderr }) => Some([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]),
            Some(Stdio::Terminal { .. }) | None => None,
        };
        let group = self.group.cgroup_dir_fd();
        let place = RestorePlace { tree: &tree, place: &place, group, groups: &groups, streams };
        let mut worker = Worker::start(&self.options.program, &directories.passed(), Some(&place))?;
        let answer = worker.ask(&request, self.restore.meanwhile, |stage, pid| self.at_stage(stage, pid))?;
        let answer = self.options.check(answer, "restore the container", "restore.log")?;
        let pid = answer.pid.ok_or(RuntimeError::InitDied { step: "restore".to_owned() })?;
        let kernel = |source| RuntimeError::Kernel { what: "find the restored init", source };
        let raw = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).ok_or(kernel(Errno::SRCH))?;
        let pidfd = rustix::process::pidfd_open(raw, PidfdFlags::empty()).map_err(kernel)?;
        Ok(Process { pid, pidfd, console: self.resized(worker.terminal.take())? })
    }

    /// What processes that join later get, as after a create.
    fn filter_and_inherited(&self) -> Result<(Option<Filter>, Inherited), RuntimeError> {
        let annotations = self.spec.annotations().clone().unwrap_or_default();
        let process = self.spec.process().as_ref();
        let process = process.map(|process| ProcessPlan::new(process, &annotations)).transpose()?;
        let names = capability_names(process.as_ref().and_then(|process| process.capabilities.as_ref()));
        let linux = self.spec.linux().as_ref();
        let filter = Filter::new(None, linux.and_then(|linux| linux.seccomp().as_ref()), &names, None)?;
        let affinity = process.map(|process| process.affinity).unwrap_or_default();
        Ok((filter, Inherited::of_linux(linux, affinity)?))
    }

    /// A mount of its own, detached and private.
    fn tree(&self) -> Result<OwnedFd, RuntimeError> {
        let overlay = match &self.restore.rootfs {
            Rootfs::Overlay(_, owners) if is_mapped(owners, self.namespaces.is_new(Namespace::User)) => {
                let what = "restoring a container on an overlay whose owners are mapped".to_owned();
                return Err(RuntimeError::Unsupported { what });
            }
            Rootfs::Overlay(overlay, _) => overlay,
            Rootfs::Bundle => {
                return match crate::sources::clone_rootfs(&rootfs(self.spec, self.bundle), false) {
                    Ok(tree) => Ok(tree),
                    Err(SourceError::Clone(error)) => Err(error.into()),
                    Err(SourceError::Change(what, source)) => Err(RuntimeError::Kernel { what, source }),
                    // Of binds only.
                    Err(SourceError::Locked { .. }) => Err(RuntimeError::InitDied { step: "clone-rootfs".to_owned() }),
                };
            }
        };
        Ok(overlay.mount_detached()?)
    }

    /// The master of the restored terminal, with the size that is asked now.
    fn resized(&self, console: Option<OwnedFd>) -> Result<Option<OwnedFd>, RuntimeError> {
        if let (Some(master), Some(Stdio::Terminal { rows, columns, .. })) = (&console, &self.restore.stdio)
            && (*rows, *columns) != (0, 0)
        {
            let size = Winsize { ws_row: *rows, ws_col: *columns, ws_xpixel: 0, ws_ypixel: 0 };
            rustix::termios::tcsetwinsize(master, size)
                .map_err(|source| RuntimeError::Kernel { what: "set the terminal's size", source })?;
        }
        Ok(console)
    }

    fn at_stage(&self, stage: &str, pid: u32) -> Result<(), RuntimeError> {
        if stage != "setup-namespaces" {
            return Ok(());
        }
        let state = state_of(self.spec, self.id, self.bundle, Status::Creating, pid).to_json();
        let hooks = self.spec.hooks().as_ref();
        let run = |stage| hooks::run(stage, hooks, &state, &[], self.restore.meanwhile);
        run(HookStage::Prestart).and_then(|()| run(HookStage::CreateRuntime))
    }
}

/// What requests speak of by number: directories by ours (criu opens them in `/proc`), joined namespaces by criu's own.
#[derive(Debug)]
struct Directories {
    images: OwnedFd,
    work: Option<OwnedFd>,
    joined: Vec<OwnedFd>,
}

impl Directories {
    fn open(options: &CriuOptions) -> Result<Self, RuntimeError> {
        let images = worker::directory(&options.images)?;
        Ok(Self { images, work: options.work.as_deref().map(worker::directory).transpose()?, joined: Vec::new() })
    }

    /// The number it will have in criu.
    fn add(&mut self, fd: OwnedFd) -> u64 {
        self.joined.push(fd);
        PASSED_FIRST + self.joined.len() as u64 - 1
    }

    fn passed(&self) -> Vec<BorrowedFd<'_>> {
        self.joined.iter().map(AsFd::as_fd).collect()
    }
}

fn own_number(fd: &OwnedFd) -> u64 {
    u64::try_from(fd.as_raw_fd()).unwrap_or(u64::MAX)
}

impl CriuOptions {
    fn message(&self, directories: &Directories, log: &str) -> Message {
        let mut asked = Message::default();
        let switches = &self.switches;
        asked.number(1, own_number(&directories.images)).number(9, LOG_LEVEL).text(10, log).switch(12, true);
        if let Some(work) = &directories.work {
            asked.number(17, own_number(work));
        }
        asked.switch(4, switches.ext_unix_sk).switch(5, switches.tcp_established).switch(7, switches.shell_job);
        asked.switch(8, switches.file_locks).switch(16, switches.auto_dedup).switch(18, switches.link_remap);
        asked.switch(46, switches.tcp_skip_in_flight).switch(50, true);
        asked.switch(24, true).number(34, CGROUPS_IGNORED);
        if !switches.tcp_established {
            // Without connections to keep there is nothing to hold back meanwhile, and no firewall tool is needed.
            asked.number(64, NETWORK_LOCK_SKIPPED);
        } else if self.locks_by_nftables() {
            // Otherwise by iptables-restore, which has to be installed.
            asked.number(64, NETWORK_LOCK_NFTABLES);
        }
        asked
    }

    /// Whether this criu speaks to the kernel's firewall itself.
    fn locks_by_nftables(&self) -> bool {
        let mut check = std::process::Command::new(&self.program);
        check.args(["check", "--feature", "network_lock_nftables"]);
        check.stdin(std::process::Stdio::null()).output().is_ok_and(|output| output.status.success())
    }

    /// An answer that says no becomes an error with criu's own words.
    fn check(&self, answer: Answer, what: &'static str, log: &str) -> Result<Answer, RuntimeError> {
        if answer.success {
            return Ok(answer);
        }
        let path = self.work.as_deref().unwrap_or(&self.images).join(log);
        let text = crate::record::read_bounded(&path, LOG_MAX).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let said = reason(&text).unwrap_or(&answer.message).to_owned();
        Err(RuntimeError::Criu { what, said, log: path.display().to_string() })
    }
}

/// The line of criu's log that tells most: one that names the option to use, else the first error, of which later ones are consequences.
fn reason(log: &str) -> Option<&str> {
    // Limits it would like to raise for itself are none.
    let mut errors = log.lines().filter(|line| line.contains("Error (") && !line.contains("rlimit:"));
    let advice = errors.clone().find(|line| line.contains(" --"));
    advice.or_else(|| errors.next())
}

fn check_memory_tracking(options: &CriuOptions) -> Result<(), RuntimeError> {
    let (mut features, mut request) = (Message::default(), Message::default());
    features.switch(1, true);
    request.number(1, FEATURE_CHECK).message(5, &features);
    let answer = Worker::start(&options.program, &[], None)?.ask(&request, Meanwhile::default(), |_, _| Ok(()))?;
    if answer.has_memory_tracking {
        return Ok(());
    }
    Err(RuntimeError::Unsupported {
        what: "a pre-dump on this kernel, which does not track changed memory,".to_owned(),
    })
}

fn pair(key: &str, value: &str) -> Message {
    let mut pair = Message::default();
    pair.text(1, key).text(2, value);
    pair
}

fn inherited(key: &str, number: u64) -> Message {
    let mut inherited = Message::default();
    inherited.text(1, key).number(2, number);
    inherited
}

fn rootfs(spec: &Spec, bundle: &Path) -> PathBuf {
    bundle.join(spec.root().as_ref().map_or_else(PathBuf::new, |root| root.path().clone()))
}

fn state_of(spec: &Spec, id: &ContainerId, bundle: &Path, status: Status, pid: u32) -> ContainerState {
    ContainerState {
        oci_version: OCI_VERSION.to_owned(),
        id: id.to_string(),
        status,
        pid,
        bundle: bundle.to_owned(),
        annotations: spec.annotations().clone().unwrap_or_default(),
    }
}

/// criu's name of a kind of namespace that it can leave to others, and the key we give it.
fn external_namespace(kind: Namespace) -> Result<(&'static str, &'static str), RuntimeError> {
    match kind {
        Namespace::Network => Ok(("net", "extRootNetNS")),
        Namespace::Pid => Ok(("pid", "extRootPidNS")),
        other => Err(RuntimeError::Unsupported {
            what: format!("saving a container that joins a {} namespace", other.text()),
        }),
    }
}

/// What a descriptor leads to: `pipe:[123]`, a path.
fn stream_of(pid: u32, number: u32) -> String {
    std::fs::read_link(format!("/proc/{pid}/fd/{number}")).map(|path| path.display().to_string()).unwrap_or_default()
}

fn saved_streams(images: &OwnedFd) -> Result<Vec<String>, RuntimeError> {
    let error = |errno| worker::file_error("read", Path::new(DESCRIPTORS), errno);
    let text = worker::read(images, DESCRIPTORS).map_err(error)?;
    let streams: Vec<String> = serde_json::from_slice(&text)
        .map_err(|error| RuntimeError::BadState { path: DESCRIPTORS.to_owned(), problem: error.to_string() })?;
    // No more than the three of ours can stand in for saved ones.
    Ok(streams.into_iter().take(3).collect())
}

fn is_mapped(owners: &LayerOwners, has_user_ns: bool) -> bool {
    match owners {
        LayerOwners::AsStored => false,
        LayerOwners::Mapped => has_user_ns,
        LayerOwners::LowersMapped { .. } => true,
    }
}

#[cfg(test)]
mod tests {
    use super::reason;

    #[test]
    fn the_line_that_tells_most() {
        let limits =
            "(0.1) Error (criu/util.c:1533): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n";
        let first = "(0.2) Error (criu/net.c:3282): net: Locking network failed\n";
        let last = "(0.3) Error (criu/cr-dump.c:2111): Dumping FAILED.\n";
        let advice =
            "(0.2) Error (criu/file-lock.c:141): Some file locks are hold! You can try --file-locks to dump them.\n";
        for (log, expected) in [
            (format!("(0.0) Version\n{limits}{first}{last}"), Some(first)),
            (format!("{limits}{first}{advice}{last}"), Some(advice)),
            (format!("{limits}{last}"), Some(last)),
            (limits.to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(reason(&log), expected.map(str::trim_end));
        }
    }
}
