//! Where `cp` reads and writes: in a container that does not run, its volumes and bind mounts are attached to its layers first, so that a path is
//! what it will be when the container starts. Nothing is attached in any mount namespace; it goes with the last descriptor.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_rootfs::RootDir;
use berth_rootfs::mounts::{self, TargetKind};
use berth_types::ErrorClass;
use rustix::fs::{AtFlags, FileType};

use crate::api::MountView;
use crate::container::Container;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::record::Record;
use crate::request::Request;

/// A root, and the path in it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) root: RootDir,
    pub(super) path: PathBuf,
}

impl Engine {
    pub(super) fn place_of(&self, container: &Container, path: &Path) -> Result<Place> {
        if let Some(root) = self.running_root(container)? {
            return Ok(Place { root, path: path.to_owned() });
        }
        let root = self.layers_of(container)?;
        let record = container.record();
        // Held until the mounts are made: a part of a volume is named by its descriptor.
        let mut held = Vec::new();
        let request = Request::parse(&record.config, &record.host, &self.inner.facts)?;
        let volumes = self.volume_sources(&record, &request, &mut held)?;
        let mut apart = Vec::new();
        for mut view in in_order(&record) {
            if let Some(source) = volumes.get(Path::new(&view.destination)) {
                view.source = source.display().to_string();
            }
            let Some(mount) = open(&view)? else { continue };
            if let Some(apart_from) = attach(&root, &view, mount)? {
                apart.push(apart_from);
            }
        }
        match apart.pop() {
            None => Ok(Place { root, path: path.to_owned() }),
            Some(last) => apart_place(root, path, apart.into_iter().chain([last]).rev()),
        }
    }
}

/// Whether a path is in something mounted that can be written to, by its text.
pub(super) fn is_in_mount(record: &Record, path: &Path) -> bool {
    let path = mounts::lexical(path);
    let deepest = in_order(record).into_iter().rev().find(|view| path.starts_with(&view.destination));
    deepest.is_some_and(|view| view.writable)
}

/// Parents before children.
fn in_order(record: &Record) -> Vec<MountView> {
    let mut views: Vec<MountView> =
        record.mounts.iter().filter(|view| view.kind != "tmpfs" && !view.source.is_empty()).cloned().collect();
    views.sort_by_key(|view| Path::new(&view.destination).components().count());
    views
}

/// Nothing where its source is gone: the start will say so.
fn open(view: &MountView) -> Result<Option<OwnedFd>> {
    let mount = match mounts::clone_tree(Path::new(&view.source), true) {
        Ok(mount) => mount,
        Err(error) if error.errno() == rustix::io::Errno::NOENT => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if !view.writable {
        mounts::set_read_only(mount.as_fd(), true)
            .map_err(|errno| EngineError::io("make read-only the mount of", Path::new(&view.source), &errno.into()))?;
    }
    Ok(Some(mount))
}

/// Attaches it; before Linux 6.15 a detached mount takes none, and it comes back with its place.
fn attach(root: &RootDir, view: &MountView, mount: OwnedFd) -> Result<Option<(PathBuf, OwnedFd)>> {
    let stat = rustix::fs::statat(&mount, "", AtFlags::EMPTY_PATH)
        .map_err(|errno| EngineError::io("stat", Path::new(&view.source), &errno.into()))?;
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let kind = if is_directory { TargetKind::Directory } else { TargetKind::File };
    let target = root.through_links(Path::new(&view.destination))?;
    let place = mounts::mount_target(root, &target, kind)?;
    match mounts::attach(mount.as_fd(), place.as_fd()) {
        Ok(()) => Ok(None),
        Err(rustix::io::Errno::INVAL) => Ok(Some((target, mount))),
        Err(errno) => Err(EngineError::io("attach a mount at", &target, &errno.into())),
    }
}

/// On such a kernel: the path in the deepest mount it is in. `innermost_first`: those that could not be attached.
fn apart_place(root: RootDir, path: &Path, innermost_first: impl Iterator<Item = (PathBuf, OwnedFd)>) -> Result<Place> {
    let text = path.to_string_lossy();
    let end = if text.ends_with("/.") {
        "/."
    } else if text.ends_with('/') {
        "/"
    } else {
        ""
    };
    let clean = mounts::lexical(path);
    let parent = root.through_links(clean.parent().unwrap_or(Path::new("/")))?;
    let clean = clean.file_name().map_or_else(|| parent.clone(), |name| parent.join(name));
    for (target, mount) in innermost_first {
        let Ok(rest) = clean.strip_prefix(&target) else { continue };
        if rest.as_os_str().is_empty() && end.is_empty() {
            let why =
                format!("this kernel cannot copy the mounted directory {} of a stopped container", target.display());
            let hint = format!("copy {}/. instead, or start the container", target.display());
            return Err(EngineError::new(ErrorClass::Unimplemented, why).with_hint(hint));
        }
        let path = PathBuf::from(format!("/{}{end}", rest.display()));
        return Ok(Place { root: RootDir::new(mount), path });
    }
    Ok(Place { root, path: path.to_owned() })
}
