//! A container's volumes at its create: found or made, filled from the image where they are empty, and let go with the container.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use berth_image::archive::{self, UnpackOptions};
use berth_rootfs::{OverlayRootfs, RootDir};
use berth_types::ContainerId;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use serde::{Deserialize, Serialize};

use super::store::{Volume, VolumeStore};
use crate::api::MountView;
use crate::config::{ContainerConfig, HostConfig, MountRequest};
use crate::engine::Engine;
use crate::error::{Doing, EngineError, Result};
use crate::names;
use crate::record::Record;
use crate::request::Request;
use crate::request::mounts::{self, MountKind, VolumeRequest};

/// A volume of a container; kept in its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BoundVolume {
    pub(crate) name: String,
    /// Where the container sees it.
    pub(crate) target: PathBuf,
    /// It goes with the container when that is removed with its volumes.
    #[serde(default)]
    pub(crate) is_anonymous: bool,
}

/// Volumes that a create is about to use: nobody removes them meanwhile.
#[derive(Debug)]
pub(crate) struct Holds<'a> {
    store: &'a VolumeStore,
    pub(crate) bound: Vec<BoundVolume>,
}

impl Drop for Holds<'_> {
    fn drop(&mut self) {
        for volume in &self.bound {
            self.store.release(&volume.name);
        }
    }
}

impl Engine {
    /// Finds or makes the volumes a request names. On failure those made are removed again.
    pub(crate) fn bind_volumes(&self, id: &ContainerId, request: &Request, image: &OverlayRootfs) -> Result<Holds<'_>> {
        let mut holds = Holds { store: &self.inner.volumes, bound: Vec::new() };
        for mount in &request.mounts {
            let MountKind::Volume(asked) = &mount.kind else { continue };
            match self.bind_volume(id, asked, &mount.target, image) {
                Ok(bound) => holds.bound.push(bound),
                Err(error) => {
                    self.unbind_created(id, holds);
                    return Err(error.while_doing(format!("cannot mount a volume at {}", mount.target.display())));
                }
            }
        }
        Ok(holds)
    }

    fn bind_volume(
        &self,
        id: &ContainerId,
        asked: &VolumeRequest,
        target: &Path,
        image: &OverlayRootfs,
    ) -> Result<BoundVolume> {
        let store = &self.inner.volumes;
        let is_anonymous = asked.name.is_none();
        let name = asked.name.clone().unwrap_or_else(names::new_id);
        // Held first: what is found now must not go before the container is known.
        store.hold(&name);
        let new = Volume {
            labels: asked.labels.clone(),
            options: asked.options.clone(),
            is_anonymous,
            created_for: Some(id.clone()),
            ..Volume::new(name.clone())
        };
        let fill = |data: &Path| if asked.copies { fill(image, target, data) } else { Ok(()) };
        let bound = store.create(new, fill).and_then(|(volume, is_new)| {
            if is_new {
                self.emit_volume("create", &name, &[]);
            } else {
                store.keep(&name)?;
                let source = store.source(&volume);
                if asked.copies && is_empty(&source) {
                    self::fill(image, target, &source)?;
                }
            }
            Ok(BoundVolume { name: name.clone(), target: target.to_owned(), is_anonymous })
        });
        if bound.is_err() {
            store.release(&name);
        }
        bound
    }

    /// `--volumes-from`: the mounts of other containers as if they had been asked for. What is asked for itself wins.
    pub(crate) fn with_volumes_from(&self, mut host: HostConfig) -> Result<HostConfig> {
        for text in host.volumes_from.clone() {
            let (name, mode) = text.split_once(':').unwrap_or((&text, "rw"));
            if !matches!(mode, "rw" | "ro" | "z" | "Z") {
                return Err(EngineError::invalid(format!("invalid mode {mode:?} of --volumes-from {text}"))
                    .with_hint("write --volumes-from NAME, or NAME:ro"));
            }
            let other = self.find(name).map_err(|error| error.while_doing("cannot use --volumes-from"))?.record();
            let own = mounts::parse(&ContainerConfig::default(), &host)?;
            let is_free = |view: &&MountView| own.iter().all(|mount| mount.target != Path::new(&view.destination));
            let wanted = other.mounts.iter().filter(|view| view.kind != "tmpfs").filter(is_free);
            host.mounts.extend(wanted.map(|view| MountRequest {
                kind: view.kind.clone(),
                source: if view.kind == "volume" { &view.name } else { &view.source }.clone(),
                target: view.destination.clone(),
                read_only: mode == "ro" || !view.writable,
                propagation: view.propagation.clone(),
                volume_no_copy: true,
                ..MountRequest::default()
            }));
        }
        Ok(host)
    }

    /// A create failed: the volumes it made go.
    pub(crate) fn unbind_created(&self, id: &ContainerId, holds: Holds<'_>) {
        let names: Vec<String> = holds.bound.iter().map(|volume| volume.name.clone()).collect();
        drop(holds);
        for name in names {
            let is_ours = self.inner.volumes.get(&name).is_ok_and(|volume| volume.created_for.as_ref() == Some(id));
            if is_ours {
                self.remove_volume_logged(&name);
            }
        }
    }

    /// Before the record of a container goes: what shall outlive it stands on its own from now on.
    pub(crate) fn keep_volumes(&self, record: &Record, with_volumes: bool) {
        for volume in record.volumes.iter().filter(|volume| !(with_volumes && volume.is_anonymous)) {
            if let Err(error) = self.inner.volumes.keep(&volume.name) {
                tracing::warn!(container_id = %record.id, "a volume is not kept: {error}");
            }
        }
    }

    /// After a container is gone: its anonymous volumes that nobody else uses.
    pub(crate) fn remove_anonymous_volumes(&self, record: &Record) {
        for volume in record.volumes.iter().filter(|volume| volume.is_anonymous) {
            if self.volume_users(&volume.name).iter().all(|user| user == record.id.as_str()) {
                self.remove_volume_logged(&volume.name);
            }
        }
    }

    /// Volumes made for containers that nobody knows: a create or a removal was cut short.
    pub(crate) fn sweep_volumes(&self) {
        for volume in self.inner.volumes.list() {
            let is_orphan = volume.created_for.as_ref().is_some_and(|id| !self.inner.registry.contains(id));
            if is_orphan && self.volume_users(&volume.name).is_empty() {
                tracing::info!(volume = %volume.name, "sweeping an orphaned volume");
                self.remove_volume_logged(&volume.name);
            }
        }
    }

    fn remove_volume_logged(&self, name: &str) {
        match self.inner.volumes.remove(name) {
            Ok(_) => self.emit_volume("destroy", name, &[]),
            Err(error) => tracing::warn!(volume = %name, "cannot remove a volume: {error}"),
        }
        self.empty_trash();
    }
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// What the image has at the target, with owners and attributes, becomes the volume's first content.
fn fill(image: &OverlayRootfs, target: &Path, data: &Path) -> Result<()> {
    // Where the writable layer is a whole tree it is still the image's.
    let lowers = if image.lowers.is_empty() { image.upper.iter().cloned().collect() } else { image.lowers.clone() };
    let layers = OverlayRootfs { lowers, ..OverlayRootfs::default() };
    let root = RootDir::new(layers.mount_detached()?);
    if root.kind(target)? != Some(FileType::Directory) {
        return Ok(()); // Nothing there, or a file that the mount will hide.
    }
    let from = root.open(target, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    let to = RootDir::open_host(data)?;
    copy(&root, target, &to).doing(|| format!("cannot copy {} of the image into the volume", target.display()))?;
    let took_over = || {
        let stat = rustix::fs::statat(&from, "", AtFlags::EMPTY_PATH)?;
        let directory = rustix::fs::open(data, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::fs::fchown(&directory, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
        rustix::fs::fchmod(directory.as_fd(), Mode::from_raw_mode(stat.st_mode & 0o7777))
    };
    took_over().map_err(|errno| EngineError::io("set the owner of", data, &errno.into()))
}

fn copy(root: &RootDir, target: &Path, to: &RootDir) -> Result<()> {
    let (mut reader, mut writer) =
        std::io::pipe().map_err(|error| EngineError::internal(format!("cannot make a pipe: {error}")))?;
    let contents = target.join(".");
    std::thread::scope(|scope| {
        let packer = scope.spawn(move || archive::pack(root, &contents, &mut writer));
        let options = UnpackOptions { no_overwrite_dir_non_dir: false, keep_owners: true };
        let unpacked = archive::unpack(to, Path::new("/"), &mut reader, options);
        // The packer ends at the closed pipe when the unpacking failed; its own failure is the cause otherwise.
        drop(reader);
        let packed = packer.join().map_err(|_| EngineError::internal("a worker thread ended early"))?;
        unpacked.map_err(EngineError::from)?;
        Ok(packed?)
    })
}
