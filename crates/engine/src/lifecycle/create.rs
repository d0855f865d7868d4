//! `create`: everything is checked before anything is made; what was made is undone in reverse when a later step fails.

use std::path::Path;

use berth_image::Image;
use berth_rootfs::OverlayRootfs;
use berth_types::{ContainerId, ErrorClass, Timestamp};

use crate::api::CreateOutcome;
use crate::config::{ContainerConfig, HostConfig};
use crate::container::Container;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::merge::merge;
use crate::names;
use crate::record::{RECORD_VERSION, Record, RunState};
use crate::registry::NameReservation;
use crate::request::Request;
use crate::request::mounts::{self, MountKind};
use crate::request::namespaces::UserNsMode;
use crate::trace::{now_ns, span};

/// Attempts to make up a name that is free.
const NAME_ATTEMPTS: u32 = 32;

impl Engine {
    /// Makes a container; nothing runs yet.
    ///
    /// # Errors
    /// `NotFound` without the image, `AlreadyExists` when the name is taken, `InvalidArgument` and others for what cannot be done.
    pub async fn create(&self, name: Option<&str>, config: ContainerConfig, host: HostConfig) -> Result<CreateOutcome> {
        let name = name.map(|n| n.strip_prefix('/').unwrap_or(n)).filter(|n| !n.is_empty()).map(str::to_owned);
        self.blocking(move |engine| engine.create_now(name.as_deref(), config, host)).await
    }

    fn create_now(&self, name: Option<&str>, config: ContainerConfig, host: HostConfig) -> Result<CreateOutcome> {
        let id: ContainerId = names::new_id().parse()?;
        let reservation = self.reserve_name(name, &id)?;
        self.inner.faults.check("name.reserve")?;
        let image = self.image_named(&config.image)?;
        let config = merge(config, &image.config)?;
        let request = Request::parse(&config, &host, &self.inner.facts)?;
        prepare_bind_sources(&request)?;
        let start_ns = now_ns();
        let rootfs = self.inner.images.prepare(id.as_str(), &image, host.auto_remove)?;
        let mut spans = vec![span("snapshot.prepare", id.short(), start_ns)];
        let undo = |error: EngineError| {
            self.undo_create(&id);
            error
        };
        self.inner.faults.check("snapshot.prepare").map_err(undo)?;

        let id_block = match request.namespaces.user {
            UserNsMode::Auto => Some(self.inner.id_blocks.take().map_err(undo)?),
            _ => None,
        };
        let undo = |error: EngineError| {
            if let Some(block) = id_block {
                self.inner.id_blocks.free(block);
            }
            undo(error)
        };
        let record = new_record(&id, reservation.name(), config, host, &image, &request, id_block);
        let start_ns = now_ns();
        self.write_new(&record).map_err(undo)?;
        spans.push(span("metadata.create", id.short(), start_ns));
        self.inner.faults.check("metadata.create").map_err(undo)?;
        self.publish(record, rootfs, reservation, spans);
        self.inner.faults.pass("create.told");
        Ok(CreateOutcome { id: id.to_string(), warnings: request.warnings })
    }

    fn publish(
        &self,
        record: Record,
        rootfs: OverlayRootfs,
        reservation: NameReservation<'_>,
        spans: Vec<berth_types::Span>,
    ) {
        let container = Container::new(record, Some(rootfs));
        container.lock().spans = spans;
        self.inner.registry.add(&container, reservation);
        self.emit_container(&container.record(), "create", &[]);
    }

    fn write_new(&self, record: &Record) -> Result<()> {
        let dir = self.inner.paths.container(&record.id);
        std::fs::create_dir(&dir).map_err(|error| EngineError::io("create directory", &dir, &error))?;
        self.inner.faults.check("container-directory.create")?;
        self.inner.store.put(record, true)
    }

    /// Reverse order; failures are logged, the first error is the caller's.
    fn undo_create(&self, id: &ContainerId) {
        let undone = [
            self.inner.store.delete(id, true),
            self.inner.store.delete(id, false),
            self.trash_container_dir(id),
            self.inner.images.discard(id.as_str()).map_err(EngineError::from),
        ];
        for error in undone.into_iter().filter_map(Result::err) {
            if error.class != ErrorClass::NotFound {
                tracing::warn!(container_id = %id, "undoing a create: {error}");
            }
        }
        self.empty_trash();
    }

    fn reserve_name(&self, name: Option<&str>, id: &ContainerId) -> Result<NameReservation<'_>> {
        if let Some(name) = name {
            names::check(name)?;
            return self.inner.registry.reserve(name, id);
        }
        for attempt in 0..NAME_ATTEMPTS {
            let name = names::generate(attempt);
            if self.inner.registry.is_name_free(&name) {
                return self.inner.registry.reserve(&name, id);
            }
        }
        self.inner.registry.reserve(id.short(), id)
    }
}

pub(crate) fn no_such_image(name: &str) -> EngineError {
    let shown: String = name.chars().take(140).collect();
    let shown = if shown.contains([':', '@']) { shown } else { format!("{shown}:latest") };
    EngineError::not_found(format!("No such image: {shown}"))
        .with_hint("berth pull NAME fetches it from a registry, berth load -i FILE takes it from an archive")
}

fn new_record(
    id: &ContainerId,
    name: &str,
    config: ContainerConfig,
    host: HostConfig,
    image: &Image,
    request: &Request,
    id_block: Option<u32>,
) -> Record {
    Record {
        version: RECORD_VERSION,
        id: id.clone(),
        name: name.to_owned(),
        created: Timestamp::now(),
        image_id: image.id,
        image_name: config.image.clone(),
        mounts: mounts::views(&request.mounts),
        config,
        host,
        id_block,
        endpoint: None,
        state: RunState::created(),
    }
}

/// `-v` makes a directory where nothing is, as Docker does; `--mount` wants the source to exist.
fn prepare_bind_sources(request: &Request) -> Result<()> {
    for mount in &request.mounts {
        let MountKind::Bind { source, creates_source, .. } = &mount.kind else { continue };
        match std::fs::metadata(source) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && *creates_source => make_source(source)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(EngineError::invalid(format!(
                    "invalid mount config for type \"bind\": bind source path does not exist: {}",
                    source.display()
                ))
                .with_hint("make it first, or use -v, which makes a missing directory"));
            }
            Err(error) => return Err(EngineError::io("look at bind source", source, &error)),
        }
    }
    Ok(())
}

fn make_source(source: &Path) -> Result<()> {
    std::fs::create_dir_all(source).map_err(|error| EngineError::io("create bind source", source, &error))
}

impl Engine {
    /// The container's directory goes to the trash; deleting is background work.
    pub(crate) fn trash_container_dir(&self, id: &ContainerId) -> Result<()> {
        let dir = self.inner.paths.container(id);
        let target = self.inner.paths.trash().join(format!("{id}.{:08x}", rand::random::<u32>()));
        match std::fs::rename(&dir, &target) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(EngineError::io("move to the trash", &dir, &error)),
        }
    }

    /// Deletes what is in the trash, on a blocking thread, waited for by nobody.
    pub(crate) fn empty_trash(&self) {
        let trash = self.inner.paths.trash();
        // The handle is dropped: the thread ends by itself.
        drop(tokio::task::spawn_blocking(move || delete_entries(&trash)));
    }
}

/// Links are deleted, never followed (`remove_dir_all` works on descriptors).
fn delete_entries(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_dir { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        if let Err(error) = removed
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), "cannot delete from the trash: {error}");
        }
    }
}
