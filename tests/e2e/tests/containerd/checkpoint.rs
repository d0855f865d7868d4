//! Checkpoints that are refused. What a shim writes becoming content, and the way back, is in the test of a third party's shim.

use berth_containerd_api::containerd::services::tasks::v1::CheckpointTaskRequest;
use berth_containerd_api::containerd::services::tasks::v1::tasks_client::TasksClient;
use berth_testkit::Instance;
use tonic::Code;

use super::client::{Client, block_on};
use super::ctr_run;

/// A task that is not there, and a shim that cannot: refused by class, nothing stays.
#[test]
fn checkpoint_refusals() {
    let instance = Instance::with_busybox();
    ctr_run(&instance, &["-d", "--runtime", "io.containerd.berth.v1"], "web", &["sleep", "1000"]).ok();
    block_on(async {
        let client = Client::connect(&instance, "default").await;
        let mut tasks = TasksClient::new(client.channel.clone());
        let request = |id: &str| CheckpointTaskRequest { container_id: id.to_owned(), ..Default::default() };
        let missing = tasks.checkpoint(client.request(request("nobody"))).await.unwrap_err();
        assert_eq!(missing.code(), Code::NotFound, "{missing:?}");
        let refused = tasks.checkpoint(client.request(request("web"))).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{refused:?}");
    });
    assert!(!instance.state().join("checkpoints/default/web").exists());
    instance.berth(&["rm", "-f", "web"]).ok();
}
