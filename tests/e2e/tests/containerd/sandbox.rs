//! The sandbox store and controller, with a shim of a third party that runs sandboxes: its binary is a script, and what it serves this test.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_containerd_api::containerd::services::containers::v1 as containers;
use berth_containerd_api::containerd::services::containers::v1::containers_client::ContainersClient;
use berth_containerd_api::containerd::services::sandbox::v1::controller_client::ControllerClient;
use berth_containerd_api::containerd::services::sandbox::v1::store_client::StoreClient;
use berth_containerd_api::containerd::services::sandbox::v1::*;
use berth_containerd_api::containerd::services::tasks::v1 as tasks;
use berth_containerd_api::containerd::services::tasks::v1::tasks_client::TasksClient;
use berth_containerd_api::containerd::types;
use berth_proto::sandbox as wire;
use berth_proto::task as shim;
use berth_proto::ttrpc;
use berth_testkit::{Instance, wait_until};
use prost_types::Any;
use tokio::sync::watch;
use tonic::Code;

use super::client::{Client, block_on};

/// What the sandbox has been asked, and when it ends.
#[derive(Clone)]
struct Toy {
    calls: Arc<std::sync::Mutex<Vec<String>>>,
    end: Arc<watch::Sender<bool>>,
}

impl Toy {
    fn note(&self, call: impl Into<String>) {
        self.calls.lock().unwrap().push(call.into());
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

type Context = ttrpc::r#async::TtrpcContext;

#[async_trait::async_trait]
impl wire::Sandbox for Toy {
    async fn create_sandbox(
        &self,
        _: &Context,
        request: wire::CreateSandboxRequest,
    ) -> ttrpc::Result<wire::CreateSandboxResponse> {
        let document = std::fs::read_to_string(Path::new(&request.bundle_path).join("config.json")).unwrap();
        self.note(format!("create {} {} {document}", request.sandbox_id, request.netns_path));
        Ok(wire::CreateSandboxResponse::default())
    }

    async fn start_sandbox(
        &self,
        _: &Context,
        _: wire::StartSandboxRequest,
    ) -> ttrpc::Result<wire::StartSandboxResponse> {
        self.note("start");
        Ok(wire::StartSandboxResponse { pid: 42, ..Default::default() })
    }

    async fn platform(&self, _: &Context, _: wire::PlatformRequest) -> ttrpc::Result<wire::PlatformResponse> {
        let platform =
            wire::Platform { os: "linux".to_owned(), architecture: "riscv64".to_owned(), ..Default::default() };
        let platform = berth_proto::protobuf::MessageField::some(platform);
        Ok(wire::PlatformResponse { platform, ..Default::default() })
    }

    async fn stop_sandbox(
        &self,
        _: &Context,
        request: wire::StopSandboxRequest,
    ) -> ttrpc::Result<wire::StopSandboxResponse> {
        self.note(format!("stop {}", request.timeout_secs));
        self.end.send_replace(true);
        Ok(wire::StopSandboxResponse::default())
    }

    async fn wait_sandbox(&self, _: &Context, _: wire::WaitSandboxRequest) -> ttrpc::Result<wire::WaitSandboxResponse> {
        self.end.subscribe().wait_for(|is_over| *is_over).await.unwrap();
        Ok(wire::WaitSandboxResponse { exit_status: 7, ..Default::default() })
    }

    async fn sandbox_status(
        &self,
        _: &Context,
        request: wire::SandboxStatusRequest,
    ) -> ttrpc::Result<wire::SandboxStatusResponse> {
        let state = if *self.end.borrow() { "SANDBOX_NOTREADY" } else { "SANDBOX_READY" };
        let info = request.verbose.then(|| ("more".to_owned(), "yes".to_owned()));
        Ok(wire::SandboxStatusResponse {
            sandbox_id: request.sandbox_id,
            pid: 42,
            state: state.to_owned(),
            info: info.into_iter().collect(),
            ..Default::default()
        })
    }

    async fn shutdown_sandbox(
        &self,
        _: &Context,
        _: wire::ShutdownSandboxRequest,
    ) -> ttrpc::Result<wire::ShutdownSandboxResponse> {
        self.note("shutdown");
        self.end.send_replace(true);
        Ok(wire::ShutdownSandboxResponse::default())
    }
}

#[async_trait::async_trait]
impl shim::Task for Toy {
    async fn create(&self, _: &Context, request: shim::CreateTaskRequest) -> ttrpc::Result<shim::CreateTaskResponse> {
        let image = Path::new(&request.checkpoint).join("pages");
        let image = std::fs::read_to_string(image).unwrap_or_default();
        self.note(format!("task {} {image}", request.id));
        Ok(shim::CreateTaskResponse { pid: 43, ..Default::default() })
    }

    async fn state(&self, _: &Context, request: shim::StateRequest) -> ttrpc::Result<shim::StateResponse> {
        Ok(shim::StateResponse { id: request.id, pid: 43, status: shim::Status::STOPPED.into(), ..Default::default() })
    }

    async fn wait(&self, _: &Context, _: shim::WaitRequest) -> ttrpc::Result<shim::WaitResponse> {
        std::future::pending().await
    }

    async fn delete(&self, _: &Context, request: shim::DeleteRequest) -> ttrpc::Result<shim::DeleteResponse> {
        self.note(format!("delete {}", request.id));
        Ok(shim::DeleteResponse { pid: 43, exit_status: 5, ..Default::default() })
    }

    async fn checkpoint(&self, _: &Context, request: shim::CheckpointTaskRequest) -> ttrpc::Result<shim::Empty> {
        std::fs::write(Path::new(&request.path).join("pages"), "saved").unwrap();
        Ok(shim::Empty::default())
    }

    async fn shutdown(&self, _: &Context, _: shim::ShutdownRequest) -> ttrpc::Result<shim::Empty> {
        self.note("shutdown of a task");
        Ok(shim::Empty::default())
    }
}

/// A directory with `containerd-shim-toy-v1`, which says that this process is it.
fn toy_binary(at: &Path) -> (PathBuf, PathBuf) {
    std::fs::create_dir_all(at).unwrap();
    let (binary, socket) = (at.join("containerd-shim-toy-v1"), at.join("toy.sock"));
    let script = format!(
        "#!/bin/sh\nfor word; do case $word in start) printf 'unix://{}';; esac; done\ncat >/dev/null\n",
        socket.display()
    );
    std::fs::write(&binary, script).unwrap();
    std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
    (at.to_owned(), socket)
}

async fn serve(socket: &Path) -> (Toy, ttrpc::r#async::Server) {
    let toy = Toy { calls: Arc::default(), end: Arc::new(watch::Sender::new(false)) };
    let sandbox: Arc<dyn wire::Sandbox + Send + Sync> = Arc::new(toy.clone());
    let task: Arc<dyn shim::Task + Send + Sync> = Arc::new(toy.clone());
    let server = ttrpc::r#async::Server::new().bind(&format!("unix://{}", socket.display())).unwrap();
    let mut server = server.register_service(wire::create_sandbox(sandbox)).register_service(shim::services(&task));
    server.start().await.unwrap();
    (toy, server)
}

fn record(id: &str, runtime: &str) -> types::Sandbox {
    types::Sandbox {
        sandbox_id: id.to_owned(),
        runtime: Some(types::sandbox::Runtime { name: runtime.to_owned(), options: None }),
        spec: Some(Any { type_url: "spec".to_owned(), value: b"{\"pod\":1}".to_vec() }),
        labels: [("tier".to_owned(), "front".to_owned())].into(),
        sandboxer: "shim".to_owned(),
        ..Default::default()
    }
}

fn test_root(name: &str) -> PathBuf {
    let root = std::env::var_os("BERTH_TEST_ROOT").map_or_else(std::env::temp_dir, PathBuf::from);
    root.join(format!("{name}-{}", std::process::id()))
}

/// S-112, S-140: a pod from record to shutdown by the calls of containerd's client, a container in it, a restart of the daemon in the middle;
/// events in order, each once.
#[test]
fn s140_sandbox_of_a_third_party() {
    let (directory, socket) = toy_binary(&test_root("toy"));
    let mut instance = Instance::start_on_path(&directory);
    block_on(async {
        let (toy, mut server) = serve(&socket).await;
        let client = Client::connect(&instance, "pods").await;
        let mut store = StoreClient::new(client.channel.clone());
        let pod = record("pod1", "io.containerd.toy.v1");
        let create = StoreCreateRequest { sandbox: Some(pod.clone()) };
        store.create(client.request(create.clone())).await.unwrap();
        assert_eq!(store.create(client.request(create)).await.unwrap_err().code(), Code::AlreadyExists);
        let mut changed = pod.clone();
        changed.labels.insert("tier".to_owned(), "back".to_owned());
        let update = StoreUpdateRequest { sandbox: Some(changed), fields: vec!["labels".to_owned()] };
        store.update(client.request(update)).await.unwrap();
        let list = StoreListRequest { filters: vec!["labels.tier==back".to_owned()] };
        assert_eq!(store.list(client.request(list)).await.unwrap().into_inner().list.len(), 1);

        let mut controller = ControllerClient::new(client.channel.clone());
        let id = || "pod1".to_owned();
        // containerd 1.7 names neither a controller nor the record.
        let create =
            ControllerCreateRequest { sandbox_id: id(), netns_path: "/run/netns/x".to_owned(), ..Default::default() };
        controller.create(client.request(create)).await.unwrap();
        let start = ControllerStartRequest { sandbox_id: id(), sandboxer: "shim".to_owned() };
        let started = controller.start(client.request(start)).await.unwrap().into_inner();
        assert_eq!((started.sandbox_id.as_str(), started.pid), ("pod1", 42));
        let platform = ControllerPlatformRequest { sandbox_id: id(), ..Default::default() };
        let platform = controller.platform(client.request(platform)).await.unwrap().into_inner().platform.unwrap();
        assert_eq!(platform.architecture, "riscv64");
        let metrics = ControllerMetricsRequest { sandbox_id: id(), ..Default::default() };
        // The toy has no such call: its own answer comes through.
        let metrics = controller.metrics(client.request(metrics)).await.unwrap_err();
        assert!(metrics.message().contains("Sandbox/SandboxMetrics is not supported"), "{metrics:?}");
        assert_eq!(toy.calls(), ["create pod1 /run/netns/x {\"pod\":1}", "start"]);

        a_container_in_it(&client, &toy).await;

        instance.kill_daemon();
        instance.spawn();
        let client = Client::connect(&instance, "pods").await;
        let mut controller = ControllerClient::new(client.channel.clone());
        let status = ControllerStatusRequest { sandbox_id: id(), verbose: true, ..Default::default() };
        let status = controller.status(client.request(status)).await.unwrap().into_inner();
        assert_eq!((status.state.as_str(), status.info["more"].as_str()), ("SANDBOX_READY", "yes"));
        let waiting = {
            let (mut controller, wait) =
                (controller.clone(), ControllerWaitRequest { sandbox_id: id(), ..Default::default() });
            let request = client.request(wait);
            tokio::spawn(async move { controller.wait(request).await.unwrap().into_inner().exit_status })
        };
        let stop = ControllerStopRequest { sandbox_id: id(), timeout_secs: 3, ..Default::default() };
        controller.stop(client.request(stop)).await.unwrap();
        assert_eq!(waiting.await.unwrap(), 7);
        let shutdown = ControllerShutdownRequest { sandbox_id: id(), ..Default::default() };
        controller.shutdown(client.request(shutdown.clone())).await.unwrap();
        assert_eq!(controller.shutdown(client.request(shutdown)).await.unwrap_err().code(), Code::NotFound);
        let mut store = StoreClient::new(client.channel.clone());
        store.delete(client.request(StoreDeleteRequest { sandbox_id: id() })).await.unwrap();
        let gone = store.get(client.request(StoreGetRequest { sandbox_id: id() })).await.unwrap_err();
        assert_eq!(gone.code(), Code::NotFound);
        assert_eq!(toy.calls()[6..], ["stop 3", "shutdown"]);
        let topics = client.topics().await;
        let of_pods: Vec<&String> = topics.iter().filter(|topic| topic.starts_with("/sandboxes/")).collect();
        assert_eq!(of_pods, ["/sandboxes/create", "/sandboxes/start", "/sandboxes/exit"]);
        server.shutdown().await.unwrap();
    });
    assert_eq!(std::fs::read_dir(instance.state().join("sandboxes/pods")).unwrap().count(), 0);
    drop(instance);
    std::fs::remove_dir_all(directory).unwrap();
}

/// Its task is the sandbox's shim's, and its end leaves the shim alone.
async fn a_container_in_it(client: &Client, toy: &Toy) {
    let container = containers::Container {
        id: "c1".to_owned(),
        runtime: Some(containers::container::Runtime { name: "io.containerd.toy.v1".to_owned(), options: None }),
        spec: Some(Any { type_url: "spec".to_owned(), value: b"{}".to_vec() }),
        sandbox: "pod1".to_owned(),
        ..Default::default()
    };
    let mut all = ContainersClient::new(client.channel.clone());
    let create = containers::CreateContainerRequest { container: Some(container) };
    all.create(client.request(create)).await.unwrap();
    let mut running = TasksClient::new(client.channel.clone());
    let create = tasks::CreateTaskRequest { container_id: "c1".to_owned(), ..Default::default() };
    assert_eq!(running.create(client.request(create)).await.unwrap().into_inner().pid, 43);
    // What the shim writes is content, and comes back to it when a task is made from it.
    let checkpoint = tasks::CheckpointTaskRequest { container_id: "c1".to_owned(), ..Default::default() };
    let saved = running.checkpoint(client.request(checkpoint)).await.unwrap().into_inner().descriptors;
    let kinds: Vec<&str> = saved.iter().map(|descriptor| descriptor.media_type.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "application/vnd.containerd.container.criu.checkpoint.criu.tar",
            "application/vnd.containerd.container.checkpoint.config.v1+proto"
        ]
    );
    let delete = tasks::DeleteTaskRequest { container_id: "c1".to_owned() };
    assert_eq!(running.delete(client.request(delete.clone())).await.unwrap().into_inner().exit_status, 5);
    let restore = tasks::CreateTaskRequest {
        container_id: "c1".to_owned(),
        checkpoint: saved.into_iter().next(),
        ..Default::default()
    };
    running.create(client.request(restore)).await.unwrap();
    running.delete(client.request(delete)).await.unwrap();
    all.delete(client.request(containers::DeleteContainerRequest { id: "c1".to_owned() })).await.unwrap();
    assert_eq!(toy.calls()[2..], ["task c1 ", "delete c1", "task c1 saved", "delete c1"]);
}

/// S-140: a runtime without a shim and a controller nobody has are refused, and nothing stays.
#[test]
fn sandbox_refusals() {
    let instance = Instance::start();
    block_on(async {
        let client = Client::connect(&instance, "pods").await;
        let mut controller = ControllerClient::new(client.channel.clone());
        let create = |runtime: &str, sandboxer: &str| ControllerCreateRequest {
            sandbox_id: "pod1".to_owned(),
            sandbox: Some(record("pod1", runtime)),
            sandboxer: sandboxer.to_owned(),
            ..Default::default()
        };
        let other =
            controller.create(client.request(create("io.containerd.berth.v1", "podsandbox"))).await.unwrap_err();
        assert_eq!(other.code(), Code::NotFound, "{other:?}");
        let missing = controller.create(client.request(create("io.containerd.kata.v2", ""))).await.unwrap_err();
        assert_eq!(missing.code(), Code::NotFound, "{missing:?}");
        assert!(missing.message().contains("containerd-shim-kata-v2"), "{missing:?}");
        let unknown = ControllerStartRequest { sandbox_id: "pod1".to_owned(), ..Default::default() };
        assert_eq!(controller.start(client.request(unknown)).await.unwrap_err().code(), Code::NotFound);
    });
    wait_until("nothing stays", || {
        let left = std::fs::read_dir(instance.state().join("sandboxes/pods")).map(Iterator::count).unwrap_or(0);
        (left == 0).then_some(())
    });
}
