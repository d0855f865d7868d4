//! Checkpoints by our own shim and the way back, where criu works, and what is refused.

use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use berth_containerd_api::containerd::runc::v1::{CheckpointOptions, Options as RuncOptions};
use berth_containerd_api::containerd::services::containers::v1::GetContainerRequest;
use berth_containerd_api::containerd::services::containers::v1::containers_client::ContainersClient;
use berth_containerd_api::containerd::services::snapshots::v1::MountsRequest;
use berth_containerd_api::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use berth_containerd_api::containerd::services::tasks::v1::tasks_client::TasksClient;
use berth_containerd_api::containerd::services::tasks::v1::{
    CheckpointTaskRequest, CreateTaskRequest, DeleteTaskRequest, GetRequest, KillRequest, StartRequest, WaitRequest,
};
use berth_containerd_api::containerd::types::Descriptor;
use berth_containerd_api::containerd::v1::types::{Process, Status};
use berth_testkit::instance::test_root;
use berth_testkit::{Image, Instance, wait_until};
use tonic::transport::Channel;
use tonic::{Code, Response};

use super::client::{Client, block_on, pack};
use super::ctr_run;

const OWN: [&str; 3] = ["-d", "--runtime", "io.containerd.berth.v1"];

/// The directory of criu; none where it was not fetched or cannot work on this kernel.
pub(super) fn criu() -> Option<PathBuf> {
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
        // Whatever is in it: what could restore it is not here.
        let layer = instance.berth(&["image", "inspect", "busybox", "--format", "{{index .RootFS.Layers 0}}"]);
        let layer = layer.ok().to_owned();
        let media_type = "application/vnd.containerd.container.criu.checkpoint.criu.tar".to_owned();
        let checkpoint = Some(Descriptor { media_type, digest: layer, ..Default::default() });
        let task = Task { client: &client, id: "web" };
        task.kill(9).await.unwrap();
        assert_eq!((task.wait().await, task.delete().await), (137, 137));
        let refused = task.create(CreateTaskRequest { checkpoint, ..Default::default() }).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{refused:?}");
        assert!(refused.message().contains("no criu in /"), "{refused:?}");
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

/// The calls of a checkpoint's way there and back, about one task.
pub(super) struct Task<'a> {
    pub(super) client: &'a Client,
    pub(super) id: &'a str,
}

impl Task<'_> {
    fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.client.channel.clone())
    }

    /// The task ends by it and is deleted.
    pub(super) async fn save(&self) -> Descriptor {
        let options = CheckpointOptions { exit: true, ..Default::default() };
        let container_id = self.id.to_owned();
        let save = CheckpointTaskRequest { container_id, options: Some(pack(&options)), ..Default::default() };
        let saved = self.tasks().checkpoint(self.client.request(save)).await.unwrap().into_inner();
        assert_eq!(self.wait().await, 137);
        self.delete().await;
        saved.descriptors.into_iter().next().unwrap()
    }

    pub(super) async fn create(&self, request: CreateTaskRequest) -> Result<u32, tonic::Status> {
        let get = GetContainerRequest { id: self.id.to_owned() };
        let mut containers = ContainersClient::new(self.client.channel.clone());
        let container = containers.get(self.client.request(get)).await.unwrap().into_inner().container.unwrap();
        let mounts = MountsRequest { snapshotter: container.snapshotter, key: container.snapshot_key };
        let mut snapshots = SnapshotsClient::new(self.client.channel.clone());
        let rootfs = snapshots.mounts(self.client.request(mounts)).await.unwrap().into_inner().mounts;
        let container_id = self.id.to_owned();
        let request = CreateTaskRequest { container_id, rootfs, ..request };
        self.tasks().create(self.client.request(request)).await.map(|answer| answer.into_inner().pid)
    }

    pub(super) async fn start(&self) -> Result<u32, tonic::Status> {
        let start = StartRequest { container_id: self.id.to_owned(), ..Default::default() };
        self.tasks().start(self.client.request(start)).await.map(|answer| answer.into_inner().pid)
    }

    async fn state(&self) -> Process {
        let get = GetRequest { container_id: self.id.to_owned(), ..Default::default() };
        self.tasks().get(self.client.request(get)).await.unwrap().into_inner().process.unwrap()
    }

    pub(super) async fn kill(&self, signal: u32) -> Result<Response<()>, tonic::Status> {
        let kill = KillRequest { container_id: self.id.to_owned(), signal, ..Default::default() };
        self.tasks().kill(self.client.request(kill)).await
    }

    pub(super) async fn wait(&self) -> u32 {
        let wait = WaitRequest { container_id: self.id.to_owned(), ..Default::default() };
        self.tasks().wait(self.client.request(wait)).await.unwrap().into_inner().exit_status
    }

    pub(super) async fn delete(&self) -> u32 {
        let delete = DeleteTaskRequest { container_id: self.id.to_owned() };
        self.tasks().delete(self.client.request(delete)).await.unwrap().into_inner().exit_status
    }
}

/// Numbers, one a line.
fn numbers(path: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
    complete.lines().map(|line| line.parse().unwrap()).collect()
}

/// S-112: a task is made from a checkpoint: it has no process before its start, goes on where it was with new streams, takes processes and
/// ends with its own code; all of it is told as of any task.
#[test]
fn s112_restore_by_our_own_shim() {
    let Some(directory) = criu() else { return };
    let instance = Instance::start_on_path(&directory);
    instance.load(&Image::busybox().docker_archive()).ok();
    let (before, after) = (instance.directory.join("before"), instance.directory.join("after"));
    let script = "i=0; until test -e /go; do echo $i; i=$((i+1)); usleep 10000; done; exit 7";
    let log = format!("file://{}", before.display());
    ctr_run(&instance, &[&OWN[..], &["--log-uri", &log]].concat(), "web", &["sh", "-c", script]).ok();
    wait_until("it counts", || (numbers(&before).len() > 3).then_some(()));
    block_on(async {
        let client = Client::connect(&instance, "default").await;
        let task = Task { client: &client, id: "web" };
        let checkpoint = task.save().await;
        let stdout = format!("file://{}", after.display());
        let request = || CreateTaskRequest {
            checkpoint: Some(checkpoint.clone()),
            stdout: stdout.clone(),
            stderr: stdout.clone(),
            ..Default::default()
        };
        assert_eq!(task.create(request()).await.unwrap(), 0, "criu makes the process at the start");
        assert_eq!((task.state().await.status(), task.state().await.pid), (Status::Created, 0));
        let early = task.kill(15).await.unwrap_err();
        assert_eq!(early.code(), Code::FailedPrecondition, "{early:?}");
        // Killed before its start, it has ended all the same; and is restored another time.
        task.kill(9).await.unwrap();
        assert_eq!((task.wait().await, task.delete().await), (137, 137));
        task.create(request()).await.unwrap();
        let pid = task.start().await.unwrap();
        assert_eq!((task.state().await.status(), task.state().await.pid), (Status::Running, pid));
        let again = task.start().await.unwrap_err();
        assert_eq!(again.code(), Code::FailedPrecondition, "{again:?}");
        wait_until("it goes on counting", || (numbers(&after).len() > 3).then_some(()));
        let (last, first) = (*numbers(&before).last().unwrap(), numbers(&after)[0]);
        assert!((last..last + 100).contains(&first), "{first} after {last}");
        let seen = super::ctr_exec(&instance, "web", "x1", &["sh", "-c", "echo here; cat /proc/self/cgroup"]);
        assert!(seen.ok().starts_with("here\n"), "{seen:?}");
        assert!(seen.stdout.contains(&super::cgroup(&instance, "web")), "{seen:?}");
        // It may be ended together with the container that it ends.
        super::ctr_exec(&instance, "web", "x2", &["touch", "/go"]);
        assert_eq!((task.wait().await, task.delete().await), (7, 7));
        let topics = client.topics().await;
        let told: Vec<&str> = topics.iter().filter_map(|topic| topic.strip_prefix("/tasks/")).collect();
        let expected = ["create", "start", "exit", "delete"].into_iter().chain(["create", "exit", "delete"]);
        let expected = expected.chain(["create", "start", "exec-added", "exec-started"]).collect::<Vec<_>>();
        assert_eq!(told[..expected.len()], expected, "{told:?}");
        assert_eq!(told.last(), Some(&"delete"), "{told:?}");
    });
    assert!(!instance.state().join("checkpoints/default/web").exists());
    instance.ctr(&["containers", "rm", "web"]).ok();
}

/// S-112, S-155: a task that is killed while criu restores it ends at once, with criu and everything below it; and is restored another time.
#[test]
fn s112_a_restore_is_killed_at_once() {
    let Some(directory) = criu() else { return };
    // The real one, which is held up in the middle of a process tree of its own while a file says so.
    let slow = test_root().join("slow-criu");
    std::fs::create_dir_all(&slow).unwrap();
    let hold = slow.join("hold");
    let script = format!(
        "#!/bin/sh\n[ -e {hold} ] && {{ sleep 987654 & echo $! > {hold}; wait; }}\nexec {criu} \"$@\"\n",
        hold = hold.display(),
        criu = directory.join("criu").display()
    );
    std::fs::write(slow.join("criu"), script).unwrap();
    std::fs::set_permissions(slow.join("criu"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let instance = Instance::start_on_path(&slow);
    instance.load(&Image::busybox().docker_archive()).ok();
    ctr_run(&instance, &OWN, "web", &["sleep", "1000"]).ok();
    block_on(async {
        let client = Client::connect(&instance, "default").await;
        let task = Task { client: &client, id: "web" };
        let checkpoint = task.save().await;
        let request = || CreateTaskRequest { checkpoint: Some(checkpoint.clone()), ..Default::default() };
        std::fs::write(&hold, "").unwrap();
        task.create(request()).await.unwrap();
        let held = || std::fs::read_to_string(&hold).ok().filter(|pid| pid.ends_with('\n'));
        let fatal = async {
            while held().is_none() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            task.kill(9).await.unwrap();
        };
        let (started, ()) = tokio::join!(task.start(), fatal);
        let refused = started.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        let pid = held().unwrap().trim().to_owned();
        wait_until("criu's tree is gone", || (!Path::new("/proc").join(&pid).exists()).then_some(()));
        assert_eq!((task.wait().await, task.delete().await), (137, 137));
        let topics = client.topics().await;
        assert_eq!(topics.iter().filter(|topic| *topic == "/tasks/exit").count(), 2, "{topics:?}");

        std::fs::remove_file(&hold).unwrap();
        task.create(request()).await.unwrap();
        assert_ne!(task.start().await.unwrap(), 0);
        task.kill(9).await.unwrap();
        assert_eq!((task.wait().await, task.delete().await), (137, 137));
    });
    std::fs::remove_dir_all(&slow).unwrap();
    assert!(!Path::new("/sys/fs/cgroup").join(super::cgroup(&instance, "web").trim_start_matches('/')).exists());
    instance.ctr(&["containers", "rm", "web"]).ok();
}

/// S-112, S-138: images in a directory of the host and criu's log in another, as runc's options say (`criu_image_path`, `criu_work_path`).
#[test]
fn s112_s138_criu_paths_of_runcs_options() {
    let Some(directory) = criu() else { return };
    let instance = Instance::start_on_path(&directory);
    instance.load(&Image::busybox().docker_archive()).ok();
    ctr_run(&instance, &OWN, "web", &["sleep", "1000"]).ok();
    let (images, work) = (instance.directory.join("images"), instance.directory.join("work"));
    block_on(async {
        let client = Client::connect(&instance, "default").await;
        let task = Task { client: &client, id: "web" };
        let image_path = images.display().to_string();
        let options = CheckpointOptions { exit: true, image_path: image_path.clone(), ..Default::default() };
        let save = CheckpointTaskRequest {
            container_id: "web".to_owned(),
            options: Some(pack(&options)),
            ..Default::default()
        };
        task.tasks().checkpoint(client.request(save)).await.unwrap();
        assert_eq!((task.wait().await, task.delete().await), (137, 137));
        let request = |image: &str, work: &str| {
            let (criu_image_path, criu_work_path) = (image.to_owned(), work.to_owned());
            let options = RuncOptions { criu_image_path, criu_work_path, ..Default::default() };
            CreateTaskRequest { options: Some(pack(&options)), ..Default::default() }
        };
        for (image, work) in [("images", "/w"), (image_path.as_str(), "work")] {
            let refused = task.create(request(image, work)).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        }
        let work_path = work.display().to_string();
        assert_eq!(task.create(request(&image_path, &work_path)).await.unwrap(), 0);
        assert_ne!(task.start().await.unwrap(), 0);
        assert!(work.join("restore.log").exists() && !images.join("restore.log").exists());
        task.kill(9).await.unwrap();
        assert_eq!((task.wait().await, task.delete().await), (137, 137));
    });
    assert!(images.join("inventory.img").exists(), "the client's directory stays");
    instance.ctr(&["containers", "rm", "web"]).ok();
}

/// S-112: a terminal is restored with its client's streams; a checkpoint that is damaged fails at the start by criu's words, the task has ended
/// then and nothing is left of it.
#[test]
fn s112_restored_terminals_and_damaged_checkpoints() {
    let Some(directory) = criu() else { return };
    let instance = Instance::start_on_path(&directory);
    instance.load(&Image::busybox().docker_archive()).ok();
    let fifo = |name: &str| {
        let path = instance.directory.join(name);
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        // Both ends: neither side waits for the other.
        let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        (path.display().to_string(), file)
    };
    let (stdin, mut input) = fifo("stdin");
    let (stdout, output) = fifo("stdout");
    super::streams::run_in_a_terminal(&instance, "tty", "while read line; do echo got $line; done");
    let mut lines = std::io::BufReader::new(&output).lines().map(|line| line.unwrap().trim_end().to_owned());
    block_on(async {
        let client = Client::connect(&instance, "default").await;
        let task = Task { client: &client, id: "tty" };
        let checkpoint = task.save().await;
        let request = || CreateTaskRequest {
            checkpoint: Some(checkpoint.clone()),
            stdin: stdin.clone(),
            stdout: stdout.clone(),
            terminal: true,
            ..Default::default()
        };
        task.create(request()).await.unwrap();
        task.start().await.unwrap();
        input.write_all(b"this\n").unwrap();
        assert!(lines.any(|line| line == "got this"), "the restored process answers");
        task.kill(9).await.unwrap();
        assert_eq!((task.wait().await, task.delete().await), (137, 137));

        task.create(request()).await.unwrap();
        let images = instance.state().join("checkpoints/default/tty/restored");
        std::fs::remove_file(images.join("inventory.img")).unwrap();
        let failed = task.start().await.unwrap_err();
        assert!(failed.message().contains("restore the container"), "{failed:?}");
        assert_eq!((task.state().await.status(), task.wait().await), (Status::Stopped, 255));
        let left = berth_testkit::leak::Picture::take(&instance.cgroup_parent()).cgroups;
        assert!(!left.iter().any(|name| name.ends_with("/tty")), "nothing of it is left: {left:?}");
        assert_eq!(task.delete().await, 255);
    });
    instance.ctr(&["containers", "rm", "tty"]).ok();
}

/// S-112: Debian's `ctr` takes a container along with its files and goes on with it under another name.
#[test]
fn s112_ctr_checkpoint_and_restore() {
    let Some(directory) = criu() else { return };
    let instance = Instance::start_on_path(&directory);
    instance.load(&Image::busybox().docker_archive()).ok();
    let script = "echo mine >/mine; i=0; while :; do i=$((i+1)); echo $i >/count; usleep 10000; done";
    ctr_run(&instance, &OWN, "web", &["sh", "-c", script]).ok();
    let count = |id: &str, exec: &str| {
        super::ctr_exec(&instance, id, exec, &["cat", "/count"]).stdout.trim().parse().unwrap_or(0_u64)
    };
    wait_until("it counts", || (count("web", "x1") > 3).then_some(()));
    instance.ctr(&["containers", "checkpoint", "--rw", "--image", "--task", "web", "checkpoint/web:1"]).ok();
    let saved = count("web", "x2");
    instance.ctr(&["tasks", "rm", "-f", "web"]);
    instance.ctr(&["containers", "rm", "web"]).ok();
    instance.ctr(&["containers", "restore", "--rw", "--live", "again", "checkpoint/web:1"]).ok();
    assert!(instance.ctr(&["tasks", "ls"]).ok().contains("RUNNING"));
    wait_until("it goes on counting", || (count("again", "x3") > saved + 3).then_some(()));
    assert!(count("again", "x4") < saved + 1000, "it goes on, and does not begin again");
    assert_eq!(super::ctr_exec(&instance, "again", "x5", &["cat", "/mine"]).ok(), "mine");
    instance.ctr(&["tasks", "rm", "-f", "again"]);
    instance.ctr(&["containers", "rm", "again"]).ok();
    instance.ctr(&["images", "rm", "checkpoint/web:1"]).ok();
}
