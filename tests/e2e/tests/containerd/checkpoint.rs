//! Checkpoints by our own shim, where criu works, and what is refused. The way back is in the test of a third party's shim.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use berth_containerd_api::containerd::runc::v1::CheckpointOptions;
use berth_containerd_api::containerd::services::tasks::v1::tasks_client::TasksClient;
use berth_containerd_api::containerd::services::tasks::v1::{CheckpointTaskRequest, WaitRequest};
use berth_testkit::{Image, Instance};
use tonic::Code;

use super::client::{Client, block_on, pack};
use super::ctr_run;

const OWN: [&str; 3] = ["-d", "--runtime", "io.containerd.berth.v1"];

/// The directory of criu; none where it was not fetched or cannot work on this kernel.
fn criu() -> Option<PathBuf> {
    let program = std::env::var_os("BERTH_PEERS")
        .map_or_else(|| berth_testkit::peers::workspace().join("target/peers"), PathBuf::from)
        .join("trixie/usr/sbin/criu");
    if !program.exists() {
        println!("does not apply: criu was not fetched (tests/fetch-criu.sh)");
        return None;
    }
    let check = Command::new(&program).arg("check").stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    if !check.success() {
        println!("does not apply: criu check says that it cannot work here");
        return None;
    }
    program.parent().map(PathBuf::from)
}

/// A task that is not there, and a host without criu: refused by class, nothing stays.
#[test]
fn checkpoint_refusals() {
    let instance = Instance::with_busybox();
    ctr_run(&instance, &OWN, "web", &["sleep", "1000"]).ok();
    block_on(async {
        let client = Client::connect(&instance, "default").await;
        let mut tasks = TasksClient::new(client.channel.clone());
        let request = |id: &str| CheckpointTaskRequest { container_id: id.to_owned(), ..Default::default() };
        let missing = tasks.checkpoint(client.request(request("nobody"))).await.unwrap_err();
        assert_eq!(missing.code(), Code::NotFound, "{missing:?}");
        let refused = tasks.checkpoint(client.request(request("web"))).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{refused:?}");
        assert!(refused.message().contains("no criu in /"), "{refused:?}");
        let options = CheckpointOptions { empty_namespaces: vec!["network".to_owned()], ..Default::default() };
        let request = CheckpointTaskRequest { options: Some(pack(&options)), ..request("web") };
        let refused = tasks.checkpoint(client.request(request)).await.unwrap_err();
        assert!(refused.message().contains("empty namespaces"), "{refused:?}");
    });
    assert!(!instance.state().join("checkpoints/default/web").exists());
    instance.berth(&["rm", "-f", "web"]).ok();
}

/// S-112: a running task is saved twice at once, each into content of its own, and goes on; then it is saved and ends.
#[test]
fn s112_checkpoints_of_our_own_shim() {
    let Some(directory) = criu() else { return };
    let instance = Instance::start_on_path(&directory);
    instance.load(&Image::busybox().docker_archive()).ok();
    ctr_run(&instance, &OWN, "web", &["sh", "-c", "while :; do sleep 0.1; done"]).ok();
    block_on(async {
        let client = Client::connect(&instance, "default").await;
        let tasks = || TasksClient::new(client.channel.clone());
        let save = |options: CheckpointOptions| CheckpointTaskRequest {
            container_id: "web".to_owned(),
            options: Some(pack(&options)),
            ..Default::default()
        };
        let (mut first, mut second) = (tasks(), tasks());
        let (first, second) = tokio::join!(
            first.checkpoint(client.request(save(CheckpointOptions::default()))),
            second.checkpoint(client.request(save(CheckpointOptions::default())))
        );
        let images = |answer: Result<tonic::Response<_>, tonic::Status>| {
            let descriptors: berth_containerd_api::containerd::services::tasks::v1::CheckpointTaskResponse =
                answer.unwrap().into_inner();
            descriptors.descriptors.into_iter().next().unwrap()
        };
        let (first, second) = (images(first), images(second));
        assert!(first.size > 10_000 && second.size > 10_000, "{first:?} {second:?}");
        for image in [&first, &second] {
            let archive = instance.ctr(&["content", "get", &image.digest]).ok().len();
            assert!(archive > 0);
        }
        assert!(instance.ctr(&["tasks", "ls"]).ok().contains("RUNNING"));
        let saved =
            tasks().checkpoint(client.request(save(CheckpointOptions { exit: true, ..Default::default() }))).await;
        assert!(images(saved).size > 10_000);
        let wait = WaitRequest { container_id: "web".to_owned(), ..Default::default() };
        assert_eq!(tasks().wait(client.request(wait)).await.unwrap().into_inner().exit_status, 137);
    });
    assert!(!instance.state().join("checkpoints/default/web").exists());
    instance.berth(&["rm", "-f", "web"]).ok();
}
