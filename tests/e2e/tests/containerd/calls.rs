//! Calls of containerd's API for which its command line has no verb.

use berth_containerd_api::containerd::services::containers::v1::ListContainersRequest;
use berth_containerd_api::containerd::services::containers::v1::containers_client::ContainersClient;
use berth_containerd_api::containerd::services::content::v1::content_client::ContentClient;
use berth_containerd_api::containerd::services::content::v1::{
    AbortRequest, ListStatusesRequest, StatusRequest, WriteAction, WriteContentRequest,
};
use berth_containerd_api::containerd::services::introspection::v1::PluginInfoRequest;
use berth_containerd_api::containerd::services::introspection::v1::introspection_client::IntrospectionClient;
use berth_containerd_api::containerd::services::leases::v1::leases_client::LeasesClient;
use berth_containerd_api::containerd::services::leases::v1::{
    AddResourceRequest, CreateRequest, DeleteResourceRequest, ListResourcesRequest, Resource,
};
use berth_containerd_api::containerd::services::mounts::v1 as mounts;
use berth_containerd_api::containerd::services::mounts::v1::mounts_client::MountsClient;
use berth_containerd_api::containerd::services::sandbox::v1::ControllerUpdateRequest;
use berth_containerd_api::containerd::services::sandbox::v1::controller_client::ControllerClient;
use berth_containerd_api::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use berth_containerd_api::containerd::services::snapshots::v1::{
    CleanupRequest, Info as SnapshotInfo, PrepareSnapshotRequest, RemoveSnapshotRequest, UpdateSnapshotRequest,
};
use berth_containerd_api::containerd::services::tasks::v1::tasks_client::TasksClient;
use berth_containerd_api::containerd::services::tasks::v1::{
    ExecProcessRequest, ResizePtyRequest, StartRequest, UpdateTaskRequest, WaitRequest,
};
use berth_containerd_api::containerd::types::Sandbox;
use berth_testkit::Instance;
use prost_types::{Any, FieldMask};
use tonic::Code;

use super::client::{Client, block_on};
use super::ctr_run;
use super::tasks::task;

const TENANT: &str = "default";

/// S-114: an ingest under way is seen under its reference, with what came of it, and can be given up.
#[test]
fn s114_ingests() {
    let instance = Instance::start();
    block_on(async {
        let client = Client::connect(&instance, TENANT).await;
        let mut content = ContentClient::new(client.channel.clone());
        let piece = |reference: &str| WriteContentRequest {
            action: WriteAction::Write.into(),
            r#ref: reference.to_owned(),
            total: 10,
            data: b"12345".to_vec(),
            ..Default::default()
        };
        for reference in ["one", "two"] {
            let request = client.request(tokio_stream::iter([piece(reference)]));
            let mut answers = content.write(request).await.unwrap().into_inner();
            assert_eq!(answers.message().await.unwrap().unwrap().offset, 5);
            assert!(answers.message().await.unwrap().is_none());
        }
        let status = content.status(client.request(StatusRequest { r#ref: "one".to_owned() })).await.unwrap();
        let status = status.into_inner().status.unwrap();
        assert_eq!((status.r#ref.as_str(), status.offset, status.total), ("one", 5, 10));
        let listed = async |filters: &[&str]| {
            let filters = filters.iter().map(|&filter| filter.to_owned()).collect();
            let mut content = ContentClient::new(client.channel.clone());
            let found = content.list_statuses(client.request(ListStatusesRequest { filters })).await.unwrap();
            found.into_inner().statuses.into_iter().map(|status| status.r#ref).collect::<Vec<_>>()
        };
        assert_eq!(listed(&["ref==two"]).await, ["two"]);
        assert_eq!(listed(&[]).await.len(), 2);
        content.abort(client.request(AbortRequest { r#ref: "one".to_owned() })).await.unwrap();
        assert_eq!(listed(&[]).await, ["two"]);
        let again = content.abort(client.request(AbortRequest { r#ref: "one".to_owned() })).await.unwrap_err();
        assert_eq!(again.code(), Code::NotFound, "{again:?}");
        content.abort(client.request(AbortRequest { r#ref: "two".to_owned() })).await.unwrap();
    });
}

/// S-114: what a lease holds can be added, listed and let go of one by one.
#[test]
fn s114_resources_of_leases() {
    let instance = Instance::start();
    block_on(async {
        let client = Client::connect(&instance, TENANT).await;
        let mut leases = LeasesClient::new(client.channel.clone());
        let id = || "l".to_owned();
        leases.create(client.request(CreateRequest { id: id(), labels: [].into() })).await.unwrap();
        let resource = |kind: &str, id: &str| Some(Resource { id: id.to_owned(), r#type: kind.to_owned() });
        let digest = format!("sha256:{}", "0".repeat(64));
        for held in [resource("content", &digest), resource("snapshots/overlayfs", "s")] {
            leases.add_resource(client.request(AddResourceRequest { id: id(), resource: held })).await.unwrap();
        }
        let cattle = AddResourceRequest { id: id(), resource: resource("cattle", "x") };
        let refused = leases.add_resource(client.request(cattle)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        let gone = DeleteResourceRequest { id: id(), resource: resource("content", &digest) };
        leases.delete_resource(client.request(gone)).await.unwrap();
        let left = leases.list_resources(client.request(ListResourcesRequest { id: id() })).await.unwrap();
        assert_eq!(left.into_inner().resources, [resource("snapshots/overlayfs", "s").unwrap()]);
        let other = ListResourcesRequest { id: "other".to_owned() };
        assert_eq!(leases.list_resources(client.request(other)).await.unwrap_err().code(), Code::NotFound);
    });
}

/// S-112: a plugin by its name; mounts that need no manager; a sandbox nobody has; containers one by one.
#[test]
fn s112_lookups() {
    let instance = Instance::with_busybox();
    ctr_run(&instance, &["-d"], "web", &["sleep", "1000"]).ok();
    block_on(async {
        let client = Client::connect(&instance, TENANT).await;
        let mut introspection = IntrospectionClient::new(client.channel.clone());
        let named = |id: &str| PluginInfoRequest {
            r#type: "io.containerd.snapshotter.v1".to_owned(),
            id: id.to_owned(),
            options: None,
        };
        let found = introspection.plugin_info(named("overlayfs")).await.unwrap().into_inner().plugin.unwrap();
        assert!(found.exports["root"].starts_with(instance.root().to_str().unwrap()), "{found:?}");
        assert_eq!(introspection.plugin_info(named("zfs")).await.unwrap_err().code(), Code::NotFound);

        let mut manager = MountsClient::new(client.channel.clone());
        let name = || "m".to_owned();
        let activated = mounts::ActivateRequest { name: name(), ..Default::default() };
        assert_eq!(manager.activate(client.request(activated)).await.unwrap_err().code(), Code::Unimplemented);
        let gone = mounts::DeactivateRequest { name: name() };
        assert_eq!(manager.deactivate(client.request(gone)).await.unwrap_err().code(), Code::NotFound);
        let info = mounts::InfoRequest { name: name() };
        assert_eq!(manager.info(client.request(info)).await.unwrap_err().code(), Code::NotFound);
        let update = mounts::UpdateRequest::default();
        assert_eq!(manager.update(client.request(update)).await.unwrap_err().code(), Code::NotFound);
        let mut listed = manager.list(client.request(mounts::ListRequest::default())).await.unwrap().into_inner();
        assert!(listed.message().await.unwrap().is_none());

        let mut controller = ControllerClient::new(client.channel.clone());
        let update = |sandbox| ControllerUpdateRequest { sandbox_id: "pod".to_owned(), sandbox, ..Default::default() };
        let nothing = controller.update(client.request(update(None))).await.unwrap_err();
        assert_eq!(nothing.code(), Code::InvalidArgument, "{nothing:?}");
        let unknown = controller.update(client.request(update(Some(Sandbox::default())))).await.unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound, "{unknown:?}");

        let mut containers = ContainersClient::new(client.channel.clone());
        let request = ListContainersRequest { filters: vec!["id==web".to_owned()] };
        let mut stream = containers.list_stream(client.request(request)).await.unwrap().into_inner();
        assert_eq!(stream.message().await.unwrap().unwrap().container.unwrap().id, "web");
        assert!(stream.message().await.unwrap().is_none());
    });
    instance.berth(&["rm", "-f", "web"]).ok();
}

/// S-115: labels of a snapshot change by field, and what removed ones held is given back on demand.
#[test]
fn s115_labels_and_cleanup() {
    let instance = Instance::start();
    block_on(async {
        let client = Client::connect(&instance, TENANT).await;
        let mut snapshots = SnapshotsClient::new(client.channel.clone());
        let snapshotter = || "overlayfs".to_owned();
        let root = ("containerd.io/gc.root".to_owned(), "now".to_owned());
        let made = PrepareSnapshotRequest {
            snapshotter: snapshotter(),
            key: "mine".to_owned(),
            labels: [root.clone()].into(),
            ..Default::default()
        };
        snapshots.prepare(client.request(made)).await.unwrap();
        let change = |path: &str| UpdateSnapshotRequest {
            snapshotter: snapshotter(),
            info: Some(SnapshotInfo {
                name: "mine".to_owned(),
                labels: [("x".to_owned(), "1".to_owned())].into(),
                ..Default::default()
            }),
            update_mask: Some(FieldMask { paths: vec![path.to_owned()] }),
        };
        let changed = snapshots.update(client.request(change("labels.x"))).await.unwrap().into_inner().info.unwrap();
        assert_eq!(changed.labels, [root, ("x".to_owned(), "1".to_owned())].into());
        let fixed = snapshots.update(client.request(change("parent"))).await.unwrap_err();
        assert_eq!(fixed.code(), Code::InvalidArgument, "{fixed:?}");
        let gone = RemoveSnapshotRequest { snapshotter: snapshotter(), key: "mine".to_owned() };
        snapshots.remove(client.request(gone)).await.unwrap();
        snapshots.cleanup(client.request(CleanupRequest { snapshotter: snapshotter() })).await.unwrap();
        let other = snapshots.cleanup(client.request(CleanupRequest { snapshotter: "zfs".to_owned() })).await;
        assert_eq!(other.unwrap_err().code(), Code::InvalidArgument);
    });
}

/// S-110: the size of a process's terminal and a task's limits change while they run.
#[test]
fn s110_resize_and_update() {
    let instance = Instance::with_busybox();
    ctr_run(&instance, &["-d"], "web", &["sleep", "1000"]).ok();
    let (pid, _) = task(&instance, "web").unwrap();
    block_on(async {
        let client = Client::connect(&instance, TENANT).await;
        let mut tasks = TasksClient::new(client.channel.clone());
        let (container_id, exec_id) = ("web".to_owned(), "term".to_owned());
        let script = r#"until [ "$(stty size)" = "33 77" ]; do sleep 0.05; done; exit 7"#;
        let process = serde_json::json!({
            "terminal": true, "user": {}, "cwd": "/", "args": ["sh", "-c", script], "env": ["PATH=/bin"],
        });
        let spec = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned(),
            value: process.to_string().into_bytes(),
        };
        let exec = ExecProcessRequest {
            container_id: container_id.clone(),
            exec_id: exec_id.clone(),
            terminal: true,
            spec: Some(spec),
            ..Default::default()
        };
        tasks.exec(client.request(exec)).await.unwrap();
        let start = StartRequest { container_id: container_id.clone(), exec_id: exec_id.clone() };
        tasks.start(client.request(start)).await.unwrap();
        let size = |width| ResizePtyRequest {
            container_id: container_id.clone(),
            exec_id: exec_id.clone(),
            width,
            height: 33,
        };
        let wide = tasks.resize_pty(client.request(size(70_000))).await.unwrap_err();
        assert_eq!(wide.code(), Code::InvalidArgument, "{wide:?}");
        tasks.resize_pty(client.request(size(77))).await.unwrap();
        let wait = WaitRequest { container_id: container_id.clone(), exec_id: exec_id.clone() };
        assert_eq!(tasks.wait(client.request(wait)).await.unwrap().into_inner().exit_status, 7);

        let limits = |value: &str| UpdateTaskRequest {
            container_id: container_id.clone(),
            resources: Some(Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".to_owned(),
                value: value.as_bytes().to_vec(),
            }),
            ..Default::default()
        };
        tasks.update(client.request(limits(r#"{"pids":{"limit":123}}"#))).await.unwrap();
        let wrong = tasks.update(client.request(limits("{"))).await.unwrap_err();
        assert_eq!(wrong.code(), Code::InvalidArgument, "{wrong:?}");
    });
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let of = |controller: &str| {
        let line = groups.lines().find(|line| line.split(':').nth(1).unwrap() == controller)?;
        line.splitn(3, ':').nth(2).map(str::to_owned)
    };
    let (controller, group) = of("pids").map_or_else(|| ("", of("").unwrap()), |group| ("pids", group));
    let file = format!("/sys/fs/cgroup/{controller}/{}/pids.max", group.trim_start_matches('/'));
    assert_eq!(std::fs::read_to_string(file).unwrap().trim(), "123");
    instance.berth(&["rm", "-f", "web"]).ok();
}
