//! What another shim was asked for is taken back when the answer does not come. The other shim is a script (`start`, `delete`), a sleeping process,
//! and a server in this one that answers as it is told to.

use std::os::unix::fs::PermissionsExt as _;

use async_trait::async_trait;
use berth_proto::choice::RuntimeChoice;
use berth_proto::task::{
    ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse, DeleteRequest, DeleteResponse, Empty,
    ExecProcessRequest, KillRequest, ShutdownRequest, StartRequest, StartResponse, Task, WaitRequest, WaitResponse,
};
use berth_proto::ttrpc::{self, Code, Result, r#async::TtrpcContext};
use berth_types::{Classify as _, ErrorClass};

use super::*;
use crate::events::{Publisher, Selection};
use crate::io::{IoRequest, OpenOutlets};
use crate::process::Addresses;
use crate::task::{CreateRequest, Options};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Never,
    Refused,
    Agreed,
    /// To Shutdown: and it ends.
    Done,
}

#[derive(Debug)]
struct Fake {
    dir: tempfile::TempDir,
    create: Answer,
    shutdown: Answer,
    start: Answer,
    calls: Mutex<Vec<String>>,
    /// Create, if it is held up.
    go: tokio::sync::Semaphore,
}

struct Service(Arc<Fake>);

fn refusal(code: Code) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(ttrpc::get_status(code, "refused".to_owned()))
}

impl Fake {
    fn new(create: Answer, shutdown: Answer, start: Answer) -> Arc<Self> {
        let dir = tempfile::tempdir().unwrap();
        let calls = Mutex::default();
        let fake = Self { dir, create, shutdown, start, calls, go: tokio::sync::Semaphore::new(0) };
        std::fs::create_dir_all(fake.path("root")).unwrap();
        // What it starts outlives it, and is told apart from one that was there before.
        let script = "#!/bin/sh\n\
            cd \"${0%/*}\"\n\
            for verb; do :; done\n\
            alive() { test -e /proc/$(cat pid)/exe && echo alive || echo dead; }\n\
            case $verb in\n\
            start) test -e pid || { sleep 1000 > /dev/null 2>&1 & echo $! > pid; }; cat answer ;;\n\
            delete) alive >> deleted ;;\n\
            esac\n";
        std::fs::write(fake.binary(), script).unwrap();
        std::fs::set_permissions(fake.binary(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(fake.path("answer"), format!("unix://{}", fake.path("socket").display())).unwrap();
        Arc::new(fake)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn binary(&self) -> PathBuf {
        self.path("other")
    }

    async fn serve(self: &Arc<Self>) -> ttrpc::r#async::Server {
        let task: Arc<dyn Task + Send + Sync> = Arc::new(Service(Arc::clone(self)));
        let mut server = ttrpc::r#async::Server::new()
            .bind(&format!("unix://{}", self.path("socket").display()))
            .unwrap()
            .register_service(berth_proto::task::services(&task));
        server.start().await.unwrap();
        server
    }

    fn note(&self, call: &str) {
        self.calls.lock().unwrap().push(call.to_owned());
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn pid(&self) -> u32 {
        std::fs::read_to_string(self.path("pid")).unwrap().trim().parse().unwrap()
    }

    fn is_alive(&self) -> bool {
        std::fs::read_link(format!("/proc/{}/exe", self.pid())).is_ok()
    }

    fn kill(&self) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).ok();
    }

    /// What its `delete` found of its process, each time.
    fn deleted(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("deleted")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    async fn relay(&self, patience: Patience) -> std::result::Result<Relay, TaskError> {
        let io = ProcessIo::open(IoRequest::parse(false, "", "", "").unwrap(), &Arc::<OpenOutlets>::default()).unwrap();
        let new = NewRelay {
            binary: self.binary(),
            options: None,
            id: "task",
            bundle: self.dir.path(),
            config: b"{}".to_vec(),
            annotations: HashMap::new(),
            root: RootDir::open_host(&self.path("root")).unwrap(),
            root_path: self.path("root"),
            surroundings: &Surroundings::default(),
            io: &io,
            patience,
        };
        Relay::create(new).await.map(|(relay, _)| relay)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if self.path("pid").exists() {
            self.kill();
        }
    }
}

#[async_trait]
impl Task for Service {
    async fn connect(&self, _: &TtrpcContext, _: ConnectRequest) -> Result<ConnectResponse> {
        Ok(ConnectResponse { shim_pid: self.0.pid(), ..Default::default() })
    }

    async fn create(&self, _: &TtrpcContext, _: CreateTaskRequest) -> Result<CreateTaskResponse> {
        self.0.note("create");
        match self.0.create {
            Answer::Never => std::future::pending().await,
            Answer::Refused => Err(refusal(Code::INVALID_ARGUMENT)),
            Answer::Agreed => Ok(CreateTaskResponse { pid: self.0.pid(), ..Default::default() }),
            Answer::Done => {
                drop(self.0.go.acquire().await);
                Ok(CreateTaskResponse { pid: self.0.pid(), ..Default::default() })
            }
        }
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> Result<Empty> {
        self.0.note(&format!("exec {}", request.exec_id));
        Ok(Empty::default())
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> Result<StartResponse> {
        self.0.note(&format!("start {}", request.exec_id));
        match self.0.start {
            Answer::Refused => Err(refusal(Code::NOT_FOUND)),
            _ => Ok(StartResponse { pid: 1, ..Default::default() }),
        }
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> Result<Empty> {
        self.0.note(&format!("kill {}{}", request.signal, if request.all { " all" } else { "" }));
        Ok(Empty::default())
    }

    async fn wait(&self, _: &TtrpcContext, _: WaitRequest) -> Result<WaitResponse> {
        Ok(WaitResponse { exit_status: 137, ..Default::default() })
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> Result<DeleteResponse> {
        self.0.note(format!("delete {}", request.exec_id).trim_end());
        Ok(DeleteResponse::default())
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> Result<Empty> {
        self.0.note("shutdown");
        match self.0.shutdown {
            Answer::Never => std::future::pending().await,
            Answer::Refused => Err(refusal(Code::FAILED_PRECONDITION)),
            Answer::Agreed => Ok(Empty::default()),
            Answer::Done => {
                self.0.kill();
                Ok(Empty::default())
            }
        }
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LONG * 2, test).await.unwrap() });
}

/// A shim that was started for a task it cannot make is gone, however it answers, before its clean-up runs.
fn check(create: Answer, shutdown: Answer, class: ErrorClass, patience: Patience) {
    run(async {
        let fake = Fake::new(create, shutdown, Answer::Agreed);
        let _server = fake.serve().await;
        let error = fake.relay(patience).await.unwrap_err();
        assert_eq!(error.class(), class, "{error}");
        assert_eq!(fake.calls(), ["create", "shutdown"], "{shutdown:?}");
        assert!(!fake.is_alive(), "{shutdown:?}");
        assert_eq!(fake.deleted(), ["dead"], "{shutdown:?}");
    });
}

/// S-132: Create is never answered; the shim ends when it is asked, agrees and stays (as runc's does), refuses, or is silent.
#[test]
fn s132_a_create_that_is_not_answered_is_taken_back() {
    let late = |last_call| Patience { create: SHORT, last_call };
    check(Answer::Never, Answer::Done, ErrorClass::DeadlineExceeded, late(LONG));
    for shutdown in [Answer::Agreed, Answer::Refused, Answer::Never] {
        check(Answer::Never, shutdown, ErrorClass::DeadlineExceeded, late(SHORT));
    }
}

#[test]
fn s132_a_create_that_fails_is_taken_back() {
    let patience = |last_call| Patience { create: LONG, last_call };
    check(Answer::Refused, Answer::Done, ErrorClass::InvalidArgument, patience(LONG));
    check(Answer::Refused, Answer::Refused, ErrorClass::InvalidArgument, patience(SHORT));
}

/// A shim that was there before serves others: it is asked for our container's end, and lives.
#[test]
fn s143_a_shim_of_others_is_not_killed() {
    run(async {
        let fake = Fake::new(Answer::Never, Answer::Agreed, Answer::Agreed);
        let there = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        std::fs::write(fake.path("pid"), there.id().to_string()).unwrap();
        // The clock of processes has hundredths of seconds.
        let begun = start_ticks(there.id()).unwrap();
        while ticks_now().unwrap() <= begun {
            tokio::task::yield_now().await;
        }
        let _server = fake.serve().await;
        let error = fake.relay(Patience { create: SHORT, last_call: LONG }).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::DeadlineExceeded, "{error}");
        assert_eq!(fake.calls(), ["create", "kill 9 all", "delete", "shutdown"]);
        assert!(fake.is_alive());
        assert_eq!(fake.deleted(), ["alive"]);
        let mut there = there;
        there.kill().unwrap();
        there.wait().unwrap();
    });
}

/// A shim that says what nobody understands has its clean-up run.
#[test]
fn s138_an_answer_that_is_not_understood_is_cleaned_up() {
    run(async {
        let fake = Fake::new(Answer::Agreed, Answer::Done, Answer::Agreed);
        std::fs::write(fake.path("answer"), "good morning").unwrap();
        let error = fake.relay(Patience::default()).await.unwrap_err();
        assert!(berth_types::report(&error).contains("good morning"), "{error}");
        assert_eq!(fake.deleted().len(), 1);
    });
}

/// An added process that does not start is forgotten by the other shim, so that another may have its name.
#[test]
fn s134_an_exec_that_does_not_start_is_taken_back() {
    run(async {
        let fake = Fake::new(Answer::Agreed, Answer::Done, Answer::Refused);
        let _server = fake.serve().await;
        let relay = fake.relay(Patience::default()).await.unwrap();
        let io = ProcessIo::open(IoRequest::parse(false, "", "", "").unwrap(), &Arc::<OpenOutlets>::default()).unwrap();
        let plan = berth_oci::document::process(br#"{"args":["x"],"cwd":"/"}"#).unwrap().document;
        let process = Process::new("task".to_owned(), "e1".to_owned(), Addresses::default(), io, Some(plan));
        let error = relay.start(&process).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::NotFound, "{error}");
        assert_eq!(fake.calls(), ["create", "exec e1", "start e1", "delete e1"]);
        relay.abandon().await;
        assert!(!fake.is_alive());
    });
}

/// S-110: who has the answer to Shutdown may start another shim for the id: the old one's sockets are gone by then, and it touches no other's.
#[test]
fn s110_sockets_are_gone_before_shutdown_is_answered() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        std::fs::write(&socket, "ours").unwrap();
        let events = Publisher::new(None, "default".to_owned(), Selection::OutOfMemory);
        let shim = Shim::new("task".to_owned(), None, None, Surroundings::default(), events);
        shim.set_addresses(vec![socket.clone()]);
        shim.shut_down(false).unwrap();
        assert!(!socket.exists());
        std::fs::write(&socket, "another's").unwrap();
        shim.shutdown_asked().await;
        shim.leave_addresses();
        assert!(socket.exists());
    });
}

/// Shutdown while a Create is under way: refused; told to end all the same, the shim waits for what it has asked for.
#[test]
fn s132_shutdown_while_a_create_is_under_way() {
    run(async {
        // Done: when the test lets it.
        let fake = Fake::new(Answer::Done, Answer::Done, Answer::Agreed);
        let _server = fake.serve().await;
        let bundle = fake.path("bundle");
        std::fs::create_dir_all(bundle.join("rootfs")).unwrap();
        let config = r#"{"ociVersion":"1.2.0","root":{"path":"rootfs"},"process":{"args":["x"],"cwd":"/"}}"#;
        std::fs::write(bundle.join("config.json"), config).unwrap();
        let events = Publisher::new(None, "default".to_owned(), Selection::OutOfMemory);
        let shim = Shim::new("task".to_owned(), None, None, Surroundings::default(), events);
        let choice = RuntimeChoice::Shim { binary: fake.binary(), options: None };
        let request = CreateRequest {
            id: "task".to_owned(),
            bundle,
            rootfs: Vec::new(),
            addresses: Addresses::default(),
            options: Options { choice: Some(choice), ..Options::default() },
            checkpoint: None,
            document: None,
        };
        let creating = tokio::spawn({
            let shim = Arc::clone(&shim);
            async move { shim.create(request).await }
        });
        while fake.calls() != ["create"] {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(shim.shut_down(false).unwrap_err().class(), ErrorClass::FailedPrecondition);
        shim.shut_down(true).unwrap();
        let mut ending = std::pin::pin!(shim.shutdown_asked());
        for _ in 0..100 {
            assert!(futures_util::poll!(&mut ending).is_pending(), "a container is half made");
            tokio::task::yield_now().await;
        }
        fake.go.add_permits(1);
        assert_eq!(creating.await.unwrap().unwrap(), fake.pid());
        ending.await;
        assert_eq!(shim.shut_down(false).unwrap_err().class(), ErrorClass::FailedPrecondition);
    });
}
