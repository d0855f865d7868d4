//! What faces ask of volumes: make, list, look at, remove, prune.

use std::collections::BTreeMap;
use std::path::Path;

use berth_rootfs::OverlayRootfs;
use berth_snapshot::TreeSize;

use crate::api::{Filters, NewVolume, PruneOutcome, VolumeView};
use crate::disk_usage::in_parallel;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::record::Record;
use crate::{filters, names};

use super::store::Volume;

const VOLUME_KEYS: [&str; 4] = ["dangling", "driver", "label", "name"];
const PRUNE_KEYS: [&str; 3] = ["all", "label", "label!"];

impl Engine {
    /// A volume of that name that is there already is returned as it is.
    ///
    /// # Errors
    /// `InvalidArgument` for a bad name or option.
    pub async fn create_volume(&self, new: NewVolume) -> Result<VolumeView> {
        check_driver(&new.driver)?;
        check_options(&new.options)?;
        let is_anonymous = new.name.is_empty();
        let name = if is_anonymous { names::new_id() } else { new.name };
        check_name(&name)?;
        self.blocking(move |engine| {
            let volume = Volume { labels: new.labels, options: new.options, is_anonymous, ..Volume::new(name.clone()) };
            let (volume, is_new) = engine.inner.volumes.create(volume, |_| Ok(()))?;
            if is_new {
                engine.emit_volume("create", &name, &[]);
            } else {
                engine.inner.volumes.keep(&name)?;
            }
            Ok(engine.volume_view(&volume))
        })
        .await
    }

    /// By name.
    ///
    /// # Errors
    /// `InvalidArgument` for unknown filters.
    pub async fn volumes(&self, filters: &Filters) -> Result<Vec<VolumeView>> {
        filters::check(filters, &VOLUME_KEYS)?;
        let any = |key: &str, fits: &dyn Fn(&str) -> bool| {
            filters.get(key).is_none_or(|values| values.is_empty() || values.iter().any(|value| fits(value)))
        };
        let views = self.inner.volumes.list().into_iter().map(|volume| self.volume_view(&volume));
        Ok(views
            .filter(|view| {
                any("name", &|name| view.name.contains(name))
                    && any("driver", &|driver| driver == "local")
                    && any("dangling", &|value| matches!(value, "true" | "1") == view.users.is_empty())
                    && filters::labels_fit(filters, &view.labels)
            })
            .collect())
    }

    /// # Errors
    /// `NotFound`.
    pub async fn volume(&self, name: &str) -> Result<VolumeView> {
        Ok(self.volume_view(&self.inner.volumes.get(name)?))
    }

    /// `force`: one that is not there is no failure.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` while containers use it.
    pub async fn remove_volume(&self, name: &str, force: bool) -> Result<()> {
        let name = name.to_owned();
        self.blocking(move |engine| match engine.remove_volume_now(&name) {
            Err(error) if force && error.class == berth_types::ErrorClass::NotFound => Ok(()),
            other => other,
        })
        .await
    }

    fn remove_volume_now(&self, name: &str) -> Result<()> {
        let users = self.volume_users(name);
        if !users.is_empty() {
            return Err(EngineError::conflict(format!("remove {name}: volume is in use - [{}]", users.join(", ")))
                .with_hint("remove those containers first"));
        }
        self.inner.volumes.remove(name)?;
        self.emit_volume("destroy", name, &[]);
        self.empty_trash();
        Ok(())
    }

    /// Unused anonymous volumes; with `all=true` named ones as well.
    ///
    /// # Errors
    /// `InvalidArgument` for unknown filters.
    pub async fn prune_volumes(&self, filters: &Filters) -> Result<PruneOutcome> {
        filters::check(filters, &PRUNE_KEYS)?;
        let filters = filters.clone();
        self.heavy(move |engine| {
            let all = filters.get("all").into_iter().flatten().any(|value| matches!(value.as_str(), "true" | "1"));
            let mut outcome = PruneOutcome::default();
            for volume in engine.inner.volumes.list() {
                let is_due = (all || volume.is_anonymous) && filters::labels_fit(&filters, &volume.labels);
                if !is_due || !engine.volume_users(&volume.name).is_empty() {
                    continue;
                }
                let size = engine.volume_size(&volume);
                match engine.remove_volume_now(&volume.name) {
                    Ok(()) => {
                        outcome.deleted.push(volume.name);
                        outcome.reclaimed_bytes = outcome.reclaimed_bytes.saturating_add(size.usage.size_bytes);
                    }
                    // A container took it meanwhile.
                    Err(error) => tracing::debug!(volume = %volume.name, "not pruned: {error}"),
                }
            }
            let attributes = [("reclaimed".to_owned(), outcome.reclaimed_bytes.to_string())].into();
            engine.emit("volume", "prune", "", attributes);
            Ok(outcome)
        })
        .await
    }

    /// Names of containers that have it, whatever their state.
    pub(crate) fn volume_users(&self, name: &str) -> Vec<String> {
        let containers = self.inner.registry.all();
        let uses = containers
            .iter()
            .filter(|container| container.lock().record.volumes.iter().any(|volume| volume.name == name));
        uses.map(|container| container.id.to_string()).collect()
    }

    pub(crate) fn volume_view(&self, volume: &Volume) -> VolumeView {
        VolumeView {
            name: volume.name.clone(),
            mountpoint: self.inner.volumes.source(volume),
            created: volume.created,
            labels: volume.labels.clone(),
            options: volume.options.clone(),
            is_anonymous: volume.is_anonymous,
            users: self.volume_users(&volume.name),
            size_bytes: None,
        }
    }

    /// With sizes, which takes a walk of each.
    pub(crate) fn volume_usage(&self) -> Vec<(VolumeView, TreeSize)> {
        let volumes = self.inner.volumes.list();
        let sizes = in_parallel(&volumes, |volume| self.volume_size(volume));
        let with_size = |(volume, size): (&_, TreeSize)| {
            (VolumeView { size_bytes: Some(size.usage.size_bytes), ..self.volume_view(volume) }, size)
        };
        volumes.iter().zip(sizes).map(with_size).collect()
    }

    /// What a volume of our own holds; one that stands for another directory holds nothing itself.
    fn volume_size(&self, volume: &Volume) -> TreeSize {
        if !volume.options.is_empty() {
            return TreeSize::default();
        }
        let data = OverlayRootfs { upper: Some(self.inner.volumes.source(volume)), ..OverlayRootfs::default() };
        // One that is removed in this moment has no size.
        self.inner.images.writable_tree(&data).unwrap_or_default()
    }

    /// A container that starts mounts its volumes: Docker tells one event for each, before the start.
    pub(crate) fn emit_volume_mounts(&self, record: &Record) {
        for mount in record.mounts.iter().filter(|mount| mount.kind == "volume") {
            let extra = [
                ("container", record.id.to_string()),
                ("destination", mount.destination.clone()),
                ("propagation", mount.propagation.clone()),
                ("read/write", mount.writable.to_string()),
            ];
            self.emit_volume("mount", &mount.name, &extra);
        }
    }

    /// And one for each after its end.
    pub(crate) fn emit_volume_unmounts(&self, record: &Record) {
        for mount in record.mounts.iter().filter(|mount| mount.kind == "volume") {
            self.emit_volume("unmount", &mount.name, &[("container", record.id.to_string())]);
        }
    }

    pub(crate) fn emit_volume(&self, action: &str, name: &str, extra: &[(&str, String)]) {
        let mut attributes: BTreeMap<String, String> = [("driver".to_owned(), "local".to_owned())].into();
        attributes.extend(extra.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        self.emit("volume", action, name, attributes);
    }
}

/// Docker's rule.
///
/// # Errors
/// `InvalidArgument`.
pub(crate) fn check_name(name: &str) -> Result<()> {
    names::check(name).map_err(|_| {
        let shown: String = name.chars().take(80).collect();
        EngineError::invalid(format!(
            "create {shown}: {shown:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed"
        ))
        .with_hint("to bind a directory of the host, give an absolute path")
    })
}

/// # Errors
/// `Unimplemented` for the drivers of plugins.
pub(crate) fn check_driver(driver: &str) -> Result<()> {
    match driver {
        "" | "local" => Ok(()),
        other => {
            Err(EngineError::unimplemented(format!("volume driver {other:?} is not available: there is local only"))
                .with_hint("leave out the driver"))
        }
    }
}

/// The local driver's options: a directory of the host in the volume's place.
///
/// # Errors
/// `Unimplemented` for other file systems, which would need a mount on the host.
pub(crate) fn check_options(options: &BTreeMap<String, String>) -> Result<()> {
    if options.is_empty() {
        return Ok(());
    }
    let option = |key: &str| options.get(key).map_or("", String::as_str);
    if let Some(key) = options.keys().find(|key| !matches!(key.as_str(), "type" | "o" | "device")) {
        return Err(EngineError::invalid(format!("invalid option: {key:?}")).with_hint("known are type, o and device"));
    }
    let is_bind = option("o").split(',').all(|word| matches!(word, "bind" | "rbind" | "rw"));
    if !matches!(option("type"), "" | "none") || !is_bind {
        return Err(EngineError::unimplemented(format!(
            "a local volume of type={:?} with o={:?}: only type=none,o=bind is supported",
            option("type"),
            option("o")
        ))
        .with_hint("bind a directory: --opt type=none --opt o=bind --opt device=/srv/data"));
    }
    let device = Path::new(option("device"));
    if !device.is_absolute() || device.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(EngineError::invalid("the option device must be an absolute path without .."));
    }
    Ok(())
}
