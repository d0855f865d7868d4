//! The verb `delete`: what is left of a task whose shim is dead is killed and removed.

mod unfinished;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_cgroup::{Cgroup, CgroupError, Layout};
use berth_proto::instant;
use berth_proto::protobuf::Message;
use berth_proto::task::DeleteResponse;
use berth_shim_client::ExitStatus;
use berth_types::{Signal, Timestamp};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};

use crate::record::{OtherShim, Record};
use crate::task::{Surroundings, relay};
use crate::{Invocation, ShimError, group, oci, socket};

const KILL_TIMEOUT: Duration = Duration::from_secs(10);
const END_TIMEOUT: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

pub(crate) fn delete(invocation: &Invocation) -> Result<Vec<u8>, ShimError> {
    let bundle = PathBuf::from(invocation.bundle.as_deref().unwrap_or("."));
    let record = Record::load(&bundle).map_err(|source| ShimError::File {
        what: "read the task's record in",
        path: bundle.clone(),
        source,
    })?;
    let mut pid = 0;
    let is_unfinished = record.as_ref().is_none_or(Record::is_of_nothing);
    if let Some(record) = record {
        pid = record.pid;
        if let Some(shim) = &record.shim {
            kill_other_shim(shim, &bundle, &invocation.id)?;
        }
        kill_init(&record)?;
        if let Some(runtime) = &record.runtime {
            let directory = oci::make_directory(&bundle).map_err(other_runtime)?;
            let place = oci::Place::new(directory, &invocation.environment.search, Arc::default());
            block_on(oci::delete_forced(runtime, &invocation.id, &place))?;
        }
        if let Some(shim) = record.shim
            && let Err(error) = delete_by_other_shim(invocation, &bundle, shim)
        {
            // What is ours goes all the same.
            crate::log::warn(&format!("cleaning up by the other shim: {}", berth_types::report(&error)));
        }
        if !record.cgroup.is_empty() {
            remove_cgroup(&record.cgroup)?;
        }
    }
    if is_unfinished {
        let group = group::of(&invocation.environment, &bundle);
        unfinished::remove(&bundle, &invocation.id, group.as_deref().unwrap_or(&invocation.id))?;
    }
    remove_socket(invocation, &bundle)?;
    let response = DeleteResponse {
        pid,
        exit_status: ExitStatus::KILLED,
        exited_at: instant::into_wire(Timestamp::now()),
        ..Default::default()
    };
    Ok(response.write_to_bytes().unwrap_or_default())
}

fn other_runtime(source: oci::CommandError) -> ShimError {
    ShimError::OtherRuntime { source: source.into() }
}

fn block_on<T>(work: impl Future<Output = T>) -> Result<T, ShimError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .map_err(|source| ShimError::Process { what: "make the event loop", source })
        .map(|runtime| runtime.block_on(work))
}

/// It has lost its engine's side for good, and would keep what is to be cleaned up.
fn kill_other_shim(shim: &OtherShim, bundle: &Path, id: &str) -> Result<(), ShimError> {
    let killed = match shim.pid {
        // Ours died before it knew.
        0 => block_on(pid_of_other_shim(&relay::inner_bundle(bundle, id)))?
            .and_then(|pid| OtherShim::new(shim.binary.clone(), pid).kill()),
        _ => shim.kill(),
    };
    if let Some(pidfd) = killed {
        rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&END_TIMEOUT)).ok();
    }
    Ok(())
}

async fn pid_of_other_shim(bundle: &Path) -> Option<u32> {
    let client = berth_shim_client::ShimClient::reconnect(bundle).await.ok()?;
    client.shim_pid().await.ok().filter(|pid| *pid != 0)
}

/// The other shim's own clean-up, as the engine would call it.
fn delete_by_other_shim(invocation: &Invocation, bundle: &Path, shim: OtherShim) -> Result<(), ShimError> {
    let failed = |error: crate::error::TaskError| ShimError::OtherRuntime { source: error.into() };
    let bundle = bundle.canonicalize().map_err(|source| ShimError::Process { what: "find the bundle", source })?;
    let surroundings = Surroundings {
        namespace: invocation.namespace.clone(),
        events_address: invocation.environment.events_address.clone().unwrap_or_default().into(),
        grpc_address: invocation.grpc_address.clone().into(),
        ..Surroundings::default()
    };
    let inner = relay::inner_bundle(&bundle, &invocation.id);
    let options = relay::shim_options(&surroundings, shim.binary, None, inner, &invocation.id).map_err(failed)?;
    let deleted = block_on(berth_shim_client::ShimClient::delete_dead(&options))?;
    deleted.map(drop).map_err(|error| ShimError::OtherRuntime { source: error.into() })
}

/// By pidfd opened before its identity is checked: what is signalled is what was checked.
fn kill_init(record: &Record) -> Result<(), ShimError> {
    let Some(pid) = i32::try_from(record.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    if !record.is_alive() {
        return Ok(());
    }
    match rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(errno) => return Err(ShimError::Process { what: "kill the task's init", source: errno.into() }),
    }
    let mut poll = [PollFd::new(&pidfd, PollFlags::IN)];
    match rustix::event::poll(&mut poll, Some(&END_TIMEOUT)) {
        Ok(0) => Err(ShimError::Unkillable { pid: record.pid }),
        Ok(_) => Ok(()),
        Err(errno) => Err(ShimError::Process { what: "wait for the task's init", source: errno.into() }),
    }
}

fn failed(what: &'static str) -> impl Fn(CgroupError) -> ShimError {
    move |source| ShimError::Cleanup { what, source: Box::new(source) }
}

fn remove_cgroup(path: &str) -> Result<(), ShimError> {
    let layout = Layout::detect().map_err(failed("find the cgroup of"))?;
    let group = match Cgroup::open(&layout, path) {
        Err(CgroupError::NotFound { .. }) => return Ok(()),
        other => other.map_err(failed("open the cgroup of"))?,
    };
    group.kill_all(Signal::KILL, KILL_TIMEOUT).map_err(failed("kill"))?;
    group.delete(KILL_TIMEOUT).map_err(failed("remove the cgroup of"))
}

fn remove_socket(invocation: &Invocation, bundle: &Path) -> Result<(), ShimError> {
    let group = group::of(&invocation.environment, bundle);
    let path = socket::path_for(
        invocation.environment.socket_dir.as_deref(),
        &invocation.namespace,
        group.as_deref().unwrap_or(&invocation.id),
        &invocation.grpc_address,
    );
    // Others of the pod may be served there.
    let is_in_use = group.is_some() && std::os::unix::net::UnixStream::connect(&path).is_ok();
    let shared = (!is_in_use).then_some(path);
    for path in shared.into_iter().chain([bundle.join(berth_proto::attach::SOCKET_NAME)]) {
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(ShimError::File { what: "remove", path, source });
            }
            _ => {}
        }
    }
    Ok(())
}
