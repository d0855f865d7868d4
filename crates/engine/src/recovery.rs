//! The start of the engine, which is always a recovery: a daemon that was killed at any instant leaves nothing that this does not settle.
//!
//! Order: lock the root; open stores; load records; find shims again and learn what ended meanwhile; give the network its live endpoints;
//! sweep orphans (bundles, shims, cgroups, writable layers and directories without a record); apply restart policies.

mod orphans;
mod told;

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_core::events::EventLimits;
use berth_core::fleet::FleetOptions;
use berth_core::{Bundle, EventLog, Fleet, Objects, Phase, SealedBinary, TaskManager};
use berth_image::{ImageStore, StorageOptions};
use berth_metadata::{Durability, Metadata, Table, Write};
use berth_network::{Endpoint, NamespacePool, Network, NetworkConfig};
use berth_shim_client::ExitStatus;
use berth_types::{ErrorClass, Timestamp};
use rustix::fs::{FlockOperation, flock};

use crate::api::{EngineOptions, Status};
use crate::container::{Container, Run};
use crate::engine::{Engine, Inner};
use crate::error::{Doing, EngineError, Result};
use crate::faults::Faults;
use crate::host::HostFacts;
use crate::lifecycle::Ended;
use crate::names;
use crate::paths::Paths;
use crate::record::Record;
use crate::restart::starts_with_daemon;
use crate::seccomp_cache::SeccompCache;
use crate::store::RecordStore;
use crate::volumes::VolumeStore;
use told::Told;

/// Namespaces kept ready for `--network none`.
const EMPTY_NETWORKS_READY: usize = 2;
/// Image and archive jobs at the same time.
pub(crate) const HEAVY_WORK_MAX: usize = 4;

/// What was found of a container that was alive when the daemon before us ended.
enum Found {
    /// Its shim answers; it may have ended meanwhile.
    Shim(Box<berth_core::Task>, Option<ExitStatus>),
    /// Nothing answers: it ended with its shim, or the host was restarted.
    Gone,
}

impl Engine {
    /// Opens the stores, finds shims again, cleans what a crash left, applies restart policies.
    ///
    /// # Errors
    /// `AlreadyExists` when another daemon uses the data root; otherwise what could not be opened.
    pub async fn start(options: EngineOptions) -> Result<Arc<Self>> {
        let started = tokio::task::spawn_blocking(move || open(options)).await;
        let (engine, records) = started.map_err(|_| EngineError::internal("a worker thread ended early"))??;
        engine.listen_to_shims().await;
        engine.inner.fleet.recover().await;
        let containers = engine.restore_records(records);
        let mut found = Vec::new();
        for container in &containers {
            found.push(engine.find_task(container).await);
        }
        let told = Told::read(&engine.inner.events);
        engine.sweep_orphans(&told).await;
        let mut waiting = Vec::new();
        for (container, found) in containers.iter().zip(found) {
            waiting.extend(engine.settle(container, found, &told).await);
        }
        for container in waiting {
            engine.restart_later(container, std::time::Duration::ZERO);
        }
        engine.empty_trash();
        engine.start_collector();
        let networks = Arc::clone(&engine.inner.empty_networks);
        let bridge = engine.inner.network.clone();
        engine
            .blocking(move |_| {
                // Only a head start; without it the first container waits a little longer.
                let ready = [networks.prepare(), bridge.map_or(Ok(()), |bridge| bridge.prepare())];
                for error in ready.into_iter().filter_map(std::result::Result::err) {
                    tracing::debug!("no network namespaces are kept ready: {}", berth_types::report(&error));
                }
                Ok(())
            })
            .await?;
        Ok(Arc::new(engine))
    }

    /// Records of earlier daemons; one that cannot be taken back is reported, not fatal.
    fn restore_records(&self, records: Vec<Record>) -> Vec<Arc<Container>> {
        let mut containers = Vec::new();
        for record in records {
            if let Some(block) = record.id_block {
                self.inner.id_blocks.restore(block);
            }
            let container = Container::new(record, None);
            match self.inner.registry.restore(&container) {
                Ok(()) => containers.push(container),
                Err(error) => tracing::error!(container_id = %container.id, "a container is not taken back: {error}"),
            }
        }
        containers
    }

    async fn find_task(&self, container: &Container) -> Option<Found> {
        let state = container.record().state;
        let has_bundle = self.inner.tasks.bundle(&container.id).path().exists();
        if !has_bundle && !state.is_running() {
            return None;
        }
        match self.inner.tasks.find(&container.id).await {
            Ok((task, exit)) => Some(Found::Shim(Box::new(task), exit)),
            Err(error) => {
                tracing::info!(container_id = %container.id, "no shim answers: {}", berth_types::report(&error));
                Some(Found::Gone)
            }
        }
    }

    /// Brings record and kernel together; returns the container when its policy wants it started.
    async fn settle(&self, container: &Arc<Container>, found: Option<Found>, told: &Told) -> Option<Arc<Container>> {
        self.tell_missed_create(container, told);
        let state = container.record().state;
        let was_alive = state.is_running() || state.status == Status::Restarting;
        match found {
            Some(Found::Shim(task, exit))
                if matches!(task.phase(), Phase::Running | Phase::Paused | Phase::Stopped) =>
            {
                self.adopt(container, *task, exit, told).await;
                return None;
            }
            // A shim without a task: killed between its start and the container's, and that start never was; or after the task was deleted,
            // and its end was told.
            Some(Found::Shim(task, _)) => {
                if let Err(error) = self.discard_task(&task).await {
                    tracing::warn!(container_id = %container.id, "cannot end a shim without a task: {error}");
                }
                self.drop_bundle(container).await;
                self.record_end(container, None, told);
            }
            Some(Found::Gone) => {
                let status = self.inner.tasks.clean_up_dead(&container.id).await;
                self.drop_bundle(container).await;
                self.record_end(container, status.ok(), told);
            }
            None => self.record_told_exit(container, told),
        }
        if state.status == Status::Removing {
            let _operation = container.operation.lock().await;
            if let Err(error) = self.remove_locked(container, false).await {
                tracing::warn!(container_id = %container.id, "cannot finish a removal: {error}");
            }
            return None;
        }
        self.after_settling(container, was_alive).await
    }

    async fn after_settling(&self, container: &Arc<Container>, was_alive: bool) -> Option<Arc<Container>> {
        let record = container.record();
        let has_started = record.state.started_at.is_some();
        if record.host.auto_remove && has_started {
            let _operation = container.operation.lock().await;
            if let Err(error) = self.remove_locked(container, false).await {
                tracing::warn!(container_id = %container.id, "cannot remove the container: {error}");
            }
            return None;
        }
        let state = &record.state;
        let policy = record.host.restart_policy;
        let is_restarting = state.status == Status::Restarting;
        let wants = is_restarting
            || (has_started && starts_with_daemon(policy, state.stopped_by_user, state.exit_code, was_alive));
        if wants {
            container.lock().record.state.status = Status::Restarting;
        }
        self.persist_logged(container).await;
        wants.then(|| Arc::clone(container))
    }

    /// A container that runs on, or ended while nobody looked: its shim tells.
    async fn adopt(&self, container: &Arc<Container>, task: berth_core::Task, exit: Option<ExitStatus>, told: &Told) {
        self.resume_after_commit(container, &task).await;
        let phase = task.phase();
        let run = Run::new(task);
        {
            let mut inner = container.lock();
            let state = &mut inner.record.state;
            state.pid = run.task.pid();
            state.status = if phase == Phase::Paused { Status::Paused } else { Status::Running };
            if state.started_at.is_none() {
                // Killed between the container's start and the record of it.
                state.started_at = Some(Timestamp::now());
            }
            inner.run = Some(Arc::clone(&run));
        }
        self.tell_missed_start(container, exit.as_ref(), told);
        if exit.is_none() {
            self.restore_execs(container, &run, |exec_id| told.exec_has_died(exec_id)).await;
        }
        match (phase, exit) {
            (Phase::Stopped, Some(exit)) => {
                let is_told = told.has_died(&container.id, exit.exited_at);
                let engine = self.clone();
                let container = Arc::clone(container);
                let ended = Ended { status: exit, lost: None, is_told };
                tokio::spawn(async move { engine.ended(&container, &run, ended).await });
            }
            _ => {
                self.persist_logged(container).await;
                self.supervise(Arc::clone(container), run);
            }
        }
    }

    async fn drop_bundle(&self, container: &Container) {
        let endpoint = container.lock().record.endpoint.take();
        if let Some(endpoint) = endpoint
            && let Err(error) = self.detach_network(endpoint).await
        {
            tracing::warn!(container_id = %container.id, "cannot give back the network: {error}");
        }
        if let Err(error) = self.inner.tasks.bundle(&container.id).remove() {
            tracing::warn!(container_id = %container.id, "{}", berth_types::report(&error));
        }
    }

    /// The end of one that runs no more. `status`: what was found out of it.
    fn record_end(&self, container: &Container, status: Option<ExitStatus>, told: &Told) {
        if container.record().state.is_running() || told.start(&container.id).is_some() {
            let status = status.unwrap_or_else(ExitStatus::killed);
            self.record_lost_exit(container, status, told);
        } else {
            self.record_told_exit(container, told);
        }
    }

    /// States reach the disk a moment after they are told; what was told before a kill is the newer word.
    fn record_told_exit(&self, container: &Container, told: &Told) {
        let mut inner = container.lock();
        let state = &mut inner.record.state;
        if let Some((exit_code, at)) = told.end(&container.id)
            && matches!(state.status, Status::Created | Status::Running | Status::Paused)
        {
            state.status = Status::Exited;
            state.pid = 0;
            state.exit_code = exit_code;
            state.started_at.get_or_insert(at);
            state.finished_at = Some(at);
        }
    }

    fn record_lost_exit(&self, container: &Container, status: ExitStatus, told: &Told) {
        if told.end(&container.id).is_some() {
            self.record_told_exit(container, told);
            return;
        }
        let record = {
            let mut inner = container.lock();
            let state = &mut inner.record.state;
            state.status = Status::Exited;
            state.pid = 0;
            state.exit_code = i32::try_from(status.code).unwrap_or(255);
            state.started_at = state.started_at.max(told.start(&container.id));
            state.finished_at = Some(status.exited_at);
            "the container ended while the daemon was down".clone_into(&mut state.error);
            state.end.host_restarted = crate::why::is_older_than_boot(state.started_at);
            state.end.shim_lost = !state.end.host_restarted;
            let past = crate::why::past_end(&inner.record);
            crate::why::end::remember(&mut inner.record.state.past, past);
            inner.record.clone()
        };
        self.emit_container(&record, "die", &[("exitCode", record.state.exit_code.to_string())]);
        self.emit_volume_unmounts(&record);
    }
}

fn open(options: EngineOptions) -> Result<(Engine, Vec<Record>)> {
    let paths = Paths::create(&options.data_root, &options.state_root)?;
    let root_lock = lock_root(&paths.lock())?;
    crate::request::check_cgroup_parent(&options.cgroup_parent, options.cgroup_driver)?;
    let facts = HostFacts::read(options.cgroup_driver).doing(|| "cannot use this host".to_owned())?;
    let binary = Arc::new(SealedBinary::copy(&options.shim_binary)?);
    let metadata = Arc::new(Metadata::open(&paths.metadata())?);
    let id = daemon_id(&metadata)?;
    let store = RecordStore::new(Arc::clone(&metadata), paths.throw_away_records());
    let (mut records, warnings) = store.load()?;
    for warning in warnings {
        tracing::error!("{warning}");
    }
    let objects = Arc::new(Objects::new(Arc::clone(&metadata)));
    let storage = StorageOptions {
        snapshotter: options.snapshotter.clone(),
        proxies: options.proxy_snapshotters.clone(),
        thin_pool: options.thin_pool.clone(),
    };
    let images = Arc::new(ImageStore::open_with(&paths.data, Arc::clone(&metadata), storage)?);
    let transfers = crate::transfer::Transfers::new(options.registry.clone(), images.content())?;
    let events = Arc::new(EventLog::open(&paths.events(), EventLimits::default())?);
    let volumes = VolumeStore::open(paths.volumes(), paths.trash())?;
    let network = open_network(&options, &paths, &mut records);
    let fleet = open_fleet(&options, &paths, &binary, &events);
    let search = options.shim_search.clone();
    let tasks = TaskManager::new(paths.tasks(), paths.sockets(), paths.events_socket(), binary, search);
    let seccomp = SeccompCache::new(paths.seccomp(), facts.kernel());
    let faults = Faults::new(options.fault_points.clone());
    let inner = Inner {
        options,
        id,
        paths,
        facts,
        store,
        images,
        image_holds: Default::default(),
        transfers,
        network,
        empty_networks: Arc::new(NamespacePool::new(EMPTY_NETWORKS_READY)),
        volumes,
        events,
        objects,
        fleet,
        registry: Default::default(),
        tasks,
        seccomp,
        id_blocks: Default::default(),
        execs: Default::default(),
        traces: Default::default(),
        reports: Default::default(),
        latencies: Default::default(),
        metadata: Arc::clone(&metadata),
        trash_runs: Default::default(),
        faults,
        shim_events: std::sync::OnceLock::new(),
        heavy_work: Arc::new(tokio::sync::Semaphore::new(HEAVY_WORK_MAX)),
        _root_lock: root_lock,
    };
    Ok((Engine { inner: Arc::new(inner) }, records))
}

fn open_fleet(
    options: &EngineOptions,
    paths: &Paths,
    binary: &Arc<SealedBinary>,
    events: &Arc<EventLog>,
) -> Arc<Fleet> {
    let options = FleetOptions {
        dir: paths.shims(),
        socket_dir: paths.sockets(),
        events_address: paths.containerd_ttrpc_socket(),
        grpc_address: paths.containerd_socket(),
        search: options.shim_search.clone(),
    };
    Fleet::new(options, Arc::clone(binary), Arc::clone(events))
}

/// A child that was being started when the last daemon was killed holds that one's descriptors until it executes its program.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// One daemon per data root; the lock ends with the process, however that ends.
fn lock_root(path: &Path) -> Result<File> {
    let failed = |operation: &'static str| move |error: std::io::Error| EngineError::io(operation, path, &error);
    let mut options = std::fs::OpenOptions::new();
    let open = options.create(true).truncate(false).write(true).mode(0o600).open(path);
    let file = open.map_err(failed("open"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => return Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {}
        Err(errno) => return Err(failed("lock")(errno.into())),
    }
    // Both descriptors are of one open file: the lock is the other's too. The thread ends with the process when nobody lets go.
    let waiting = file.try_clone().map_err(failed("share"))?;
    let (sender, locked) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || sender.send(flock(&waiting, FlockOperation::LockExclusive)));
    match locked.recv_timeout(LOCK_PATIENCE) {
        Ok(Ok(())) => Ok(file),
        Ok(Err(errno)) => Err(failed("lock")(errno.into())),
        Err(_) => Err(EngineError::new(
            ErrorClass::AlreadyExists,
            format!("another berthd uses this data root: {} is locked", path.display()),
        )
        .with_hint("stop that daemon, or give this one its own --root and --state")),
    }
}

fn daemon_id(metadata: &Metadata) -> Result<String> {
    const KEY: &str = "daemon-id";
    let known = metadata.get(Table::Facts, KEY)?.and_then(|bytes| String::from_utf8(bytes).ok());
    if let Some(id) = known {
        return Ok(id);
    }
    let id = names::new_id();
    let put = Write::Put { table: Table::Facts, key: KEY.to_owned(), value: id.clone().into_bytes() };
    metadata.write(vec![put], Durability::Immediate)?;
    Ok(id)
}

/// File of the bundle: the container's place in the network, kept before its task exists.
const ENDPOINT: &str = "endpoint.json";

/// Keeps an endpoint where the next daemon looks for it.
pub(crate) fn keep_endpoint(bundle: &Bundle, endpoint: &Endpoint) -> Result<()> {
    let json = serde_json::to_vec(endpoint)
        .map_err(|error| EngineError::internal(format!("cannot encode an endpoint: {error}")))?;
    Ok(bundle.write(ENDPOINT, 0o600, &json)?)
}

/// What the bundle says, else the record of a container that was running. One that ended has given its endpoint back.
fn known_endpoint(record: &mut Record, paths: &Paths) -> Option<Endpoint> {
    let bundle = Bundle::of(&paths.tasks(), &record.id);
    let kept = std::fs::read(bundle.file(ENDPOINT)).ok().and_then(|json| serde_json::from_slice(&json).ok());
    let known = record.endpoint.take().filter(|_| record.state.is_running());
    kept.or(known)
}

/// The bridge with the endpoints of containers that are probably alive; those that are not are detached when they are settled.
fn open_network(
    options: &EngineOptions,
    paths: &Paths,
    records: &mut [Record],
) -> std::result::Result<Arc<Network>, EngineError> {
    for record in &mut *records {
        record.endpoint = known_endpoint(record, paths);
    }
    let config = NetworkConfig {
        bridge_name: options.bridge_name.clone(),
        ipv4_subnet: options.bridge_subnet.clone(),
        ipv6_subnet: options.bridge_subnet6.clone(),
        nft_table: options.nft_table.clone(),
        host_netns: None,
    };
    let endpoints: Vec<Endpoint> = records.iter().filter_map(|record| record.endpoint.clone()).collect();
    let (network, failed) = Network::open_with(config, &endpoints).map_err(|error| {
        let error = EngineError::from(error);
        tracing::error!("the bridge network is not available: {error}");
        error
    })?;
    for (endpoint, error) in failed {
        tracing::error!(container_id = %endpoint.container_id, "network of a running container is not restored: {}", berth_types::report(&error));
    }
    Ok(Arc::new(network))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = lock_root(&path).unwrap();
        let refused = lock_root(&path).unwrap_err();
        assert!(refused.message.contains("another berthd"), "{}", refused.message);
        let (next, waiting) = (path.clone(), std::sync::Arc::new(std::sync::Barrier::new(2)));
        let begun = Arc::clone(&waiting);
        let second = std::thread::spawn(move || {
            begun.wait();
            lock_root(&next).map(drop)
        });
        waiting.wait();
        drop(held);
        second.join().unwrap().unwrap();
    }
}
