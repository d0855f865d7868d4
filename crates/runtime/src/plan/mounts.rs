//! One mount of the spec, sorted: where it comes from, what is set on it, where it goes.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use berth_oci::runtime::{LinuxIdMapping, Mount};
use berth_rootfs::mounts::lexical;
use berth_rootfs::options::MountOptions;
use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::error::RuntimeError;
use crate::id_map::IdMaps;

const READ_ONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY;
const ACCESS_TIME: MountAttrFlags = MountAttrFlags::MOUNT_ATTR__ATIME.union(MountAttrFlags::MOUNT_ATTR_NODIRATIME);
/// What a user namespace may not take off a mount it was given (mount_namespaces(7), "Restrictions").
const LOCKED: MountAttrFlags = READ_ONLY
    .union(MountAttrFlags::MOUNT_ATTR_NOSUID)
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Kind of a mount's content.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Source {
    /// A path of the host, cloned by the caller into this slot.
    Bind { path: PathBuf, recursive: bool, slot: usize },
    /// A path of the container's own, at which an earlier mount of the list is.
    Inside { path: PathBuf, recursive: bool, slot: usize },
    /// A new instance of a file system.
    Filesystem { fstype: String, source: Option<PathBuf> },
    /// The container's view of the cgroup hierarchies.
    Cgroup,
    /// Other options for what is mounted there already.
    Remount,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MountPlan {
    pub(crate) destination: PathBuf,
    pub(crate) source: Source,
    pub(crate) options: MountOptions,
    /// Ownership mapping of an id-mapped bind; `None` with `options.id_map` means the container's own.
    pub(crate) id_maps: Option<IdMaps>,
    /// Attributes of its source that a bind loses when it names any.
    pub(crate) exact: MountAttrFlags,
}

impl MountPlan {
    /// Reads one entry of `mounts`. `slot` is used when its source must be cloned.
    pub(crate) fn new(mount: &Mount, bundle: &Path, slot: usize, has_user_ns: bool) -> Result<Self, RuntimeError> {
        let field = "mounts";
        let destination = mount.destination().clone();
        if destination.as_os_str().is_empty() || destination.as_os_str().as_encoded_bytes().contains(&0) {
            return Err(RuntimeError::Spec { field, problem: "a destination is empty".to_owned() });
        }
        let options = MountOptions::parse(mount.options().as_deref().unwrap_or_default());
        if let Some(option) = options.all_strings().find(|text| text.contains('\0')) {
            return Err(RuntimeError::Spec { field, problem: format!("option {option:?} holds a NUL") });
        }
        let fstype = mount.typ().as_deref().unwrap_or_default();
        let is_bind = options.bind.is_some() || fstype == "bind" || fstype == "rbind";
        let source = if options.remount {
            Source::Remount
        } else if is_bind {
            let Some(path) = mount.source() else {
                let problem = format!("the bind at {} has no source", destination.display());
                return Err(RuntimeError::Spec { field, problem });
            };
            let recursive = options.bind.unwrap_or(fstype == "rbind");
            Source::Bind { path: bundle.join(path), recursive, slot }
        } else if fstype == "cgroup" || fstype == "cgroup2" {
            Source::Cgroup
        } else if fstype.is_empty() {
            let problem = format!("the mount at {} has no type", destination.display());
            return Err(RuntimeError::Spec { field, problem });
        } else {
            Source::Filesystem { fstype: fstype.to_owned(), source: mount.source().clone() }
        };
        if options.copy_up && fstype != "tmpfs" {
            let problem = format!("tmpcopyup is for a tmpfs ({})", destination.display());
            return Err(RuntimeError::Spec { field, problem });
        }
        if is_bind && !options.remount && !options.data.is_empty() {
            let names: Vec<&str> = options.data.iter().map(|(key, _)| key.as_str()).collect();
            let problem = format!("a bind mount takes no {} ({})", names.join(","), destination.display());
            return Err(RuntimeError::Spec { field, problem });
        }
        let id_maps = id_maps(mount.uid_mappings().as_deref(), mount.gid_mappings().as_deref())?;
        if (id_maps.is_some() || options.id_map.is_some()) && !matches!(source, Source::Bind { .. }) {
            let problem = format!("only a bind mount can be id-mapped ({})", destination.display());
            return Err(RuntimeError::Spec { field, problem });
        }
        let locked = if has_user_ns { MountAttrFlags::empty() } else { LOCKED };
        let exact = locked | MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW;
        Ok(Self { destination, source, options, id_maps, exact })
    }

    /// As callers of runc write them: a destination, or the source of a bind, by its path on the host below the root file system. Such a
    /// source is what an earlier mount put there, so it exists only once that is made.
    pub(crate) fn look_below(&mut self, rootfs: &Path, earlier: &[Self], slot: usize) {
        if rootfs == Path::new("/") {
            return;
        }
        let inside = |path: &Path| {
            let rest = lexical(path).strip_prefix(rootfs).ok()?.to_owned();
            (!rest.as_os_str().is_empty()).then(|| Path::new("/").join(rest))
        };
        if let Some(destination) = inside(&self.destination) {
            self.destination = destination;
        }
        let Source::Bind { path, recursive, .. } = &self.source else { return };
        let Some(source) = inside(path) else { return };
        if earlier.iter().any(|mount| source.starts_with(lexical(&mount.destination))) {
            self.source = Source::Inside { path: source, recursive: *recursive, slot };
        }
    }

    pub(crate) fn is_id_mapped(&self) -> bool {
        self.id_maps.is_some() || self.options.id_map.is_some()
    }

    /// A bind that names any attribute has exactly those that it names, as with runc and mount(8); one that names none keeps its
    /// source's. How access times are kept changes only when another way is named.
    pub(crate) fn options_of_bind(&self) -> MountOptions {
        let mut options = self.options.clone();
        let top = &mut options.top;
        if !top.is_empty() {
            top.clear |= self.exact & !top.set;
        }
        top.set.remove(ACCESS_TIME);
        top.clear.remove(ACCESS_TIME);
        if let Some(way) = options.access_time {
            top.set |= way;
            top.clear |= ACCESS_TIME & !(way & MountAttrFlags::MOUNT_ATTR_NODIRATIME);
        }
        options
    }

    /// What a bind takes off its source although a user namespace keeps it: named by an option, and there at the source (a descriptor on
    /// it). Nothing where there is no user namespace.
    ///
    /// # Spec
    /// mount_namespaces(7), "Restrictions on mount namespaces"; access times are locked as a whole.
    pub(crate) fn takes_locked(&self, source: BorrowedFd<'_>) -> Result<bool, Errno> {
        if self.exact.contains(LOCKED) {
            return Ok(false);
        }
        let has = rustix::fs::fstatvfs(source)?.f_flag;
        let attributes = [
            (StatVfsMountFlags::RDONLY, READ_ONLY),
            (StatVfsMountFlags::NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
            (StatVfsMountFlags::NODEV, MountAttrFlags::MOUNT_ATTR_NODEV),
            (StatVfsMountFlags::NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
        ];
        let cleared = self.options.top.clear | self.options.tree.clear;
        let takes_attribute =
            attributes.iter().any(|(flag, attribute)| has.contains(*flag) && cleared.contains(*attribute));
        Ok(takes_attribute || self.options.access_time.is_some_and(|way| way != access_time(has)))
    }

    /// A tmpfs for /dev that shall be read-only.
    pub(crate) fn is_read_only_dev(&self) -> bool {
        let is_tmpfs = matches!(&self.source, Source::Filesystem { fstype, .. } if fstype == "tmpfs");
        let destination = lexical(&self.destination);
        is_tmpfs && destination == Path::new("/dev") && self.options.top.set.contains(READ_ONLY)
    }

    /// Leaves the mount writable; what comes back makes it read-only.
    pub(crate) fn take_read_only(&mut self) -> Self {
        self.options.top.set.remove(READ_ONLY);
        let mut options = MountOptions { remount: true, ..MountOptions::default() };
        options.top.set = READ_ONLY;
        Self { source: Source::Remount, options, ..self.clone() }
    }

    /// SELinux: the file system's files get this label (runtime-spec config-linux, "Mount Label"). Not those of the kernel's own views.
    pub(crate) fn label(&mut self, label: Option<&str>) {
        let (Some(label), Source::Filesystem { fstype, .. }) = (label, &self.source) else { return };
        if !matches!(fstype.as_str(), "proc" | "sysfs" | "mqueue") {
            self.options.data.push(("context".to_owned(), Some(label.to_owned())));
        }
    }

    /// Options that mean nothing here: of a whole file system on a bind, which leaves the file system as it is (as mount(8) does), and
    /// of the cgroup hierarchies, which are there with the options the host gave them.
    pub(crate) fn warning(&self) -> Option<String> {
        let of_file_system = self.options.superblock.iter().map(String::as_str);
        let names: Vec<&str> = match self.source {
            Source::Bind { .. } | Source::Inside { .. } => of_file_system.collect(),
            Source::Cgroup => of_file_system.chain(self.options.data.iter().map(|(key, _)| key.as_str())).collect(),
            Source::Filesystem { .. } | Source::Remount => return None,
        };
        let text = || format!("{} has no effect on the mount at {}", names.join(","), self.destination.display());
        (!names.is_empty()).then(text)
    }

    /// For plans and errors: `proc /proc`, `/srv/x /x`.
    pub(crate) fn text(&self) -> String {
        let from = match &self.source {
            Source::Bind { path, .. } | Source::Inside { path, .. } => path.display().to_string(),
            Source::Filesystem { fstype, .. } => fstype.clone(),
            Source::Cgroup => "cgroup".to_owned(),
            Source::Remount => "remount".to_owned(),
        };
        format!("{from} {}", self.destination.display())
    }
}

/// How a mount keeps access times, as options name it.
fn access_time(flags: StatVfsMountFlags) -> MountAttrFlags {
    let directories = flags.contains(StatVfsMountFlags::NODIRATIME);
    let directories = if directories { MountAttrFlags::MOUNT_ATTR_NODIRATIME } else { MountAttrFlags::empty() };
    let files = if flags.contains(StatVfsMountFlags::NOATIME) {
        MountAttrFlags::MOUNT_ATTR_NOATIME
    } else if flags.contains(StatVfsMountFlags::RELATIME) {
        MountAttrFlags::MOUNT_ATTR_RELATIME
    } else {
        MountAttrFlags::MOUNT_ATTR_STRICTATIME
    };
    files | directories
}

fn id_maps(uids: Option<&[LinuxIdMapping]>, gids: Option<&[LinuxIdMapping]>) -> Result<Option<IdMaps>, RuntimeError> {
    let (uids, gids) = (uids.unwrap_or_default(), gids.unwrap_or_default());
    if uids.is_empty() && gids.is_empty() {
        return Ok(None);
    }
    IdMaps::new(uids, gids).map(Some)
}
