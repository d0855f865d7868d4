//! The life of a shim as a process: bind, fork, serve, deliver what is owed, end.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_proto::attach::SOCKET_NAME;
use berth_proto::sandbox::{Sandbox, create_sandbox};
use berth_proto::task::Task;
use berth_proto::ttrpc::r#async::Server as RpcServer;
use berth_proto::ttrpc::r#async::transport::Listener;
use berth_sys::shim_process::{Fork, fork_single_threaded};
use futures_util::stream;
use tokio::net::UnixListener;

use crate::bootstrap::{self, Form};
use crate::events::{Publisher, Selection};
use crate::sandbox::SandboxService;
use crate::service::Service;
use crate::task::{Shim, Surroundings};
use crate::{Invocation, ShimError, Side, daemonize, group, io as shim_io, log, socket};

/// After a failed accept (descriptors exhausted): the cause must have time to pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long an engine that has gone may keep the last events of a shim that ends.
const LAST_EVENTS: Duration = Duration::from_secs(5);
/// Turns of the scheduler after which everything that could run has run: the answer to Shutdown is written.
const LAST_TURNS: usize = 64;

/// A shim that has a socket and is to be served.
#[derive(Debug)]
pub struct Server {
    listener: StdListener,
    socket: PathBuf,
    bundle: PathBuf,
    id: String,
    group: Option<String>,
    surroundings: Surroundings,
    events_address: Option<String>,
    selection: Selection,
}

pub(crate) fn start(invocation: &Invocation) -> Result<Side, ShimError> {
    let params = bootstrap::read_params(invocation, io::stdin())?;
    let environment = &invocation.environment;
    let socket_dir = params.socket_dir.as_deref().or(environment.socket_dir.as_deref());
    let bundle = PathBuf::from(invocation.bundle.as_deref().unwrap_or("."));
    let group = group::of(environment, &bundle);
    let path = socket::path_for(
        socket_dir,
        &invocation.namespace,
        group.as_deref().unwrap_or(&invocation.id),
        &invocation.grpc_address,
    );
    let text = path.to_string_lossy();
    let answer = bootstrap::answer(bootstrap::form(&params, environment.shim_version_max.as_deref()), &text);
    let listener = match socket::listen(&path) {
        // The pod has a shim: it serves this task, too.
        Err(ShimError::AlreadyListening { .. }) if group.is_some() => {
            write_file(&bundle, "address", &bootstrap::answer(Form::Address, &text))?;
            return Ok(Side::Parent(answer));
        }
        other => other?,
    };
    write_file(&bundle, "address", &bootstrap::answer(Form::Address, &text))?;
    let events_address = params.events_address.or_else(|| environment.events_address.clone());
    let fork = fork_single_threaded().map_err(|e| ShimError::Process { what: "fork", source: e.into() })?;
    match fork {
        Fork::Parent { child } => {
            write_file(&bundle, "shim.pid", child.as_raw_nonzero().to_string().as_bytes())?;
            Ok(Side::Parent(answer))
        }
        Fork::Child => {
            daemonize::detach(&bundle)?;
            Ok(Side::Child(Box::new(Server {
                listener,
                socket: path,
                bundle,
                id: invocation.id.clone(),
                group,
                surroundings: Surroundings {
                    namespace: invocation.namespace.clone(),
                    events_address: events_address.clone().unwrap_or_default().into(),
                    grpc_address: invocation.grpc_address.clone().into(),
                    socket_dir: socket_dir.map(PathBuf::from).unwrap_or_default(),
                    search: environment.search.clone(),
                },
                events_address,
                selection: match environment.events.as_deref() {
                    Some("oom") => Selection::OutOfMemory,
                    _ => Selection::All,
                },
            })))
        }
    }
}

impl Server {
    /// Serves until Shutdown, in this thread.
    ///
    /// # Errors
    /// When it cannot begin to; what fails later is answered to the caller it concerns.
    pub fn serve(self) -> Result<(), ShimError> {
        let oom_score = daemonize::lower_oom_score();
        let result = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| ShimError::Process { what: "make the event loop", source })
            .and_then(|runtime| runtime.block_on(self.run(oom_score)));
        if let Err(error) = &result {
            log::error(&berth_types::report(error));
        }
        result
    }

    async fn run(self, oom_score: Option<i32>) -> Result<(), ShimError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| ShimError::File { what, path, source }
        };
        let events = Publisher::new(self.events_address, self.surroundings.namespace.clone(), self.selection);
        let shim = Shim::new(self.id.clone(), self.group, oom_score, self.surroundings, events);
        let io_path = self.bundle.join(SOCKET_NAME);
        let io_listener =
            socket::listen_in(&self.bundle, SOCKET_NAME).and_then(into_async).map_err(failed("bind", &io_path))?;
        shim.set_addresses(vec![self.socket.clone(), io_path]);
        tokio::spawn(shim_io::serve_attach(io_listener, shim.attacher(&self.id)));
        let listener = into_async(self.listener).map_err(failed("listen at", &self.socket))?;
        let task: Arc<dyn Task + Send + Sync> = Arc::new(Service(Arc::clone(&shim)));
        let sandbox: Arc<dyn Sandbox + Send + Sync> = Arc::new(SandboxService(Arc::clone(&shim)));
        let mut server = RpcServer::new()
            .add_listener(trusted(listener))
            .register_service(berth_proto::task::services(&task))
            .register_service(create_sandbox(sandbox));
        let unserved =
            |e: berth_proto::ttrpc::Error| ShimError::Serve { path: self.socket.clone(), detail: e.to_string() };
        server.start().await.map_err(unserved)?;

        shim.shutdown_asked().await;
        shim.leave_addresses();
        for _ in 0..LAST_TURNS {
            tokio::task::yield_now().await;
        }
        tokio::time::timeout(LAST_EVENTS, shim.events.delivered()).await.ok();
        shim.outlets.none_left().await;
        Ok(())
    }
}

/// Connections of root and of our own user.
fn trusted(listener: UnixListener) -> Listener {
    Listener::new(stream::unfold(listener, |listener| async {
        let accepted = socket::accept_trusted(&listener).await;
        if accepted.is_err() {
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
        Some((accepted, listener))
    }))
}

pub(crate) fn into_async(listener: StdListener) -> io::Result<UnixListener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

fn write_file(bundle: &Path, name: &str, content: &[u8]) -> Result<(), ShimError> {
    let path = bundle.join(name);
    std::fs::write(&path, content).map_err(|source| ShimError::File { what: "write", path, source })
}
