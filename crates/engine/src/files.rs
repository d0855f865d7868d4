//! Files of containers: `cp` both ways, `export`, `diff`. A root is a descriptor; no path of it is ever joined to one of ours.

mod mounted;

use std::path::{Path, PathBuf};

use berth_image::archive::{self, PathInfo, UnpackOptions};
use berth_rootfs::RootDir;

use crate::api::{ByteStream, Change, ChangeKind, PathStat};
use crate::container::Container;
use crate::engine::Engine;
use crate::error::{Doing, EngineError, Result};
use crate::request::Request;
use crate::streams::ChannelReader;
use mounted::Place;

/// Longest path a client may name.
const PATH_BYTES_MAX: usize = 4096;

impl Engine {
    /// The container's files as it sees them: through its init where it runs, else its layers mounted for this moment.
    pub(crate) fn root_of(&self, container: &Container) -> Result<RootDir> {
        match self.running_root(container)? {
            Some(root) => Ok(root),
            None => self.layers_of(container),
        }
    }

    fn running_root(&self, container: &Container) -> Result<Option<RootDir>> {
        let pid = {
            let inner = container.lock();
            inner.record.state.is_running().then_some(inner.record.state.pid).filter(|pid| *pid != 0)
        };
        if let Some(pid) = pid {
            let root = RootDir::open_host(Path::new(&format!("/proc/{pid}/root")))?;
            // The number may have been given to another process meanwhile: only a container that still runs had it.
            if container.lock().record.state.pid == pid {
                return Ok(Some(root));
            }
        }
        Ok(None)
    }

    fn layers_of(&self, container: &Container) -> Result<RootDir> {
        let mut rootfs = self.rootfs_of(container)?;
        // A volatile overlay refuses a second mount.
        rootfs.is_volatile = false;
        let mount =
            rootfs.mount_detached().doing(|| format!("cannot open the files of container {}", container.name()))?;
        Ok(RootDir::new(mount))
    }

    /// Whether a path is there as the container sees it, or as far as that can be seen while it does not run.
    pub(crate) fn is_seen(&self, container: &Container, path: &Path) -> Result<bool> {
        let place = self.place_of(container, path)?;
        match archive::stat(&place.root, &place.path).map_err(EngineError::from) {
            Ok(_) => Ok(true),
            Err(error) if error.class == berth_types::ErrorClass::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// # Errors
    /// `NotFound` when the path is not there.
    pub async fn path_stat(&self, container_ref: &str, path: &str) -> Result<PathStat> {
        let container = self.find(container_ref)?;
        let path = checked_path(path)?;
        self.blocking(move |engine| stat(engine, &container, &path)).await
    }

    /// # Errors
    /// `NotFound` when the path is not there; later failures end the stream.
    pub async fn copy_out(&self, container_ref: &str, path: &str) -> Result<(PathStat, ByteStream)> {
        let container = self.find(container_ref)?;
        let path = checked_path(path)?;
        let source = path.clone();
        let (place, stat) = self
            .blocking(move |engine| {
                let place = engine.place_of(&container, &source)?;
                let stat = stat_at(&container, &place, &source)?;
                engine.emit_container(&container.record(), "archive-path", &[]);
                Ok((place, stat))
            })
            .await?;
        let stream = self.produce(move |_, out| Ok(archive::pack(&place.root, &place.path, out)?));
        Ok((stat, stream))
    }

    /// # Errors
    /// `NotFound` when the directory is not there, `InvalidArgument` when the archive is damaged or it is no directory.
    pub async fn copy_in(
        &self,
        container_ref: &str,
        path: &str,
        tar: ByteStream,
        no_overwrite_dir_non_dir: bool,
        copy_uid_gid: bool,
    ) -> Result<()> {
        let container = self.find(container_ref)?;
        let path = checked_path(path)?;
        if container.lock().record.host.read_only_rootfs && !mounted::is_in_mount(&container.record(), &path) {
            return Err(EngineError::new(
                berth_types::ErrorClass::PermissionDenied,
                "container rootfs is marked read-only",
            ));
        }
        let options = UnpackOptions { no_overwrite_dir_non_dir, keep_owners: copy_uid_gid };
        self.blocking(move |engine| {
            let place = engine.place_of(&container, &path)?;
            container.lock().writable.begin_writing();
            let unpacked = archive::unpack(&place.root, &place.path, &mut ChannelReader::new(tar), options);
            container.lock().writable.end_writing();
            unpacked.doing(|| format!("cannot copy to {}:{}", container.name(), path.display()))?;
            engine.emit_container(&container.record(), "extract-to-dir", &[]);
            Ok(())
        })
        .await
    }

    /// # Errors
    /// `NotFound`; later failures end the stream.
    pub async fn export(&self, container_ref: &str) -> Result<ByteStream> {
        let container = self.find(container_ref)?;
        let root = self
            .blocking(move |engine| {
                engine.emit_container(&container.record(), "export", &[]);
                engine.root_of(&container)
            })
            .await?;
        Ok(self.produce(move |_, out| Ok(archive::export(&root, out)?)))
    }

    /// What the container changed in its image's files; mount points the engine made are not its changes.
    ///
    /// # Errors
    /// When the layers cannot be read.
    pub async fn changes(&self, container_ref: &str) -> Result<Vec<Change>> {
        let container = self.find(container_ref)?;
        self.blocking(move |engine| {
            let rootfs = engine.rootfs_of(&container)?;
            let changes = engine.inner.images.changes(&rootfs)?.into_iter().map(into_api).collect();
            let record = container.record();
            let request = Request::parse(&record.config, &record.host, &engine.inner.facts)?;
            let asked = request.mounts.iter().map(|mount| mount.target.clone());
            let targets: Vec<PathBuf> = MOUNT_POINTS.iter().map(PathBuf::from).chain(asked).collect();
            let upper = rootfs.upper.unwrap_or_default();
            Ok(without_mount_points(changes, &targets, &|path| is_bare(&upper, path)))
        })
        .await
    }
}

/// Places every container gets something mounted on.
const MOUNT_POINTS: [&str; 13] = [
    "/dev",
    "/dev/console",
    "/dev/mqueue",
    "/dev/pts",
    "/dev/shm",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/proc",
    "/sbin/docker-init",
    "/sys",
    "/sys/fs",
    "/sys/fs/cgroup",
];

/// Leaves out mount points that hold nothing, and directories whose only change was to get one.
fn without_mount_points(changes: Vec<Change>, targets: &[PathBuf], is_bare: &dyn Fn(&str) -> bool) -> Vec<Change> {
    let is_below = |path: &str, dir: &str| path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
    let targets: Vec<&str> = targets.iter().filter_map(|target| target.to_str()).collect();
    let is_made = |change: &Change| {
        change.kind == ChangeKind::Added
            && targets.iter().any(|target| *target == change.path || is_below(target, &change.path))
            && is_bare(&change.path)
    };
    let (made, mut kept): (Vec<Change>, Vec<Change>) = changes.into_iter().partition(is_made);
    // Changed parents of mount points (`/sbin` for the init) go when nothing else is in them, innermost first. There are few, all else is many.
    let mut index = kept.len();
    while index > 0 {
        index -= 1;
        let Change { kind, path } = &kept[index];
        let holds_made = *kind == ChangeKind::Modified && made.iter().any(|made| is_below(&made.path, path));
        if holds_made && !kept.iter().any(|kept| is_below(&kept.path, path)) {
            kept.remove(index);
        }
    }
    kept
}

/// An empty file, or a directory in which nothing is but other bare things. Our own layer directory: its names are the container's, so
/// links are looked at, not followed.
fn is_bare(upper: &Path, path: &str) -> bool {
    let relative = path.trim_start_matches('/');
    let Ok(root) = RootDir::open_host(upper) else { return false };
    let Ok(stat) = root.lstat(Path::new(relative)) else { return false };
    match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
        rustix::fs::FileType::RegularFile => stat.st_size == 0,
        rustix::fs::FileType::Directory => true,
        _ => false,
    }
}

fn into_api(change: berth_image::Change) -> Change {
    Change {
        kind: match change.kind {
            berth_image::ChangeKind::Modified => ChangeKind::Modified,
            berth_image::ChangeKind::Added => ChangeKind::Added,
            berth_image::ChangeKind::Deleted => ChangeKind::Deleted,
        },
        path: change.path.to_string_lossy().into_owned(),
    }
}

fn checked_path(path: &str) -> Result<PathBuf> {
    if path.is_empty() || path.contains('\0') || path.len() > PATH_BYTES_MAX {
        return Err(EngineError::invalid("the path in the container is empty, too long, or contains a zero byte"));
    }
    Ok(Path::new("/").join(path.trim_start_matches('/')))
}

fn stat(engine: &Engine, container: &Container, path: &Path) -> Result<PathStat> {
    stat_at(container, &engine.place_of(container, path)?, path)
}

fn stat_at(container: &Container, place: &Place, path: &Path) -> Result<PathStat> {
    let info = archive::stat(&place.root, &place.path).map_err(|error| {
        let error = EngineError::from(error);
        if error.class == berth_types::ErrorClass::NotFound {
            let name = container.name();
            return EngineError::not_found(format!("Could not find the file {} in container {name}", path.display()));
        }
        error
    })?;
    Ok(path_stat(info))
}

fn path_stat(info: PathInfo) -> PathStat {
    PathStat {
        go_mode: go_mode(info.mode),
        name: info.name,
        size: info.size,
        modified: info.modified,
        link_target: info.link_target.map(|target| target.to_string_lossy().into_owned()).unwrap_or_default(),
    }
}

/// Go's `os.FileMode` from `st_mode`.
fn go_mode(mode: u32) -> u32 {
    use rustix::fs::FileType;
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        FileType::CharacterDevice => (1 << 26) | (1 << 21),
        _ => 0,
    };
    let special = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let special = special.iter().filter(|(bit, _)| mode & bit != 0).map(|(_, go)| go).sum::<u32>();
    kind | special | (mode & 0o777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_modes() {
        assert_eq!(go_mode(0o100_644), 0o644);
        assert_eq!(go_mode(0o040_755), (1 << 31) | 0o755);
        assert_eq!(go_mode(0o120_777), (1 << 27) | 0o777);
        assert_eq!(go_mode(0o020_666), (1 << 26) | (1 << 21) | 0o666);
        assert_eq!(go_mode(0o104_755), (1 << 23) | 0o755);
        assert_eq!(go_mode(0o041_777), (1 << 31) | (1 << 20) | 0o777);
    }

    #[test]
    fn mount_points_are_not_changes() {
        let change = |kind, path: &str| Change { kind, path: path.to_owned() };
        let (added, modified) = (ChangeKind::Added, ChangeKind::Modified);
        let changes = vec![
            change(modified, "/etc"),
            change(added, "/etc/hosts"),
            change(added, "/proc"),
            change(modified, "/sbin"),
            change(added, "/sbin/docker-init"),
            change(added, "/sbin/mine"),
            change(added, "/new"),
        ];
        let targets: Vec<PathBuf> = MOUNT_POINTS.iter().map(PathBuf::from).collect();
        let left = without_mount_points(changes, &targets, &|_| true);
        let paths: Vec<&str> = left.iter().map(|c| c.path.as_str()).collect();
        assert_eq!(paths, ["/sbin", "/sbin/mine", "/new"]);
    }
}
