//! One event of the log as the envelopes that containerd's subscribers get.

use berth_containerd_api::containerd::events as wire;
use berth_containerd_api::containerd::services::images::v1 as images;
use berth_containerd_api::containerd::types::Envelope;
use berth_core::Event;
use berth_shim_client::OWN_RUNTIME;
use prost::{Message, Name};
use prost_types::Any;

use crate::convert::instant;

const TENANT: &str = "default";

/// None, one or two, in order.
pub(crate) fn envelopes(event: &Event) -> Vec<Envelope> {
    let timestamp = Some(instant(event.time));
    if let Some(envelope) = &event.envelope {
        return vec![Envelope {
            timestamp,
            namespace: envelope.namespace.clone(),
            topic: envelope.topic.clone(),
            event: Some(Any { type_url: envelope.event.type_url.clone(), value: envelope.event.value.clone() }),
        }];
    }
    let messages = match event.kind.as_str() {
        "container" => container(event),
        "image" => image(event),
        _ => Vec::new(),
    };
    let wrap = |(topic, message): (&str, Any)| Envelope {
        timestamp,
        namespace: TENANT.to_owned(),
        topic: topic.to_owned(),
        event: Some(message),
    };
    messages.into_iter().map(wrap).collect()
}

fn pack<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::full_name(), value: message.encode_to_vec() }
}

fn attribute(event: &Event, name: &str) -> String {
    event.attributes.get(name).cloned().unwrap_or_default()
}

fn container(event: &Event) -> Vec<(&'static str, Any)> {
    let container_id = event.actor_id.clone();
    let pid = event.pid;
    let exec_id = attribute(event, "execID");
    let exited = |id: &str| wire::TaskExit {
        container_id: event.actor_id.clone(),
        id: id.to_owned(),
        pid,
        exit_status: attribute(event, "exitCode").parse().unwrap_or_default(),
        exited_at: Some(instant(event.time)),
    };
    match event.action.split(':').next().unwrap_or_default() {
        "create" => {
            let runtime = wire::container_create::Runtime { name: OWN_RUNTIME.to_owned(), options: None };
            let image = attribute(event, "image");
            let message = wire::ContainerCreate { id: container_id, image, runtime: Some(runtime) };
            vec![("/containers/create", pack(&message))]
        }
        "destroy" => vec![("/containers/delete", pack(&wire::ContainerDelete { id: container_id }))],
        "start" => vec![
            (
                "/tasks/create",
                pack(&wire::TaskCreate { container_id: container_id.clone(), pid, ..Default::default() }),
            ),
            ("/tasks/start", pack(&wire::TaskStart { container_id, pid })),
        ],
        "die" => {
            let exit = exited(&container_id);
            let delete = wire::TaskDelete {
                container_id: container_id.clone(),
                pid,
                exit_status: exit.exit_status,
                exited_at: exit.exited_at,
                id: container_id,
            };
            vec![("/tasks/exit", pack(&exit)), ("/tasks/delete", pack(&delete))]
        }
        "exec_create" => vec![("/tasks/exec-added", pack(&wire::TaskExecAdded { container_id, exec_id }))],
        "exec_start" => vec![("/tasks/exec-started", pack(&wire::TaskExecStarted { container_id, exec_id, pid }))],
        "exec_die" => vec![("/tasks/exit", pack(&exited(&exec_id)))],
        "pause" => vec![("/tasks/paused", pack(&wire::TaskPaused { container_id }))],
        "unpause" => vec![("/tasks/resumed", pack(&wire::TaskResumed { container_id }))],
        "oom" => vec![("/tasks/oom", pack(&wire::TaskOom { container_id }))],
        _ => Vec::new(),
    }
}

fn image(event: &Event) -> Vec<(&'static str, Any)> {
    let name = attribute(event, "name");
    match event.action.as_str() {
        "load" | "import" | "tag" | "pull" => {
            vec![("/images/create", pack(&images::ImageCreate { name, labels: Default::default() }))]
        }
        "untag" => vec![("/images/delete", pack(&images::ImageDelete { name }))],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_types::Timestamp;

    fn event(kind: &str, action: &str, attributes: &[(&str, &str)]) -> Event {
        Event {
            sequence: 1,
            time: Timestamp(5),
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor_id: "c1".to_owned(),
            attributes: attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            pid: 7,
            envelope: None,
        }
    }

    fn topics(kind: &str, action: &str) -> Vec<String> {
        envelopes(&event(kind, action, &[("execID", "e"), ("exitCode", "3")])).into_iter().map(|e| e.topic).collect()
    }

    /// S-120: each change of Docker's face has its event in containerd's words, in the legal order.
    #[test]
    fn s120_dockers_events_have_topics() {
        assert_eq!(topics("container", "create"), ["/containers/create"]);
        assert_eq!(topics("container", "start"), ["/tasks/create", "/tasks/start"]);
        assert_eq!(topics("container", "exec_start: ls -l"), ["/tasks/exec-started"]);
        assert_eq!(topics("container", "die"), ["/tasks/exit", "/tasks/delete"]);
        assert_eq!(topics("container", "attach"), [""; 0]);
        let exit = envelopes(&event("container", "exec_die", &[("execID", "e"), ("exitCode", "3")])).remove(0);
        let message = exit.event.unwrap();
        assert_eq!(message.type_url, "containerd.events.TaskExit");
        let exit = wire::TaskExit::decode(message.value.as_slice()).unwrap();
        assert_eq!((exit.id.as_str(), exit.exit_status, exit.pid), ("e", 3, 7));
    }
}
