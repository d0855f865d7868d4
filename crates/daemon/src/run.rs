//! Wiring: log, directories, engine, socket, signals.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use berth_docker::FaceOptions;
use berth_engine::api::{CgroupDriver, CollectionBudget, ContainerDefaults, Engine, EngineOptions, Runtimes, ThinPool};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::idle::Activity;
use crate::json_log::JsonLines;
use crate::options::Options;
use crate::{embedded, metrics_listener, socket};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RunError {
    #[error("log filter {filter:?} is not valid")]
    LogFilter { filter: String, source: tracing_subscriber::filter::ParseError },
    #[error("cannot find the shim containerd-shim-berth-v1 at {}; name it with --shim", .0.display())]
    NoShim(PathBuf),
    #[error("cannot find out where berthd itself is")]
    OwnPath(#[source] std::io::Error),
    #[error("cannot start the async runtime")]
    Runtime(#[source] std::io::Error),
    #[error("cannot start the engine")]
    Engine(#[source] berth_engine::api::EngineError),
    #[error("the defaults for containers are not valid")]
    Defaults(#[source] berth_engine::api::EngineError),
    #[error("a runtime's entry is not valid")]
    Runtimes(#[source] berth_engine::api::EngineError),
    #[error("--subnet6 is of no use without --ipv6")]
    Subnet6WithoutIpv6,
    #[error("cannot watch for signal {name}")]
    Signal { name: &'static str, source: std::io::Error },
}

/// Libraries that log each of their steps.
const QUIET_TARGETS: [&str; 3] = ["h2", "tonic", "tower"];

impl RunError {
    /// What the person who started it can do, when we know.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Engine(error) => error.hint.clone(),
            _ => None,
        }
    }
}

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

pub(crate) fn run(options: Options) -> Result<(), Failure> {
    start_log(&options)?;
    if let Some(crate::options::Command::Registry(crate::options::RegistryCommand::Serve(serve))) = &options.command {
        return crate::registry_serve::run(serve);
    }
    // Not the parser's, which sees each key of the configuration file alone.
    if options.subnet6.is_some() && !options.ipv6 {
        return Err(RunError::Subnet6WithoutIpv6.into());
    }
    if let Some(address) = options.metrics_address {
        metrics_listener::check(address, options.metrics_allow_remote)?;
    }
    socket::ensure_directory(&options.root, 0o711)?;
    socket::ensure_directory(&options.state, 0o711)?;
    // One thread: the work is the kernel's, and a second worker costs memory and wake-ups on every start.
    berth_sys::memory::share_arenas();
    let activity = Activity::default();
    let parking = activity.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .thread_stack_size(512 << 10)
        .on_thread_park(move || parking.parked())
        .build()
        .map_err(RunError::Runtime)?;
    runtime.block_on(async {
        tokio::spawn(activity.watch());
        serve(options).await
    })
}

fn start_log(options: &Options) -> Result<(), RunError> {
    let filter = EnvFilter::try_new(&options.log_level)
        .map_err(|source| RunError::LogFilter { filter: options.log_level.clone(), source })?;
    // Every frame of a connection is of use to nobody who did not ask for just that.
    let filter = QUIET_TARGETS
        .iter()
        .filter(|target| !options.log_level.contains(**target))
        .filter_map(|target| format!("{target}=info").parse().ok())
        .fold(filter, EnvFilter::add_directive);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let builder = builder.with_ansi(false);
    match options.log_format.as_str() {
        "json" => builder.event_format(JsonLines).init(),
        _ => builder.init(),
    }
    Ok(())
}

fn find_shim(options: &Options) -> Result<PathBuf, RunError> {
    let path = match &options.shim {
        Some(path) => path.clone(),
        None => std::env::current_exe().map_err(RunError::OwnPath)?.with_file_name("containerd-shim-berth-v1"),
    };
    if path.is_file() { Ok(path) } else { Err(RunError::NoShim(path)) }
}

/// PATH, then the directory of berthd itself.
fn shim_search() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = std::env::current_exe().ok().and_then(|exe| exe.parent().map(std::path::Path::to_owned));
    std::env::split_paths(&path).filter(|dir| dir.is_absolute()).chain(own).collect()
}

/// # Errors
/// For log options and limits that no container could be made with.
pub(crate) fn container_defaults(options: &Options) -> Result<ContainerDefaults, RunError> {
    ContainerDefaults::parse(&options.log_driver, &options.log_opt, &options.default_ulimit).map_err(RunError::Defaults)
}

/// # Errors
/// For a runtime that is not described in full.
pub(crate) fn runtimes(options: &Options) -> Result<Runtimes, RunError> {
    Runtimes::parse(&options.add_runtime, options.default_runtime.as_deref()).map_err(RunError::Runtimes)
}

fn engine_options(options: &Options) -> Result<EngineOptions, Failure> {
    let (cgroup_driver, default_parent) = match options.cgroup_manager.as_str() {
        "systemd" => (CgroupDriver::Systemd, "system.slice"),
        _ => (CgroupDriver::Cgroupfs, "/berth"),
    };
    Ok(EngineOptions {
        data_root: options.root.clone(),
        registry: crate::registry_options::from(options)?,
        state_root: options.state.clone(),
        shim_binary: find_shim(options)?,
        shim_search: shim_search(),
        init_binary: embedded::INIT,
        hello_image: embedded::HELLO_IMAGE,
        cgroup_parent: options.cgroup_parent.clone().unwrap_or_else(|| default_parent.to_owned()),
        cgroup_driver,
        bridge_name: options.bridge.clone(),
        bridge_subnet: options.subnet.clone(),
        bridge_subnet6: subnet6(options),
        nft_table: options.nft_table.clone(),
        snapshotter: options.snapshotter.clone(),
        collection: CollectionBudget {
            interval: std::time::Duration::from_secs(options.gc_interval),
            size_bytes_max: options.gc_max_size.map(|bytes| bytes.0),
            free_bytes_min: options.gc_min_free.map(|bytes| bytes.0),
            unused_for: options.gc_unused_for,
        },
        thin_pool: options.devmapper_pool.clone().map(|name| ThinPool { name, size_bytes: options.devmapper_size.0 }),
        proxy_snapshotters: options.proxy_snapshotter.clone(),
        defaults: container_defaults(options)?,
        runtimes: runtimes(options)?,
        fault_points: options.fault_points.clone(),
    })
}

/// Docker's rule: no IPv6 unless asked for; then a unique local network (RFC 4193) unless one is named. The same bridge has the same
/// one at every start, since addresses outlive us.
fn subnet6(options: &Options) -> Option<String> {
    if !options.ipv6 {
        return None;
    }
    options.subnet6.clone().or_else(|| {
        // FNV-1a; 40 bits of global id as the RFC wants, subnet 0.
        let name = format!("{} {}", options.bridge, options.nft_table);
        let hash =
            name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        let [a, b, c, d, e, ..] = hash.to_be_bytes();
        Some(format!("fd{a:02x}:{b:02x}{c:02x}:{d:02x}{e:02x}::/64"))
    })
}

async fn serve(options: Options) -> Result<(), Failure> {
    // First, so that whoever reaches one face reaches the other.
    let containerd_listener = socket::bind(&options.state.join("containerd.sock"), None)?;
    let listener = match socket::passed()? {
        Some(listener) => listener,
        None => socket::bind(&options.state.join("docker.sock"), options.group)?,
    };
    let metrics = match options.metrics_address {
        Some(address) => Some(metrics_listener::bind(address).await?),
        None => None,
    };
    let engine = Engine::start(engine_options(&options)?).await.map_err(RunError::Engine)?;
    let face = FaceOptions {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        git_commit: option_env!("BERTH_COMMIT").unwrap_or("unknown").to_owned(),
        build_time: option_env!("BERTH_BUILD_TIME").unwrap_or("unknown").to_owned(),
    };
    let containerd = berth_grpc::FaceOptions {
        version: face.version.clone(),
        git_commit: face.git_commit.clone(),
        data_root: options.root.clone(),
        state_root: options.state.clone(),
    };
    let router = berth_docker::router(Arc::clone(&engine), face);
    let containerd = berth_grpc::Face::new(Arc::clone(&engine), containerd);
    if let Some(listener) = metrics {
        let engine = Arc::clone(&engine);
        tokio::spawn(async move {
            if let Err(error) = metrics_listener::serve(listener, engine).await {
                tracing::error!(%error, "metrics are not served any more");
            }
        });
    }
    tracing::info!(root = %options.root.display(), state = %options.state.display(), "berthd is ready");
    socket::notify_ready();
    let faces = Faces { docker: (listener, router), containerd: (containerd_listener, containerd) };
    until_signal(faces).await?;
    if options.private {
        engine.release().await.map_err(RunError::Engine)?;
    }
    Ok(())
}

/// What is served, and where.
struct Faces {
    docker: (UnixListener, axum::Router),
    containerd: (UnixListener, berth_grpc::Face),
}

/// Serves until SIGTERM or SIGINT. There is nothing to shut down: containers live on, and the next start is a recovery.
async fn until_signal(faces: Faces) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|source| RunError::Signal { name: "TERM", source })?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|source| RunError::Signal { name: "INT", source })?;
    let docker = berth_docker::serve(faces.docker.0, faces.docker.1);
    let containerd = berth_grpc::serve(faces.containerd.0, faces.containerd.1);
    tokio::select! {
        served = docker => served.map_err(Failure::from),
        served = containerd => served.map_err(Failure::from),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}
