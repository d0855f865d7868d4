//! `create`: everything is checked before anything is made; what was made is undone in reverse when a later step fails.

use std::path::Path;
use std::sync::Arc;

use berth_image::Image;
use berth_rootfs::OverlayRootfs;
use berth_shim_client::RuntimeChoice;
use berth_types::{ContainerId, ErrorClass, Reference, Timestamp};

use crate::api::CreateOutcome;
use crate::config::{ContainerConfig, HostConfig};
use crate::container::{Container, KnownRootfs};
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::host_objects::HostObjects;
use crate::merge::merge;
use crate::names;
use crate::record::{RECORD_VERSION, Record, RunState};
use crate::registry::{NameReservation, conflict};
use crate::request::Request;
use crate::request::mounts::{self, MountKind};
use crate::request::namespaces::UserNsMode;
use crate::runtimes;
use crate::trace::{now_ns, span};
use crate::volumes::Holds;

/// Attempts to make up a name that is free.
const NAME_ATTEMPTS: u32 = 32;

/// What is decided of a container before anything is made.
struct Draft<'a> {
    id: &'a ContainerId,
    name: &'a str,
    image: &'a Image,
    request: &'a Request,
    rootfs: &'a OverlayRootfs,
}

/// What a create has made besides directories and record.
#[derive(Default)]
struct Made<'a> {
    volumes: Option<Holds<'a>>,
    id_block: Option<u32>,
}

impl Engine {
    /// Makes a container; nothing runs yet.
    ///
    /// # Errors
    /// `NotFound` without the image, `AlreadyExists` when the name is taken, `InvalidArgument` and others for what cannot be done.
    pub async fn create(&self, name: Option<&str>, config: ContainerConfig, host: HostConfig) -> Result<CreateOutcome> {
        let name = name.map(|n| n.strip_prefix('/').unwrap_or(n)).filter(|n| !n.is_empty()).map(str::to_owned);
        self.blocking(move |engine| engine.create_now(name.as_deref(), config, host)).await
    }

    /// What the operator chose for containers that do not say otherwise.
    pub(super) fn with_defaults(&self, host: HostConfig) -> HostConfig {
        let mut host = self.inner.options.defaults.apply(host);
        host.runtime = self.inner.options.runtimes.name_or_default(host.runtime);
        host
    }

    /// `None`: our own.
    pub(super) fn runtime_of(&self, host: &HostConfig, request: &Request) -> Result<Option<RuntimeChoice>> {
        let found = self.inner.options.runtimes.find(&host.runtime, &self.inner.options.shim_search)?;
        if found.is_some() {
            runtimes::check_request(&host.runtime, request)?;
        }
        Ok(found)
    }

    fn create_now(&self, name: Option<&str>, config: ContainerConfig, host: HostConfig) -> Result<CreateOutcome> {
        let begun = now_ns();
        let id: ContainerId = names::new_id().parse()?;
        let reservation = self.reserve_name(name, &id)?;
        self.inner.faults.check("name.reserve")?;
        let image = self.image_to_run(&config.image)?;
        // Until the container is known; what was collected before this is found missing by what follows.
        let _held = self.inner.image_holds.hold(image.id);
        if !self.inner.images.has(&image.id)? {
            return Err(no_such_image(&config.image));
        }
        let config = merge(config, &image.config)?;
        let host = self.with_volumes_from(host)?;
        let host = self.with_defaults(host);
        let request = Request::parse(&config, &host, &self.inner.facts)?;
        self.runtime_of(&host, &request)?;
        HostObjects::look_up_devices(&request)?;
        prepare_bind_sources(&request)?;
        let start_ns = now_ns();
        let removals = self.inner.images.layer_removals();
        let rootfs = self.inner.images.prepare(id.as_str(), &image, host.auto_remove)?;
        let mut spans = vec![span("snapshot.prepare", id.short(), start_ns)];
        let draft = Draft { id: &id, name: reservation.name(), image: &image, request: &request, rootfs: &rootfs };
        let mut made = Made::default();
        let start_ns = now_ns();
        let record = match self.make_record(&draft, config, host, &mut made) {
            Ok(record) => record,
            Err(error) => {
                self.undo_create(&id, made);
                return Err(error);
            }
        };
        spans.push(span("metadata.create", id.short(), start_ns));
        spans.push(span("container.create", id.short(), begun));
        let layers = image.layers.iter().map(|layer| layer.chain_id).collect();
        self.publish(record, KnownRootfs { rootfs, layers, removals }, reservation, spans);
        self.inner.faults.pass("create.told");
        // Known to the registry, the container itself keeps its volumes from now on.
        drop(made);
        Ok(CreateOutcome { id: id.to_string(), warnings: request.warnings })
    }

    /// Volumes, user ids and the record, in this order; what was made is in `made`, also when a later step fails.
    fn make_record<'a>(
        &'a self,
        draft: &Draft<'_>,
        config: ContainerConfig,
        host: HostConfig,
        made: &mut Made<'a>,
    ) -> Result<Record> {
        self.inner.faults.check("snapshot.prepare")?;
        made.volumes = Some(self.bind_volumes(draft.id, draft.request, draft.rootfs)?);
        self.inner.faults.check("volumes.bind")?;
        if matches!(draft.request.namespaces.user, UserNsMode::Auto) {
            made.id_block = Some(self.inner.id_blocks.take()?);
        }
        let record = self.new_record(draft, config, host, made);
        self.write_new(&record)?;
        self.inner.faults.check("metadata.create")?;
        Ok(record)
    }

    fn new_record(&self, draft: &Draft<'_>, config: ContainerConfig, host: HostConfig, made: &Made<'_>) -> Record {
        let volumes = made.volumes.as_ref().map(|holds| holds.bound.clone()).unwrap_or_default();
        let mut mounts = mounts::views(&draft.request.mounts);
        for view in mounts.iter_mut().filter(|view| view.kind == "volume") {
            let bound = volumes.iter().find(|volume| volume.target == Path::new(&view.destination));
            if let Some(volume) = bound.and_then(|bound| self.inner.volumes.get(&bound.name).ok()) {
                view.source = self.inner.volumes.source(&volume).display().to_string();
                view.name = volume.name;
            }
        }
        Record {
            version: RECORD_VERSION,
            id: draft.id.clone(),
            name: draft.name.to_owned(),
            created: Timestamp::now(),
            image_id: draft.image.id,
            image_name: config.image.clone(),
            mounts,
            volumes,
            config: Arc::new(config),
            host: Arc::new(host),
            id_block: made.id_block,
            endpoint: None,
            state: RunState::created(),
        }
    }

    fn publish(
        &self,
        record: Record,
        rootfs: KnownRootfs,
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
    fn undo_create(&self, id: &ContainerId, made: Made<'_>) {
        if let Some(block) = made.id_block {
            self.inner.id_blocks.free(block);
        }
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
        if let Some(volumes) = made.volumes {
            self.unbind_created(id, volumes);
        }
        self.empty_trash();
    }

    /// A missing image can be fetched, so that a name that can be none is told apart.
    fn image_to_run(&self, name: &str) -> Result<Image> {
        self.image_named(name).map_err(|error| match name.parse::<Reference>() {
            Err(invalid) if error.class == ErrorClass::NotFound => EngineError::invalid(invalid.to_string()),
            _ => error,
        })
    }

    fn reserve_name(&self, name: Option<&str>, id: &ContainerId) -> Result<NameReservation<'_>> {
        if let Some(name) = name {
            names::check(name)?;
            let reservation = self.inner.registry.reserve(name, id)?;
            return match self.foreign_named(name) {
                Some(foreign) => Err(conflict(name, &foreign.object.id)),
                None => Ok(reservation),
            };
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
        self.inner.trash_runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
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
