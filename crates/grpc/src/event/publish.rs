//! Recording what a request of this face did.

use std::collections::BTreeMap;

use berth_core::Tenant;
use berth_core::events::{CONTAINERD_KIND, Envelope, Occurrence};
use berth_core::objects::AnyValue;
use prost::{Message, Name};

use crate::Face;

/// The same happening in Docker's words, for what its clients know, too.
#[derive(Debug, Clone, Default)]
pub(crate) struct Docker {
    pub(crate) kind: &'static str,
    pub(crate) action: &'static str,
    pub(crate) actor_id: String,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) pid: u32,
}

impl Docker {
    pub(crate) fn container(action: &'static str, id: &str, image: &str) -> Self {
        let attributes = [("image".to_owned(), image.to_owned()), ("name".to_owned(), id.to_owned())].into();
        Self { kind: "container", action, actor_id: id.to_owned(), attributes, pid: 0 }
    }

    pub(crate) fn image(action: &'static str, digest: &str, name: &str) -> Self {
        let attributes = [("name".to_owned(), name.to_owned())].into();
        Self { kind: "image", action, actor_id: digest.to_owned(), attributes, pid: 0 }
    }
}

impl Face {
    /// Numbers, keeps and delivers an event. Docker's clients see the tenant `default` alone.
    pub(crate) fn publish<M: Message + Name>(&self, tenant: &Tenant, topic: &str, message: &M, docker: Option<Docker>) {
        let event = AnyValue { type_url: M::full_name(), value: message.encode_to_vec() };
        let envelope = Envelope { namespace: tenant.to_string(), topic: topic.to_owned(), event };
        self.publish_envelope(envelope, docker.filter(|_| tenant.is_docker()));
    }

    pub(crate) fn publish_envelope(&self, envelope: Envelope, docker: Option<Docker>) {
        let docker = docker.unwrap_or_else(|| Docker {
            kind: CONTAINERD_KIND,
            action: "event",
            attributes: BTreeMap::new(),
            ..Docker::default()
        });
        self.engine.record_event(Occurrence {
            kind: docker.kind,
            action: docker.action.to_owned(),
            actor_id: docker.actor_id,
            attributes: docker.attributes,
            pid: docker.pid,
            envelope: Some(Box::new(envelope)),
        });
    }
}
