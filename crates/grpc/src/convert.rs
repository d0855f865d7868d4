//! Between wire messages and core's records.

use berth_containerd_api::containerd::services::containers::v1 as wire;
use berth_containerd_api::containerd::services::images::v1 as images;
use berth_containerd_api::containerd::types;
use berth_core::objects::{AnyValue, ContainerObject, RuntimeChoice, Sandbox};
use berth_image::tenant::{NamedImage, Target};
use berth_snapshot::Mount;
use berth_types::{Digest, Labels, Timestamp};
use prost_types::Any;
use tonic::Status;

use crate::status::IntoStatus as _;

const NANOS_PER_SECOND: i64 = 1_000_000_000;
/// Go's zero time, 0001-01-01T00:00:00Z: how containerd says that something has not happened.
pub(crate) const NEVER: prost_types::Timestamp = prost_types::Timestamp { seconds: -62_135_596_800, nanos: 0 };

pub(crate) fn instant(at: Timestamp) -> prost_types::Timestamp {
    let nanos = i32::try_from(at.0.rem_euclid(NANOS_PER_SECOND)).unwrap_or_default();
    prost_types::Timestamp { seconds: at.unix_seconds(), nanos }
}

/// An instant out of range is the Unix epoch.
pub(crate) fn instant_from_wire(at: &prost_types::Timestamp) -> Timestamp {
    let nanos = at.seconds.checked_mul(NANOS_PER_SECOND).and_then(|n| n.checked_add(i64::from(at.nanos)));
    Timestamp(nanos.unwrap_or_default())
}

pub(crate) fn any(value: AnyValue) -> Any {
    Any { type_url: value.type_url, value: value.value }
}

pub(crate) fn any_from_wire(value: Any) -> AnyValue {
    AnyValue { type_url: value.type_url, value: value.value }
}

pub(crate) fn container(object: ContainerObject) -> wire::Container {
    wire::Container {
        id: object.id,
        labels: object.labels,
        image: object.image,
        runtime: Some(wire::container::Runtime { name: object.runtime.name, options: object.runtime.options.map(any) }),
        spec: object.spec.map(any),
        snapshotter: object.snapshotter,
        snapshot_key: object.snapshot_key,
        created_at: Some(instant(object.created_at)),
        updated_at: Some(instant(object.updated_at)),
        extensions: object.extensions.into_iter().map(|(key, value)| (key, any(value))).collect(),
        sandbox: object.sandbox,
    }
}

pub(crate) fn container_from_wire(message: wire::Container) -> ContainerObject {
    let runtime = message.runtime.unwrap_or_default();
    ContainerObject {
        id: message.id,
        labels: stored_labels(message.labels),
        image: message.image,
        runtime: RuntimeChoice { name: runtime.name, options: runtime.options.map(any_from_wire) },
        spec: message.spec.map(any_from_wire),
        snapshotter: message.snapshotter,
        snapshot_key: message.snapshot_key,
        created_at: Timestamp::default(),
        updated_at: Timestamp::default(),
        extensions: message.extensions.into_iter().map(|(key, value)| (key, any_from_wire(value))).collect(),
        sandbox: message.sandbox,
    }
}

/// containerd stores no label without a value.
fn stored_labels(mut labels: Labels) -> Labels {
    labels.retain(|_, value| !value.is_empty());
    labels
}

/// # Errors
/// `InvalidArgument` for what is no digest.
pub(crate) fn digest(text: &str) -> Result<Digest, Status> {
    text.parse::<Digest>().map_err(|error| error.into_status())
}

pub(crate) fn descriptor(target: Target) -> types::Descriptor {
    types::Descriptor {
        media_type: target.media_type,
        digest: target.digest.to_string(),
        size: signed(target.size_bytes),
        annotations: target.annotations,
    }
}

/// # Errors
/// `InvalidArgument` when it points at nothing.
pub(crate) fn target(message: types::Descriptor) -> Result<Target, Status> {
    let invalid = || Status::invalid_argument("a target needs a media type and a positive size");
    let size_bytes = u64::try_from(message.size).ok().filter(|size| *size > 0).ok_or_else(invalid)?;
    if message.media_type.is_empty() {
        return Err(invalid());
    }
    let digest = digest(&message.digest)?;
    Ok(Target { media_type: message.media_type, digest, size_bytes, annotations: message.annotations })
}

pub(crate) fn image(image: NamedImage) -> images::Image {
    images::Image {
        name: image.name,
        labels: image.labels,
        target: Some(descriptor(image.target)),
        created_at: Some(instant(image.created)),
        updated_at: Some(instant(image.updated)),
    }
}

pub(crate) fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

pub(crate) fn mount(mount: Mount) -> types::Mount {
    types::Mount { r#type: mount.kind, source: mount.source, target: String::new(), options: mount.options }
}

pub(crate) fn mount_from_wire(message: types::Mount) -> Mount {
    Mount { kind: message.r#type, source: message.source, options: message.options }
}

pub(crate) fn sandbox(sandbox: Sandbox) -> types::Sandbox {
    types::Sandbox {
        sandbox_id: sandbox.id,
        runtime: Some(types::sandbox::Runtime {
            name: sandbox.runtime.name,
            options: sandbox.runtime.options.map(any),
        }),
        spec: sandbox.spec.map(any),
        labels: sandbox.labels,
        created_at: Some(instant(sandbox.created_at)),
        updated_at: Some(instant(sandbox.updated_at)),
        extensions: sandbox.extensions.into_iter().map(|(key, value)| (key, any(value))).collect(),
        sandboxer: sandbox.sandboxer,
    }
}

pub(crate) fn sandbox_from_wire(message: types::Sandbox) -> Sandbox {
    let runtime = message.runtime.unwrap_or_default();
    let stamp = |at: Option<prost_types::Timestamp>| at.as_ref().map(instant_from_wire).unwrap_or_default();
    Sandbox {
        id: message.sandbox_id,
        runtime: RuntimeChoice { name: runtime.name, options: runtime.options.map(any_from_wire) },
        spec: message.spec.map(any_from_wire),
        labels: message.labels,
        created_at: stamp(message.created_at),
        updated_at: stamp(message.updated_at),
        extensions: message.extensions.into_iter().map(|(key, value)| (key, any_from_wire(value))).collect(),
        sandboxer: message.sandboxer,
    }
}
