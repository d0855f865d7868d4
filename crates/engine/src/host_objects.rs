//! Objects of the host that a start needs as data: device numbers, namespaces of others, generated files, the cgroup's place.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use berth_rootfs::RootDir;
use rustix::fs::{Mode, OFlags};
use rustix::thread::UnshareFlags;

use crate::api::CgroupDriver;
use crate::container::{Container, KnownRootfs};
use crate::engine::Engine;
use crate::error::{Doing, EngineError, Result};
use crate::id_blocks::BLOCK_SIZE;
use crate::lifecycle::fd_path;
use crate::record::Record;
use crate::request::Request;
use crate::request::mounts::MountKind;
use crate::request::namespaces::{IdRange, NetworkMode, NsMode, UserNsMode};
use crate::spec::{BlockDevices, HostDevice, NamespacePaths};

/// Nodes of `/dev` that belong to the host's own mounts or are made anew in each container.
const NOT_PRIVILEGED: [&str; 10] =
    ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", "hugepages", "console", "ptmx", ".udev"];
/// Nodes a privileged container may get; a host has some hundred.
const NODES_MAX: usize = 20_000;

/// Device nodes and numbers, looked up when a container starts.
#[derive(Debug, Default)]
pub(crate) struct HostObjects {
    pub(crate) devices: Vec<HostDevice>,
    pub(crate) block_devices: BlockDevices,
    pub(crate) volumes: BTreeMap<PathBuf, PathBuf>,
    pub(crate) shared_shm: Option<PathBuf>,
}

impl HostObjects {
    /// # Errors
    /// `NotFound` for a missing node, `InvalidArgument` for what is no device.
    pub(crate) fn look_up(record: &Record, request: &Request) -> Result<Self> {
        let mut objects = Self { block_devices: block_devices(record)?, ..Self::default() };
        if request.security.privileged {
            nodes_below(Path::new("/dev"), "rwm", None, &mut objects.devices);
        }
        objects.devices.extend(Self::look_up_devices(request)?);
        Ok(objects)
    }

    /// The nodes of `--device`; also asked at create, so that a wrong one makes no container.
    ///
    /// # Errors
    /// As `look_up`.
    pub(crate) fn look_up_devices(request: &Request) -> Result<Vec<HostDevice>> {
        let mut devices = Vec::new();
        for asked in &request.devices {
            let metadata = std::fs::metadata(&asked.host).map_err(|error| {
                EngineError::io("look at device", &asked.host, &error).with_hint("name a device of the host")
            })?;
            if metadata.is_dir() {
                nodes_below(&asked.host, &asked.access, Some(&asked.container), &mut devices);
                continue;
            }
            let device = device(&metadata, &asked.container, &asked.access)
                .ok_or_else(|| EngineError::invalid(format!("{} is not a device node", asked.host.display())))?;
            devices.push(device);
        }
        Ok(devices)
    }
}

fn device(metadata: &std::fs::Metadata, path: &Path, access: &str) -> Option<HostDevice> {
    let kind = match metadata.file_type() {
        t if t.is_char_device() => 'c',
        t if t.is_block_device() => 'b',
        _ => return None,
    };
    Some(HostDevice {
        path: path.to_owned(),
        kind,
        major: rustix::fs::major(metadata.rdev()),
        minor: rustix::fs::minor(metadata.rdev()),
        mode: metadata.permissions().mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        access: access.to_owned(),
    })
}

/// Device nodes of a directory and its subdirectories; links are not followed. `to`: where the directory appears in the container.
fn nodes_below(dir: &Path, access: &str, to: Option<&Path>, devices: &mut Vec<HostDevice>) {
    let mut pending = vec![dir.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_skipped = to.is_none() && next == dir && NOT_PRIVILEGED.iter().any(|n| name == *n);
            let Ok(metadata) = entry.metadata() else { continue };
            if is_skipped || devices.len() >= NODES_MAX {
                continue;
            }
            let path = entry.path();
            if metadata.is_dir() {
                pending.push(path);
                continue;
            }
            let shown = match to {
                Some(to) => path.strip_prefix(dir).map_or_else(|_| path.clone(), |rest| to.join(rest)),
                None => path.clone(),
            };
            devices.extend(device(&metadata, &shown, access));
        }
    }
}

/// Numbers of the devices that I/O limits name; a partition or file system is not resolved to its disk.
pub(crate) fn block_devices(record: &Record) -> Result<BlockDevices> {
    block_devices_of(&record.host.resources)
}

pub(crate) fn block_devices_of(r: &crate::config::Resources) -> Result<BlockDevices> {
    let lists =
        [&r.device_read_bps, &r.device_write_bps, &r.device_read_iops, &r.device_write_iops, &r.blkio_weight_device];
    let mut devices = BlockDevices::new();
    for path in lists.into_iter().flatten().map(|(path, _)| path) {
        let metadata = std::fs::metadata(path).map_err(|error| EngineError::io("look at device", path, &error))?;
        if !metadata.file_type().is_block_device() {
            return Err(EngineError::invalid(format!("{} is not a block device: I/O limits need one", path.display()))
                .with_hint("name the disk, as in --device-write-bps /dev/sda:1mb"));
        }
        devices.insert(path.clone(), (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev())));
    }
    Ok(devices)
}

/// The user namespace's map; empty without one.
pub(crate) fn id_maps(record: &Record, request: &Request) -> Vec<IdRange> {
    match &request.namespaces.user {
        UserNsMode::Map(ranges) => ranges.clone(),
        UserNsMode::Auto => {
            record.id_block.map(|host| IdRange { container: 0, host, size: BLOCK_SIZE }).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

impl Engine {
    /// The directories of a container's volumes; a part of one is opened, and named by its descriptor.
    pub(crate) fn volume_sources(
        &self,
        record: &Record,
        request: &Request,
        held: &mut Vec<OwnedFd>,
    ) -> Result<BTreeMap<PathBuf, PathBuf>> {
        let mut sources = BTreeMap::new();
        for bound in &record.volumes {
            let volume = self.inner.volumes.get(&bound.name)?;
            let mut source = self.inner.volumes.source(&volume);
            let asked = request.mounts.iter().find(|mount| mount.target == bound.target).map(|mount| &mount.kind);
            if let Some(MountKind::Volume(asked)) = asked
                && !asked.subpath.as_os_str().is_empty()
            {
                let part = RootDir::open_host(&source)?
                    .resolve(&asked.subpath)
                    .doing(|| format!("cannot mount {} of volume {}", asked.subpath.display(), bound.name))?;
                source = fd_path(&part);
                held.push(part);
            }
            sources.insert(bound.target.clone(), source);
        }
        Ok(sources)
    }

    /// `<parent>/<id>`; a relative `--cgroup-parent` is below the root as in Docker. By systemd `<slice>:berth:<id>`.
    pub(crate) fn cgroup_path(&self, record: &Record) -> String {
        let asked = record.host.cgroup_parent.trim_matches('/');
        let parent = if asked.is_empty() { self.inner.options.cgroup_parent.trim_matches('/') } else { asked };
        match self.inner.options.cgroup_driver {
            CgroupDriver::Cgroupfs => format!("/{parent}/{}", record.id),
            CgroupDriver::Systemd => format!("{parent}:berth:{}", record.id),
        }
    }

    /// The layer stack of a container, from memory or, after a restart, from the image store.
    pub(crate) fn rootfs_of(&self, container: &Container) -> Result<berth_rootfs::OverlayRootfs> {
        let (known, image_id) = {
            let inner = container.lock();
            (inner.rootfs.clone(), inner.record.image_id)
        };
        let removals = self.inner.images.layer_removals();
        if let Some(known) = known.filter(|known| known.removals == removals) {
            return Ok(known.rootfs);
        }
        let image = self.inner.images.get_by_id(&image_id)?;
        let rootfs = self.inner.images.rootfs(container.id.as_str(), &image)?;
        let layers = image.layers.iter().map(|layer| layer.chain_id).collect();
        container.lock().rootfs = Some(KnownRootfs { rootfs: rootfs.clone(), layers, removals });
        Ok(rootfs)
    }

    /// The same for a start: layers that were damaged since are made again. From here on files in the writable layer may change.
    pub(crate) fn rootfs_to_start(&self, container: &Container) -> Result<berth_rootfs::OverlayRootfs> {
        let known = {
            let mut inner = container.lock();
            inner.writable.changes();
            inner.rootfs.clone()
        };
        if known.is_some_and(|known| !self.inner.images.are_usable(&known.layers)) {
            container.lock().rootfs = None;
        }
        self.rootfs_of(container)
    }

    /// Our static init as a file that can be bound into containers; written once.
    pub(crate) fn init_binary(&self) -> Result<PathBuf> {
        use std::io::Write as _;
        let path = self.inner.paths.init_binary();
        let bytes = self.inner.options.init_binary;
        if bytes.is_empty() {
            return Err(EngineError::unimplemented("--init is not available: this build has no init binary"));
        }
        if path.metadata().is_ok_and(|metadata| metadata.len() == bytes.len() as u64) {
            return Ok(path);
        }
        let temporary = path.with_extension(format!("{:08x}.tmp", rand::random::<u32>()));
        let write = || {
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(&temporary)?;
            file.write_all(bytes)?;
            std::fs::rename(&temporary, &path)
        };
        write().map_err(|error| EngineError::io("write", &path, &error))?;
        Ok(path)
    }

    /// Opens the namespaces to join now, so that a process id that is given again cannot be meant.
    pub(crate) fn joined_namespaces(&self, request: &Request, held: &mut Vec<OwnedFd>) -> Result<NamespacePaths> {
        let modes = &request.namespaces;
        let mut join = |mode: &NsMode, file: &str| self.joined(mode, file, held);
        let network = match &modes.network {
            NetworkMode::Joined(mode) => join(mode, "net")?,
            _ => None,
        };
        let user = match &modes.user {
            UserNsMode::Joined(mode) => join(mode, "user")?,
            _ => None,
        };
        Ok(NamespacePaths {
            network,
            user,
            pid: join(&modes.pid, "pid")?,
            ipc: join(&modes.ipc, "ipc")?,
            uts: join(&modes.uts, "uts")?,
            cgroup: join(&modes.cgroup, "cgroup")?,
        })
    }

    /// `/dev/shm` of the container whose IPC namespace is joined: POSIX shared memory is a part of what is shared.
    ///
    /// # Errors
    /// `FailedPrecondition` when that container does not run or does not share.
    pub(crate) fn shared_shm(&self, request: &Request) -> Result<Option<PathBuf>> {
        let NsMode::Container(name) = &request.namespaces.ipc else { return Ok(None) };
        let other = self.find(name)?;
        let run = other.running().map_err(|error| error.while_doing("cannot join its ipc namespace"))?;
        let mode = other.lock().record.host.ipc_mode.clone();
        if mode != "shareable" {
            return Err(EngineError::conflict(format!(
                "cannot join the IPC namespace of container {}: it is not shareable (its ipc mode is {})",
                other.name(),
                if mode.is_empty() { "private" } else { &mode }
            ))
            .with_hint("start that container with --ipc shareable"));
        }
        Ok(Some(PathBuf::from(format!("/proc/{}/root/dev/shm", run.task.pid()))))
    }

    fn joined(&self, mode: &NsMode, file: &str, held: &mut Vec<OwnedFd>) -> Result<Option<PathBuf>> {
        let path = match mode {
            NsMode::Private | NsMode::Host => return Ok(None),
            NsMode::Path(path) => path.clone(),
            NsMode::Container(name) => {
                let other = self.find(name)?;
                let run =
                    other.running().map_err(|error| error.while_doing(format!("cannot join its {file} namespace")))?;
                PathBuf::from(format!("/proc/{}/ns/{file}", run.task.pid()))
            }
        };
        let fd = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| {
            EngineError::io("open namespace", &path, &errno.into()).with_hint("name a namespace that exists")
        })?;
        check_type(&fd, file, &path)?;
        let opened = fd_path(&fd);
        held.push(fd);
        Ok(Some(opened))
    }
}

/// A path that was given may lead anywhere.
fn check_type(fd: &OwnedFd, file: &str, path: &Path) -> Result<()> {
    let wanted = match file {
        "net" => UnshareFlags::NEWNET,
        "user" => UnshareFlags::NEWUSER,
        "pid" => UnshareFlags::NEWPID,
        "ipc" => UnshareFlags::NEWIPC,
        "uts" => UnshareFlags::NEWUTS,
        _ => UnshareFlags::NEWCGROUP,
    };
    if berth_sys::namespace::namespace_type(fd) == Ok(wanted) {
        return Ok(());
    }
    Err(EngineError::invalid(format!("{} is not a {file} namespace", path.display()))
        .with_hint(format!("name one such as /proc/PID/ns/{file}")))
}
