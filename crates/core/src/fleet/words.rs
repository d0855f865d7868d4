//! Events of tasks: what they mean for the fleet, in Docker's words, and the last ones of a shim that died.

use std::collections::BTreeMap;

use berth_proto::events::{
    TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOOM, TaskPaused, TaskResumed, TaskStart,
};
use berth_proto::instant;
use berth_proto::protobuf::Message;
use berth_shim_client::ExitStatus;

use super::{Fleet, Member};
use crate::events::{CONTAINERD_KIND, Envelope, Occurrence};
use crate::objects::{AnyValue, Tenant};

const PACKAGE: &str = "containerd.events";

/// Docker's words for an event of a task, when it is of Docker's tenant and Docker has any.
pub fn docker_words(envelope: Envelope) -> Occurrence {
    let words = if envelope.namespace == Tenant::docker().as_str() { translate(&envelope) } else { None };
    let mut occurrence = words.unwrap_or_else(|| Occurrence {
        kind: CONTAINERD_KIND,
        action: "event".to_owned(),
        ..Occurrence::default()
    });
    occurrence.envelope = Some(Box::new(envelope));
    occurrence
}

/// The container an event of a task is about: field 1 of all of them.
pub fn container_of(envelope: &Envelope) -> Option<String> {
    let is_task = envelope.topic.starts_with("/tasks/");
    is_task.then(|| TaskOOM::parse_from_bytes(&envelope.event.value).ok()).flatten().map(|event| event.container_id)
}

fn words(action: &str, id: &str, pid: u32, attributes: &[(&str, String)]) -> Occurrence {
    let mut all: BTreeMap<String, String> = [("name".to_owned(), id.to_owned())].into();
    all.extend(attributes.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    Occurrence {
        kind: "container",
        action: action.to_owned(),
        actor_id: id.to_owned(),
        attributes: all,
        pid,
        envelope: None,
    }
}

fn translate(envelope: &Envelope) -> Option<Occurrence> {
    let bytes = envelope.event.value.as_slice();
    Some(match envelope.topic.as_str() {
        "/tasks/start" => {
            let event = TaskStart::parse_from_bytes(bytes).ok()?;
            words("start", &event.container_id, event.pid, &[])
        }
        "/tasks/exit" => {
            let event = TaskExit::parse_from_bytes(bytes).ok()?;
            let code = ("exitCode", event.exit_status.to_string());
            if event.id == event.container_id {
                words("die", &event.container_id, event.pid, &[code])
            } else {
                words("exec_die", &event.container_id, event.pid, &[code, ("execID", event.id)])
            }
        }
        "/tasks/exec-added" => {
            let event = TaskExecAdded::parse_from_bytes(bytes).ok()?;
            words("exec_create", &event.container_id, 0, &[("execID", event.exec_id)])
        }
        "/tasks/exec-started" => {
            let event = TaskExecStarted::parse_from_bytes(bytes).ok()?;
            words("exec_start", &event.container_id, event.pid, &[("execID", event.exec_id)])
        }
        "/tasks/paused" => words("pause", &TaskPaused::parse_from_bytes(bytes).ok()?.container_id, 0, &[]),
        "/tasks/resumed" => words("unpause", &TaskResumed::parse_from_bytes(bytes).ok()?.container_id, 0, &[]),
        "/tasks/oom" => words("oom", &TaskOOM::parse_from_bytes(bytes).ok()?.container_id, 0, &[]),
        _ => return None,
    })
}

/// What the fleet learns from an event.
pub(super) fn note(fleet: &Fleet, tenant: &Tenant, envelope: &Envelope) {
    if envelope.topic == "/tasks/exit"
        && let Ok(event) = TaskExit::parse_from_bytes(&envelope.event.value)
        && event.id == event.container_id
        && let Ok(member) = fleet.member(tenant, &event.container_id)
    {
        member.note_exit_told();
    }
}

pub(super) fn last_events(member: &Member, status: ExitStatus) -> Vec<Envelope> {
    last_words(&member.tenant, &member.id, member.pid, status, !member.has_exit_been_told())
}

/// Exit (unless the shim still told it) and deletion, as containerd tells them in a dead shim's place.
pub(super) fn last_words(tenant: &Tenant, id: &str, pid: u32, status: ExitStatus, with_exit: bool) -> Vec<Envelope> {
    let exited_at = instant::into_wire(status.exited_at);
    let exit = TaskExit {
        container_id: id.to_owned(),
        id: id.to_owned(),
        pid,
        exit_status: status.code,
        exited_at: exited_at.clone(),
        ..Default::default()
    };
    let delete =
        TaskDelete { container_id: id.to_owned(), pid, exit_status: status.code, exited_at, ..Default::default() };
    let mut envelopes = Vec::new();
    if with_exit {
        envelopes.push(envelope(tenant, "/tasks/exit", &exit));
    }
    envelopes.push(envelope(tenant, "/tasks/delete", &delete));
    envelopes
}

fn envelope<M: Message>(tenant: &Tenant, topic: &str, event: &M) -> Envelope {
    let packed = berth_proto::pack(PACKAGE, event);
    Envelope {
        namespace: tenant.to_string(),
        topic: topic.to_owned(),
        event: AnyValue { type_url: packed.type_url, value: packed.value },
    }
}
