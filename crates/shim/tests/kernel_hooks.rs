//! Hooks that take their time, in the real shim: everybody else is served meanwhile, and an idle shim has one thread. Needs root.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, also in its fixtures")]
#![allow(dead_code, reason = "the support module is shared")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use berth_shim_client::{ShimClient, TaskState};
use berth_types::{Classify as _, ErrorClass, Signal};
use rustix::fs::{FileType, Mode};
use support::{Fixture, run, until};

/// A hook that says that it runs and waits until it may end.
struct Slow {
    dir: PathBuf,
}

impl Slow {
    fn new(fixture: &mut Fixture, stage: &str) -> Self {
        let dir = fixture.path(stage);
        std::fs::create_dir(&dir).unwrap();
        let slow = Self { dir };
        rustix::fs::mknodat(rustix::fs::CWD, slow.path("go"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let script = "#!/bin/sh\necho begun >> \"$1/runs\"; read word < \"$1/go\"; exit $word\n";
        std::fs::write(slow.path("hook"), script).unwrap();
        std::fs::set_permissions(slow.path("hook"), PermissionsExt::from_mode(0o755)).unwrap();
        let (path, argument) = (slow.path("hook"), slow.dir.clone());
        let entry = serde_json::json!({"path": path, "args": ["hook", argument], "env": ["PATH=/usr/bin:/bin"]});
        fixture.spec["hooks"][stage] = serde_json::json!([entry]);
        slow
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn runs(&self) -> usize {
        std::fs::read_to_string(self.path("runs")).unwrap_or_default().lines().count()
    }

    async fn begun(&self, runs: usize) {
        until("the hook runs", || self.runs() == runs).await;
    }

    /// It ends with this code.
    fn end(&self, code: u8) {
        std::fs::write(self.path("go"), format!("{code}\n")).unwrap();
    }
}

fn threads(fixture: &Fixture) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", fixture.shim_pid().as_raw_nonzero())).unwrap().count()
}

/// As an engine does that does not care for what the shim has.
async fn shut_down_now(fixture: &Fixture) {
    use berth_proto::ttrpc::r#async::{Client, transport::Socket};
    let address = std::fs::read_to_string(fixture.bundle().join("address")).unwrap();
    let stream = tokio::net::UnixStream::connect(address.trim_start_matches("unix://")).await.unwrap();
    let client = Client::new(Socket::from(stream));
    let request = berth_proto::task::ShutdownRequest { now: true, ..Default::default() };
    let answer: Result<berth_proto::task::Empty, _> =
        berth_proto::call::unary(&client, "containerd.task.v2.Task", "Shutdown", &request).await;
    answer.unwrap();
}

/// Everything that can be asked of a task whose init is there, while a hook runs.
async fn is_served(shim: &ShimClient, state: TaskState, pid: u32) {
    let now = shim.state(None).await.unwrap();
    assert_eq!((now.state, now.pid), (state, pid));
    assert_eq!(shim.pids().await.unwrap(), [pid]);
    shim.stats().await.unwrap();
    assert_ne!(shim.shim_pid().await.unwrap(), 0);
}

/// S-132: hooks of create, start and delete hold nobody up.
#[test]
fn s132_a_slow_hook_holds_nobody_up() {
    run(async {
        let mut fixture = Fixture::new("slowhook").sh("sleep 1000");
        let hooks = ["createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
        let [outside, inside, before, after, last] = hooks.map(|stage| Slow::new(&mut fixture, stage));
        // What runs in the container needs to be there.
        let within = Path::new("/hook");
        let mount =
            serde_json::json!({"destination": within, "type": "bind", "source": before.dir, "options": ["bind"]});
        fixture.spec["mounts"].as_array_mut().unwrap().push(mount);
        fixture.spec["hooks"]["startContainer"][0]["path"] = within.join("hook").display().to_string().into();
        fixture.spec["hooks"]["startContainer"][0]["args"] = serde_json::json!(["hook", within]);
        let shim = fixture.start_shim().await;
        assert_eq!(threads(&fixture), 1);
        let (fixture, shim) = (&fixture, &shim);

        let creating = fixture.create(shim);
        let meanwhile = async {
            for hook in [&outside, &inside] {
                hook.begun(1).await;
                assert_eq!(shim.state(None).await.unwrap_err().class(), ErrorClass::NotFound);
                assert_ne!(shim.shim_pid().await.unwrap(), 0);
                assert_eq!(shim.shutdown().await.unwrap_err().class(), ErrorClass::FailedPrecondition);
                assert_eq!(threads(fixture), 2);
                hook.end(0);
            }
        };
        let (pid, ()) = tokio::join!(creating, meanwhile);
        assert_eq!(threads(fixture), 1);
        is_served(shim, TaskState::Created, pid).await;

        let starting = async { shim.start_process(None).await.unwrap() };
        let meanwhile = async {
            for hook in [&before, &after] {
                hook.begun(1).await;
                let now = shim.state(None).await.unwrap();
                assert_eq!((now.state, now.pid), (TaskState::Created, pid));
                assert!(shim.pids().await.unwrap().contains(&pid));
                assert_eq!(threads(fixture), 2);
                hook.end(0);
            }
        };
        assert_eq!(tokio::join!(starting, meanwhile).0, pid);
        assert_eq!(threads(fixture), 1);
        is_served(shim, TaskState::Running, pid).await;

        shim.kill(None, Signal::KILL, false).await.unwrap();
        assert_eq!(shim.wait(None).await.unwrap().code, 137);
        let deleting = async { shim.delete(None).await.unwrap() };
        let meanwhile = async {
            last.begun(1).await;
            assert_eq!(shim.state(None).await.unwrap().state, TaskState::Stopped);
            assert_eq!(shim.pids().await.unwrap_err().class(), ErrorClass::FailedPrecondition);
            assert_eq!(shim.shutdown().await.unwrap_err().class(), ErrorClass::FailedPrecondition);
            // A failing one of this stage is a warning.
            last.end(1);
        };
        assert_eq!(tokio::join!(deleting, meanwhile).0.code, 137);
        assert_eq!(shim.state(None).await.unwrap_err().class(), ErrorClass::NotFound);
        assert_eq!(threads(fixture), 1);
        let pidfd = rustix::process::pidfd_open(fixture.shim_pid(), rustix::process::PidfdFlags::empty()).unwrap();
        shim.shutdown().await.unwrap();
        fixture.assert_ended(&pidfd);
    });
}

/// S-132: a task can be killed while a hook of its start runs; the start fails, and everything can be removed.
#[test]
fn s132_a_task_is_killed_while_a_hook_runs() {
    run(async {
        let mut fixture = Fixture::new("killhook").sh("sleep 1000");
        let after = Slow::new(&mut fixture, "poststart");
        let shim = fixture.created().await;
        let starting = shim.start_process(None);
        let meanwhile = async {
            after.begun(1).await;
            shim.kill(None, Signal::KILL, false).await.unwrap();
            after.end(1);
        };
        let (started, ()) = tokio::join!(starting, meanwhile);
        let text = started.unwrap_err().to_string();
        assert!(text.contains("poststart hook"), "{text}");
        assert_eq!(shim.wait(None).await.unwrap().code, 137);
        assert_eq!(fixture.finish(shim).await, 137);
    });
}

/// Shutdown with `now` while a task is made: the shim ends when that is done, so what was made is known to whoever cleans up.
#[test]
fn nothing_half_made_is_left_by_a_shutdown() {
    run(async {
        let mut fixture = Fixture::new("shuthook").sh("sleep 1000");
        let outside = Slow::new(&mut fixture, "createRuntime");
        let shim = fixture.start_shim().await;
        let pidfd = rustix::process::pidfd_open(fixture.shim_pid(), rustix::process::PidfdFlags::empty()).unwrap();
        let creating = fixture.try_create(&shim);
        let meanwhile = async {
            outside.begun(1).await;
            shut_down_now(&fixture).await;
            // It is told, and waits.
            assert_ne!(shim.shim_pid().await.unwrap(), 0);
            outside.end(0);
        };
        let (created, ()) = tokio::join!(creating, meanwhile);
        if let Err(error) = created {
            // The answer may be lost with the connection.
            assert_eq!(error.class(), ErrorClass::Unavailable, "{error}");
        }
        drop(shim);
        until("the shim ends", || {
            rustix::event::poll(
                &mut [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)],
                Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }),
            ) == Ok(1)
        })
        .await;
        let exit = ShimClient::delete_dead(&fixture.options()).await.unwrap();
        assert_eq!(exit.code, 137);
        fixture.assert_ended(&pidfd);
    });
}

/// S-155: the shim is killed while a hook holds up its create: there is no record of the container yet, and nothing of it is left all the same. Who
/// else lives in the group keeps it.
#[test]
fn s155_a_shim_killed_in_its_create_leaves_no_cgroup() {
    for is_shared in [false, true] {
        run(async {
            let mut fixture = Fixture::new(if is_shared { "sharedhook" } else { "dyinghook" }).sh("sleep 1000");
            let outside = Slow::new(&mut fixture, "createRuntime");
            let shim = fixture.start_shim().await;
            let pidfd = rustix::process::pidfd_open(fixture.shim_pid(), rustix::process::PidfdFlags::empty()).unwrap();
            let creating = fixture.try_create(&shim);
            let meanwhile = async {
                outside.begun(1).await;
                assert!(!fixture.cgroups().is_empty(), "it has its group already");
                let other = is_shared.then(|| Guest::enter(&fixture));
                rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).unwrap();
                other
            };
            let (created, other) = tokio::join!(creating, meanwhile);
            assert_eq!(created.unwrap_err().class(), ErrorClass::Unavailable);
            drop(shim);
            ShimClient::delete_dead(&fixture.options()).await.unwrap();
            if let Some(mut other) = other {
                assert!(other.0.try_wait().unwrap().is_none(), "it lives on");
                drop(other);
                ShimClient::delete_dead(&fixture.options()).await.unwrap();
            }
            fixture.assert_ended(&pidfd);
            outside.end(0);
        });
    }
}

/// A process of somebody else in the container's cgroups, in every hierarchy.
struct Guest(std::process::Child);

impl Guest {
    fn enter(fixture: &Fixture) -> Self {
        let child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        for group in fixture.cgroups() {
            std::fs::write(group.join("cgroup.procs"), child.id().to_string()).unwrap();
        }
        Self(child)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The same shim makes another task of its pod while the first one's hook runs.
#[test]
fn other_tasks_of_a_pod_are_made_while_a_hook_runs() {
    run(async {
        let mut fixture = Fixture::new("podhook").sh("sleep 1000");
        fixture.spec["annotations"] = serde_json::json!({"io.kubernetes.cri.sandbox-id": fixture.id});
        std::fs::write(fixture.bundle().join("config.json"), fixture.spec.to_string()).unwrap();
        let outside = Slow::new(&mut fixture, "createRuntime");
        // Under another name it is started as other engines' shims are, which have one for a pod.
        let renamed = fixture.path("shim");
        let (sockets, binary) = (fixture.path("s"), fixture.binary.clone());
        let script = format!("#!/bin/sh\nBERTH_SOCKET_DIR={} exec {} \"$@\"\n", sockets.display(), binary.display());
        std::fs::write(&renamed, script).unwrap();
        std::fs::set_permissions(&renamed, PermissionsExt::from_mode(0o755)).unwrap();
        fixture.binary = renamed;
        let shim = fixture.start_shim().await;
        let mut other = Fixture::new("podother").sh("exit 3");
        other.id = format!("{}-other", fixture.id);
        std::fs::create_dir_all(other.bundle()).unwrap();
        std::fs::write(other.bundle().join("bootstrap.json"), std::fs::read(fixture.bundle().join("address")).unwrap())
            .unwrap();
        let second = ShimClient::reconnect(&other.bundle()).await.unwrap();
        let creating = fixture.create(&shim);
        let meanwhile = async {
            outside.begun(1).await;
            other.create(&second).await;
            second.start_process(None).await.unwrap();
            assert_eq!(second.wait(None).await.unwrap().code, 3);
            second.delete(None).await.unwrap();
            outside.end(0);
        };
        tokio::join!(creating, meanwhile);
        shim.kill(None, Signal::KILL, false).await.unwrap();
        shim.wait(None).await.unwrap();
        fixture.finish(shim).await;
    });
}
