//! What an envelope's fields hold, for filters: `topic==…`, `namespace==…`, `event.container_id==…`.

use berth_containerd_api::containerd::events as wire;
use berth_containerd_api::containerd::services::images::v1 as images;
use berth_containerd_api::containerd::types::Envelope;
use berth_core::filter::{Fields, map_field, text_field};
use prost::{Message, Name};

pub(crate) struct EnvelopeFields<'a>(pub(crate) &'a Envelope);

impl Fields for EnvelopeFields<'_> {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["namespace"] => text_field(&self.0.namespace),
            ["topic"] => text_field(&self.0.topic),
            ["event", rest @ ..] => event_field(self.0, rest),
            _ => None,
        }
    }
}

/// Decodes as this message if it is one, and looks the field up by name.
macro_rules! message_field {
    ($event:expr, $path:expr, $($package:ident::$message:ident { $($field:ident),* }),* $(,)?) => {
        $(if $event.type_url == $package::$message::full_name() {
            let message = $package::$message::decode($event.value.as_slice()).ok()?;
            return match $path {
                $([stringify!($field)] => text_field(&message.$field.to_string()),)*
                _ => None,
            };
        })*
    };
}

fn event_field(envelope: &Envelope, path: &[&str]) -> Option<String> {
    let event = envelope.event.as_ref()?;
    if let ["labels", key @ ..] = path {
        return label(event, key);
    }
    message_field!(
        event,
        path,
        wire::ContainerCreate { id, image },
        wire::ContainerUpdate { id, image, snapshot_key },
        wire::ContainerDelete { id },
        wire::ContentCreate { digest },
        wire::ContentDelete { digest },
        images::ImageCreate { name },
        images::ImageUpdate { name },
        images::ImageDelete { name },
        wire::NamespaceCreate { name },
        wire::NamespaceUpdate { name },
        wire::NamespaceDelete { name },
        wire::SandboxCreate { sandbox_id },
        wire::SandboxStart { sandbox_id },
        wire::SandboxExit { sandbox_id },
        wire::SnapshotPrepare { key, parent, snapshotter },
        wire::SnapshotCommit { key, name, snapshotter },
        wire::SnapshotRemove { key, snapshotter },
        wire::TaskCreate { container_id, bundle },
        wire::TaskStart { container_id },
        wire::TaskDelete { container_id, id },
        wire::TaskExit { container_id, id },
        wire::TaskOom { container_id },
        wire::TaskExecAdded { container_id, exec_id },
        wire::TaskExecStarted { container_id, exec_id },
        wire::TaskPaused { container_id },
        wire::TaskResumed { container_id },
        wire::TaskCheckpointed { container_id, checkpoint },
    );
    None
}

fn label(event: &prost_types::Any, key: &[&str]) -> Option<String> {
    let bytes = event.value.as_slice();
    let labels = match event.type_url.rsplit('.').next()? {
        "ImageCreate" => images::ImageCreate::decode(bytes).ok()?.labels,
        "ImageUpdate" => images::ImageUpdate::decode(bytes).ok()?.labels,
        "ContainerUpdate" => wire::ContainerUpdate::decode(bytes).ok()?.labels,
        "NamespaceCreate" => wire::NamespaceCreate::decode(bytes).ok()?.labels,
        "NamespaceUpdate" => wire::NamespaceUpdate::decode(bytes).ok()?.labels,
        _ => return None,
    };
    map_field(key, &labels)
}
