//! Snapshots that a collection removed are told as those that a client removed, as containerd does it.

use berth_containerd_api::containerd::events::SnapshotRemove;
use berth_core::Tenant;

use crate::Face;

impl Face {
    /// Tells for as long as it is polled.
    pub(crate) async fn tell_collected(self) {
        let (told, mut collected) = tokio::sync::mpsc::unbounded_channel();
        self.engine.image_store().tell_collected(Box::new(move |snapshot| drop(told.send(snapshot))));
        while let Some(snapshot) = collected.recv().await {
            let Ok(tenant) = snapshot.tenant.parse::<Tenant>() else { continue };
            let event = SnapshotRemove { key: snapshot.key, snapshotter: snapshot.snapshotter };
            self.publish(&tenant, "/snapshot/remove", &event, None);
        }
        // Another server on the same engine tells.
        std::future::pending().await
    }
}
