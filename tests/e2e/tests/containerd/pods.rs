//! Pods on our own shim, by the calls of containerd's client: a sandbox with namespaces of its own, containers in it, its end in every way.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Child, Command};

use berth_containerd_api::containerd::services::containers::v1 as containers;
use berth_containerd_api::containerd::services::containers::v1::containers_client::ContainersClient;
use berth_containerd_api::containerd::services::sandbox::v1::controller_client::ControllerClient;
use berth_containerd_api::containerd::services::sandbox::v1::*;
use berth_containerd_api::containerd::services::tasks::v1 as tasks;
use berth_containerd_api::containerd::services::tasks::v1::tasks_client::TasksClient;
use berth_containerd_api::containerd::types;
use berth_testkit::{Instance, wait_until};
use prost_types::Any;
use serde_json::{Value, json};
use tonic::Code;
use tonic::transport::Channel;

use super::cgroup;
use super::client::{Client, block_on};

const RUNTIME: &str = "io.containerd.berth.v1";

/// A network namespace that somebody else made.
struct Network(Child);

impl Network {
    fn new() -> Self {
        let child = Command::new("unshare").args(["--net", "sleep", "1000"]).spawn().unwrap();
        let network = Self(child);
        let own = inode("self", "net");
        wait_until("a network namespace", || (inode(&network.0.id().to_string(), "net") != own).then_some(()));
        network
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn inode(pid: &str, namespace: &str) -> u64 {
    std::fs::metadata(format!("/proc/{pid}/ns/{namespace}")).map(|found| found.ino()).unwrap_or_default()
}

/// Waits until SIGTERM is in this mask of the process.
fn has_its_trap(pid: u32, mask: &str) {
    wait_until("the trap is set", || {
        let bits = u64::from_str_radix(&status_field(pid, mask), 16).unwrap_or_default();
        (bits & 1 << 14 != 0).then_some(())
    });
}

fn status_field(pid: u32, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .unwrap_or_default()
        .trim_start_matches(':')
        .trim()
        .to_owned()
}

/// A daemon, a client of it, and a root file system with busybox.
struct Pods {
    instance: Instance,
    client: Client,
    root: PathBuf,
}

impl Pods {
    async fn start() -> Self {
        let instance = Instance::start();
        let root = instance.directory.join("root");
        for name in ["bin", "proc", "dev", "tmp"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        std::fs::copy(berth_testkit::peers::busybox(), root.join("bin/busybox")).unwrap();
        let client = Client::connect(&instance, "pods").await;
        Self { instance, client, root }
    }

    fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.client.channel.clone())
    }

    fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.client.channel.clone())
    }

    async fn create(&self, id: &str, document: Value, netns_path: &str) -> Result<(), tonic::Status> {
        let mut document = document;
        document["linux"]["cgroupsPath"] = json!(cgroup(&self.instance, id));
        let record = types::Sandbox {
            sandbox_id: id.to_owned(),
            runtime: Some(types::sandbox::Runtime { name: RUNTIME.to_owned(), options: None }),
            spec: Some(Any { type_url: "spec".to_owned(), value: document.to_string().into_bytes() }),
            ..Default::default()
        };
        let request = ControllerCreateRequest {
            sandbox_id: id.to_owned(),
            sandbox: Some(record),
            netns_path: netns_path.to_owned(),
            ..Default::default()
        };
        self.controller().create(self.client.request(request)).await.map(drop)
    }

    async fn start_pod(&self, id: &str) -> u32 {
        let request = ControllerStartRequest { sandbox_id: id.to_owned(), ..Default::default() };
        self.controller().start(self.client.request(request)).await.unwrap().into_inner().pid
    }

    async fn status(&self, id: &str) -> ControllerStatusResponse {
        let request = ControllerStatusRequest { sandbox_id: id.to_owned(), verbose: true, ..Default::default() };
        self.controller().status(self.client.request(request)).await.unwrap().into_inner()
    }

    async fn stop(&self, id: &str, timeout_secs: u32) {
        let request = ControllerStopRequest { sandbox_id: id.to_owned(), timeout_secs, ..Default::default() };
        self.controller().stop(self.client.request(request)).await.unwrap();
    }

    async fn shut_down(&self, id: &str) {
        let request = ControllerShutdownRequest { sandbox_id: id.to_owned(), ..Default::default() };
        self.controller().shutdown(self.client.request(request)).await.unwrap();
    }

    /// In the namespaces of the pod, as the CRI makes containers; its pid.
    async fn run(&self, pod: &str, pod_pid: u32, id: &str, script: &str) -> u32 {
        let joined = ["ipc", "uts", "net", "pid"].map(|name| {
            let kind = if name == "net" { "network" } else { name };
            json!({"type": kind, "path": format!("/proc/{pod_pid}/ns/{name}")})
        });
        let namespaces: Vec<Value> = joined.into_iter().chain([json!({"type": "mount"})]).collect();
        let document = json!({
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/bin/busybox", "sh", "-c", script], "env": ["PATH=/bin"]},
            "root": {"path": self.root},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {"namespaces": namespaces, "cgroupsPath": cgroup(&self.instance, id)},
        });
        let container = containers::Container {
            id: id.to_owned(),
            runtime: Some(containers::container::Runtime { name: RUNTIME.to_owned(), options: None }),
            spec: Some(Any { type_url: "spec".to_owned(), value: document.to_string().into_bytes() }),
            sandbox: pod.to_owned(),
            ..Default::default()
        };
        let create = containers::CreateContainerRequest { container: Some(container) };
        ContainersClient::new(self.client.channel.clone()).create(self.client.request(create)).await.unwrap();
        let create = tasks::CreateTaskRequest { container_id: id.to_owned(), ..Default::default() };
        let pid = self.tasks().create(self.client.request(create)).await.unwrap().into_inner().pid;
        let start = tasks::StartRequest { container_id: id.to_owned(), ..Default::default() };
        self.tasks().start(self.client.request(start)).await.unwrap();
        pid
    }

    async fn delete_task(&self, id: &str) -> u32 {
        let wait = tasks::WaitRequest { container_id: id.to_owned(), ..Default::default() };
        self.tasks().wait(self.client.request(wait)).await.unwrap();
        let delete = tasks::DeleteTaskRequest { container_id: id.to_owned() };
        self.tasks().delete(self.client.request(delete)).await.unwrap().into_inner().exit_status
    }

    fn nothing_stays(&self) {
        let left = |name: &str| {
            let entries = std::fs::read_dir(self.instance.state().join(name).join("pods")).into_iter().flatten();
            entries.flatten().map(|entry| entry.path()).collect::<Vec<_>>()
        };
        wait_until("nothing stays", || (left("sandboxes").is_empty() && left("shims").is_empty()).then_some(()));
    }
}

/// S-140, S-143: the life of a pod on our shim. Its process holds the namespaces and nothing else; containers join them on the same shim; the
/// daemon goes and comes; the pod ends last.
#[test]
fn s140_pod_on_our_shim() {
    let network = Network::new();
    block_on(async {
        let mut pods = Pods::start().await;
        pods.create("pod1", json!({"hostname": "web-0"}), &network.path()).await.unwrap();
        let waiting = pods.status("pod1").await;
        assert_eq!(waiting.state, "SANDBOX_NOTREADY");
        assert_eq!(pods.create("pod1", json!({}), "").await.unwrap_err().code(), Code::AlreadyExists);
        let pod = pods.start_pod("pod1").await;
        let pod_text = pod.to_string();
        assert_eq!(inode(&pod_text, "net"), std::fs::metadata(network.path()).unwrap().ino());
        for own in ["pid", "ipc", "uts", "mnt"] {
            assert_ne!(inode(&pod_text, own), inode("self", own), "{own}");
        }
        assert_eq!((status_field(pod, "Name"), status_field(pod, "CapEff")), ("pause".to_owned(), "0".repeat(16)));
        let platform = ControllerPlatformRequest { sandbox_id: "pod1".to_owned(), ..Default::default() };
        let platform = pods.controller().platform(pods.client.request(platform)).await.unwrap().into_inner();
        assert_eq!(platform.platform.unwrap().os, "linux");
        let metrics = ControllerMetricsRequest { sandbox_id: "pod1".to_owned(), ..Default::default() };
        let metrics = pods.controller().metrics(pods.client.request(metrics)).await.unwrap().into_inner();
        assert!(metrics.metrics.unwrap().data.unwrap().type_url.contains("io.containerd.cgroups."));

        let script = "test $(hostname) = web-0 && trap 'exit 3' TERM; (sleep 0 & ) ; while :; do sleep 0.1; done";
        let first = pods.run("pod1", pod, "c1", script).await;
        has_its_trap(first, "SigCgt");
        for shared in ["net", "ipc", "uts", "pid"] {
            assert_eq!(inode(&first.to_string(), shared), inode(&pod_text, shared), "{shared}");
        }
        assert_eq!(status_field(first, "PPid"), status_field(pod, "PPid"), "one shim for both");

        pods.instance.kill_daemon();
        pods.instance.spawn();
        pods.client = Client::connect(&pods.instance, "pods").await;
        let status = pods.status("pod1").await;
        assert_eq!((status.state.as_str(), status.pid), ("SANDBOX_READY", pod));
        let info: Value = serde_json::from_str(&status.info["info"]).unwrap();
        assert_eq!((&info["pid"], &info["runtimeSpec"]["hostname"]), (&json!(pod), &json!("web-0")));

        let kill = tasks::KillRequest { container_id: "c1".to_owned(), signal: 15, ..Default::default() };
        pods.tasks().kill(pods.client.request(kill)).await.unwrap();
        assert_eq!(pods.delete_task("c1").await, 3);
        assert_eq!(pods.status("pod1").await.state, "SANDBOX_READY", "the shim outlives the pod's containers");

        let second = pods.run("pod1", pod, "c2", "trap 'exit 4' TERM; while :; do sleep 0.1; done").await;
        let third = pods.run("pod1", pod, "c3", "trap '' TERM; while :; do sleep 0.1; done").await;
        has_its_trap(second, "SigCgt");
        has_its_trap(third, "SigIgn");
        pods.stop("pod1", 1).await;
        assert_eq!((pods.delete_task("c2").await, pods.delete_task("c3").await), (4, 137));
        assert_eq!(pods.status("pod1").await.state, "SANDBOX_NOTREADY");
        let wait = ControllerWaitRequest { sandbox_id: "pod1".to_owned(), ..Default::default() };
        assert_eq!(pods.controller().wait(pods.client.request(wait)).await.unwrap().into_inner().exit_status, 137);
        pods.shut_down("pod1").await;
        pods.nothing_stays();
        let events = pods.client.topics().await;
        let of_pods: Vec<&String> = events.iter().filter(|topic| topic.starts_with("/sandboxes/")).collect();
        assert_eq!(of_pods, ["/sandboxes/create", "/sandboxes/start", "/sandboxes/exit"]);
        assert_eq!(events.iter().filter(|topic| *topic == "/tasks/start").count(), 3, "{events:?}");
    });
}

/// S-140: a pod that is shut down with all that runs in it, one whose shim is killed, one whose own process dies, and one that cannot be made:
/// nothing of any stays.
#[test]
fn s140_pods_end_in_every_way() {
    block_on(async {
        let pods = Pods::start().await;
        let forever = "while :; do sleep 1; done";
        pods.create("full", json!({}), "").await.unwrap();
        let pod = pods.start_pod("full").await;
        let inner = pods.run("full", pod, "c1", forever).await;
        pods.shut_down("full").await;
        assert_eq!(inode(&inner.to_string(), "pid"), 0, "the container has ended");
        let delete = tasks::DeleteTaskRequest { container_id: "c1".to_owned() };
        assert_eq!(pods.tasks().delete(pods.client.request(delete)).await.unwrap().into_inner().exit_status, 137);

        pods.create("orphan", json!({}), "").await.unwrap();
        let pod = pods.start_pod("orphan").await;
        let inner = pods.run("orphan", pod, "c2", forever).await;
        let shim = status_field(pod, "PPid");
        Command::new("kill").args(["-9", &shim]).status().unwrap();
        let wait = ControllerWaitRequest { sandbox_id: "orphan".to_owned(), ..Default::default() };
        assert_eq!(pods.controller().wait(pods.client.request(wait)).await.unwrap().into_inner().exit_status, 137);
        wait_until("the container ends", || (inode(&inner.to_string(), "pid") == 0).then_some(()));
        pods.shut_down("orphan").await;

        pods.create("headless", json!({}), "").await.unwrap();
        let pod = pods.start_pod("headless").await;
        Command::new("kill").args(["-9", &pod.to_string()]).status().unwrap();
        let wait = ControllerWaitRequest { sandbox_id: "headless".to_owned(), ..Default::default() };
        assert_eq!(pods.controller().wait(pods.client.request(wait)).await.unwrap().into_inner().exit_status, 137);
        pods.shut_down("headless").await;

        let refused = pods.create("none", json!({}), "/proc/1/ns/none").await.unwrap_err();
        assert!(refused.message().contains("/proc/1/ns/none"), "{refused:?}");
        let refused =
            pods.create("none", json!({"process": {"args": ["/nothing"], "cwd": "/"}}), "").await.unwrap_err();
        assert!(!refused.message().is_empty());
        pods.nothing_stays();
    });
}
