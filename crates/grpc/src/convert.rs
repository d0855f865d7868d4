//! Between wire messages and core's records.

use berth_containerd_api::containerd::services::containers::v1 as wire;
use berth_containerd_api::containerd::services::images::v1 as images;
use berth_containerd_api::containerd::types;
use berth_core::objects::{AnyValue, ContainerObject, Descriptor, ImageName, RuntimeChoice, Sandbox};
use berth_types::Timestamp;
use prost_types::Any;

const NANOS_PER_SECOND: i64 = 1_000_000_000;

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
        runtime: Some(wire::container::Runtime {
            name: object.runtime.name,
            options: object.runtime.options.map(any),
        }),
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
        labels: message.labels,
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

pub(crate) fn descriptor(target: Descriptor) -> types::Descriptor {
    types::Descriptor {
        media_type: target.media_type,
        digest: target.digest,
        size: target.size,
        annotations: target.annotations,
    }
}

pub(crate) fn descriptor_from_wire(message: types::Descriptor) -> Descriptor {
    Descriptor {
        media_type: message.media_type,
        digest: message.digest,
        size: message.size,
        annotations: message.annotations,
    }
}

pub(crate) fn image(image: ImageName) -> images::Image {
    images::Image {
        name: image.name,
        labels: image.labels,
        target: Some(descriptor(image.target)),
        created_at: Some(instant(image.created_at)),
        updated_at: Some(instant(image.updated_at)),
    }
}

pub(crate) fn image_from_wire(message: images::Image) -> ImageName {
    ImageName {
        name: message.name,
        labels: message.labels,
        target: message.target.map(descriptor_from_wire).unwrap_or_default(),
        created_at: Timestamp::default(),
        updated_at: Timestamp::default(),
    }
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
