//! A third party's shim, as small as one can be (S-140): its "containers" are processes in a changed root directory, nothing more. It is
//! made of the protocol's public crate and the system's commands, and knows nothing of the engine that uses it.
//!
//! Under another name (`containerd-shim-kata-v2`, `containerd-shim-runsc-v1`) it stands in for that shim's *invocation*: how it is called, with
//! which options, and that tasks of one pod share it. What it was called with is written beside the binary, into `calls`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use containerd_shim_protos::api::*;
use containerd_shim_protos::events::task::{TaskCreate, TaskDelete, TaskExit, TaskStart};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim_sync::{EventsClient, Task, create_task};
use containerd_shim_protos::ttrpc::{self, Client, Code, Server, TtrpcContext};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let flag = |name: &str| {
        let place = arguments.iter().position(|word| word == name);
        place.and_then(|place| arguments.get(place + 1)).cloned().unwrap_or_default()
    };
    match arguments.last().map(String::as_str) {
        Some("start") => start(&flag("-id")),
        Some("delete") => delete(&flag("-bundle")),
        Some("serve") => serve(),
        _ => println!("{}: a toy", arguments[0]),
    }
}

/// What this binary stands in for: `toy`, `kata`, `runsc`.
fn kind() -> String {
    let name = std::env::args().next().unwrap_or_default();
    name.rsplit_once("containerd-shim-").map_or("toy", |(_, rest)| rest.split('-').next().unwrap_or("toy")).to_owned()
}

fn note(line: &str) {
    let file = PathBuf::from(std::env::args().next().unwrap()).with_file_name("calls");
    if let Ok(mut file) = File::options().create(true).append(true).open(file) {
        writeln!(file, "{} {line}", kind()).unwrap();
    }
}

/// Options as containerd gives them up to 2.2: an `Any` on standard input.
fn options_on_stdin() -> String {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).unwrap();
    Any::parse_from_bytes(&bytes).map(|any| describe(Some(&any))).unwrap_or_default()
}

fn describe(any: Option<&Any>) -> String {
    any.map(|any| format!("{} {}", any.type_url, String::from_utf8_lossy(&any.value).escape_debug()))
        .unwrap_or_default()
}

fn config(bundle: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(bundle.join("config.json")).unwrap_or_default()).unwrap_or_default()
}

fn start(id: &str) {
    note(&format!("start {}", options_on_stdin()));
    let bundle = std::env::current_dir().unwrap();
    let pod = config(&bundle)["annotations"]["io.kubernetes.cri.sandbox-id"].as_str().map(str::to_owned);
    let address = match pod.filter(|pod| pod != id) {
        // The pod's shim serves its containers, too.
        Some(pod) => std::fs::read_to_string(bundle.with_file_name(pod).join("address")).unwrap(),
        None => launch(),
    };
    std::fs::write(bundle.join("address"), &address).unwrap();
    print!(r#"{{"version":3,"address":"{address}","protocol":"ttrpc"}}"#);
}

#[expect(clippy::zombie_processes, reason = "it outlives this process; whoever becomes its parent waits for it")]
fn launch() -> String {
    let socket = std::env::temp_dir().join(format!("toy-{}.sock", std::process::id()));
    let arguments: Vec<String> = std::env::args().collect();
    Command::new(&arguments[0])
        .args(&arguments[1..arguments.len() - 1])
        .arg("serve")
        .env("TOY_SOCKET", &socket)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        std::thread::yield_now();
    }
    format!("unix://{}", socket.display())
}

fn delete(bundle: &str) {
    let bundle = Path::new(bundle);
    let pid = std::fs::read_to_string(bundle.join("init.pid")).ok().and_then(|text| text.parse::<i32>().ok());
    if let Some(pid) = pid.and_then(Pid::from_raw) {
        kill_process(pid, Signal::KILL).unwrap_or(());
    }
    unmount(bundle);
    let response = DeleteResponse { exit_status: 137, exited_at: now(), ..Default::default() };
    std::io::stdout().write_all(&response.write_to_bytes().unwrap()).unwrap();
}

fn unmount(bundle: &Path) {
    Command::new("umount").arg("-l").arg(bundle.join("rootfs")).stderr(Stdio::null()).status().unwrap();
}

fn serve() {
    let socket = std::env::var_os("TOY_SOCKET").map(PathBuf::from).unwrap();
    let toy = Arc::new(Toy::default());
    let task: Arc<dyn Task + Send + Sync> = Arc::new(Service(Arc::clone(&toy)));
    let address = format!("unix://{}", socket.display());
    let mut server = Server::new().bind(&address).unwrap().register_service(create_task(task));
    server.start().unwrap();
    let mut tasks = toy.tasks.lock().unwrap();
    while !tasks.is_over {
        tasks = toy.changed.wait(tasks).unwrap();
    }
    drop(tasks);
    std::fs::remove_file(socket).unwrap_or(());
    // The answer to Shutdown is on its way.
    server.shutdown();
}

struct Service(Arc<Toy>);

#[derive(Default)]
struct Toy {
    tasks: Mutex<Tasks>,
    changed: Condvar,
}

#[derive(Default)]
struct Tasks {
    /// By task id and exec id; the latter empty for init.
    processes: HashMap<(String, String), Process>,
    is_over: bool,
}

struct Process {
    bundle: PathBuf,
    request: Exec,
    pid: u32,
    status: Status,
    exit: Option<(u32, MessageField<Timestamp>)>,
}

/// What runs, and where its streams go.
#[derive(Clone, Default)]
struct Exec {
    arguments: Vec<String>,
    directory: String,
    environment: Vec<String>,
    stdin: String,
    stdout: String,
    stderr: String,
}

impl Exec {
    fn new(process: &Value, streams: [&str; 3]) -> Self {
        let list = |value: &Value| {
            value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
        };
        let [stdin, stdout, stderr] = streams.map(str::to_owned);
        Self {
            arguments: list(&process["args"]),
            directory: process["cwd"].as_str().unwrap_or("/").to_owned(),
            environment: list(&process["env"]),
            stdin,
            stdout,
            stderr,
        }
    }

    /// It stops itself before it becomes the program: Start lets it go on.
    fn spawn(&self, root: &Path) -> std::io::Result<Child> {
        let stream = |path: &str, is_input: bool| {
            if path.is_empty() {
                return Ok::<_, std::io::Error>(Stdio::null());
            }
            // Output both ways, so that no stream ends while the other side comes and goes; and no open may wait for another side.
            let file = File::options().read(true).write(!is_input).custom_flags(NONBLOCK).open(path)?;
            rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::empty())?;
            Ok(Stdio::from(file))
        };
        Command::new("sh")
            .args(["-c", "kill -STOP $$; cd /; exec chroot \"$@\"", "sh"])
            .arg(root)
            .args(["/bin/sh", "-c", "cd \"$1\"; shift; exec \"$@\"", "sh", &self.directory])
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter().filter_map(|pair| pair.split_once('=')))
            .stdin(stream(&self.stdin, true)?)
            .stdout(stream(&self.stdout, false)?)
            .stderr(stream(&self.stderr, false)?)
            .spawn()
    }
}

fn refused(code: Code, text: &str) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(ttrpc::get_status(code, text.to_owned()))
}

fn now() -> MessageField<Timestamp> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    MessageField::some(Timestamp {
        seconds: i64::try_from(now.as_secs()).unwrap(),
        nanos: i32::try_from(now.subsec_nanos()).unwrap(),
        ..Default::default()
    })
}

fn publish<M: Message>(topic: &str, event: &M) {
    let variable = |name| std::env::var_os(name).and_then(|value| value.into_string().ok());
    let (Some(address), Some(namespace)) = (variable("TTRPC_ADDRESS"), variable("NAMESPACE")) else { return };
    let value = Any {
        type_url: format!("containerd.events.{}", M::NAME),
        value: event.write_to_bytes().unwrap(),
        ..Default::default()
    };
    let envelope = containerd_shim_protos::shim::event::Envelope {
        timestamp: now(),
        namespace,
        topic: topic.to_owned(),
        event: MessageField::some(value),
        ..Default::default()
    };
    let request = containerd_shim_protos::shim::events::ForwardRequest {
        envelope: MessageField::some(envelope),
        ..Default::default()
    };
    if let Ok(client) = Client::connect(&format!("unix://{address}")) {
        let context = ttrpc::context::with_duration(Duration::from_secs(5));
        EventsClient::new(client).forward(context, &request).map(drop).unwrap_or(());
    }
}

impl Toy {
    fn act<T>(&self, id: &str, exec_id: &str, act: impl FnOnce(&mut Process) -> ttrpc::Result<T>) -> ttrpc::Result<T> {
        let mut tasks = self.tasks.lock().unwrap();
        let process = tasks.processes.get_mut(&(id.to_owned(), exec_id.to_owned()));
        act(process.ok_or_else(|| refused(Code::NOT_FOUND, "no such process"))?)
    }

    fn spawn(self: &Arc<Self>, id: &str, exec_id: &str, bundle: PathBuf, request: Exec) -> ttrpc::Result<u32> {
        let child = request.spawn(&bundle.join("rootfs"));
        let mut child = child.map_err(|error| refused(Code::INTERNAL, &error.to_string()))?;
        let pid = child.id();
        let process = Process { bundle, request, pid, status: Status::CREATED, exit: None };
        self.tasks.lock().unwrap().processes.insert((id.to_owned(), exec_id.to_owned()), process);
        let (toy, id, exec_id) = (Arc::clone(self), id.to_owned(), exec_id.to_owned());
        std::thread::spawn(move || {
            let status = child.wait().unwrap();
            let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()).cast_unsigned();
            let exited_at = now();
            toy.act(&id, &exec_id, |process| {
                process.status = Status::STOPPED;
                process.exit = Some((code, exited_at.clone()));
                Ok(())
            })
            .unwrap();
            toy.changed.notify_all();
            let name = if exec_id.is_empty() { id.clone() } else { exec_id };
            publish(
                "/tasks/exit",
                &TaskExit { container_id: id, id: name, pid, exit_status: code, exited_at, ..Default::default() },
            );
        });
        Ok(pid)
    }
}

/// Waits until it has stopped itself, then lets it go on.
fn release(pid: u32) {
    let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    while stat().contains(") ") && !stat().contains(") T ") && !stat().contains(") Z ") {
        std::thread::yield_now();
    }
    signal(pid, 18).unwrap_or(());
}

fn signal(pid: u32, number: u32) -> ttrpc::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
    let signal = i32::try_from(number).ok().and_then(Signal::from_named_raw);
    let signal = signal.ok_or_else(|| refused(Code::INVALID_ARGUMENT, "signal"))?;
    kill_process(pid, signal).map_err(|_| refused(Code::NOT_FOUND, "process already finished"))
}

impl Task for Service {
    fn create(&self, _: &TtrpcContext, request: CreateTaskRequest) -> ttrpc::Result<CreateTaskResponse> {
        note(&format!("create {}", describe(request.options.as_ref())));
        let bundle = PathBuf::from(&request.bundle);
        let rootfs = bundle.join("rootfs");
        std::fs::create_dir_all(&rootfs).unwrap();
        for mount in &request.rootfs {
            let mut command = Command::new("mount");
            if mount.type_ == "bind" {
                command.arg("--rbind");
            } else {
                command.args(["-t", &mount.type_, "-o", &mount.options.join(",")]);
            }
            let mounted = command.arg(&mount.source).arg(&rootfs).status().unwrap();
            if !mounted.success() {
                return Err(refused(Code::INTERNAL, "cannot mount the root"));
            }
        }
        let config = config(&bundle);
        let exec = Exec::new(&config["process"], [&request.stdin, &request.stdout, &request.stderr]);
        let pid = self.0.spawn(&request.id, "", bundle.clone(), exec)?;
        std::fs::write(bundle.join("init.pid"), pid.to_string()).unwrap();
        publish(
            "/tasks/create",
            &TaskCreate { container_id: request.id, bundle: request.bundle, pid, ..Default::default() },
        );
        Ok(CreateTaskResponse { pid, ..Default::default() })
    }

    fn start(&self, _: &TtrpcContext, request: StartRequest) -> ttrpc::Result<StartResponse> {
        note("start-process");
        let (id, exec_id) = (request.id, request.exec_id);
        if !exec_id.is_empty() {
            let (bundle, exec) =
                self.0.act(&id, &exec_id, |process| Ok((process.bundle.clone(), process.request.clone())))?;
            self.0.spawn(&id, &exec_id, bundle, exec)?;
        }
        let pid = self.0.act(&id, &exec_id, |process| {
            process.status = Status::RUNNING;
            Ok(process.pid)
        })?;
        release(pid);
        if exec_id.is_empty() {
            publish("/tasks/start", &TaskStart { container_id: id, pid, ..Default::default() });
        }
        Ok(StartResponse { pid, ..Default::default() })
    }

    fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        note(&format!("exec {}", request.spec.as_ref().map(|any| any.type_url.clone()).unwrap_or_default()));
        let spec: Value = serde_json::from_slice(&request.spec.value).unwrap();
        let exec = Exec::new(&spec, [&request.stdin, &request.stdout, &request.stderr]);
        let bundle = self.0.act(&request.id, "", |init| Ok(init.bundle.clone()))?;
        let process = Process { bundle, request: exec, pid: 0, status: Status::CREATED, exit: None };
        self.0.tasks.lock().unwrap().processes.insert((request.id, request.exec_id), process);
        Ok(Empty::new())
    }

    fn state(&self, _: &TtrpcContext, request: StateRequest) -> ttrpc::Result<StateResponse> {
        self.0.act(&request.id, &request.exec_id, |process| {
            let (exit_status, exited_at) = process.exit.clone().unwrap_or_default();
            Ok(StateResponse {
                id: request.id.clone(),
                bundle: process.bundle.display().to_string(),
                pid: process.pid,
                status: process.status.into(),
                exit_status,
                exited_at,
                ..Default::default()
            })
        })
    }

    fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> ttrpc::Result<WaitResponse> {
        let key = (request.id, request.exec_id);
        let mut tasks = self.0.tasks.lock().unwrap();
        loop {
            let process = tasks.processes.get(&key).ok_or_else(|| refused(Code::NOT_FOUND, "no such process"))?;
            if let Some((exit_status, exited_at)) = process.exit.clone() {
                return Ok(WaitResponse { exit_status, exited_at, ..Default::default() });
            }
            tasks = self.0.changed.wait(tasks).unwrap();
        }
    }

    fn kill(&self, _: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        note(&format!("kill {}", request.signal));
        let pid = self.0.act(&request.id, &request.exec_id, |process| match process.exit {
            Some(_) => Err(refused(Code::NOT_FOUND, "process already finished")),
            None => Ok(process.pid),
        })?;
        signal(pid, request.signal)?;
        Ok(Empty::new())
    }

    fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> ttrpc::Result<Empty> {
        note("pause");
        self.0.act(&request.id, "", |process| {
            // gVisor's has no word for it.
            process.status = if kind() == "runsc" { Status::UNKNOWN } else { Status::PAUSED };
            signal(process.pid, 19)
        })?;
        Ok(Empty::new())
    }

    fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> ttrpc::Result<Empty> {
        note("resume");
        self.0.act(&request.id, "", |process| {
            process.status = Status::RUNNING;
            signal(process.pid, 18)
        })?;
        Ok(Empty::new())
    }

    fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> ttrpc::Result<PidsResponse> {
        note("pids");
        let pid = self.0.act(&request.id, "", |process| Ok(process.pid))?;
        Ok(PidsResponse { processes: vec![ProcessInfo { pid, ..Default::default() }], ..Default::default() })
    }

    fn stats(&self, _: &TtrpcContext, _: StatsRequest) -> ttrpc::Result<StatsResponse> {
        note("stats");
        let any = Any { type_url: "io.containerd.cgroups.v2.Metrics".to_owned(), ..Default::default() };
        Ok(StatsResponse { stats: MessageField::some(any), ..Default::default() })
    }

    fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        note(&format!("update {}", request.resources.type_url));
        Ok(Empty::new())
    }

    fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> ttrpc::Result<Empty> {
        note(&format!("resize {}x{}", request.width, request.height));
        Ok(Empty::new())
    }

    fn close_io(&self, _: &TtrpcContext, _: CloseIORequest) -> ttrpc::Result<Empty> {
        note("close-io");
        Ok(Empty::new())
    }

    fn connect(&self, _: &TtrpcContext, _: ConnectRequest) -> ttrpc::Result<ConnectResponse> {
        Ok(ConnectResponse { shim_pid: std::process::id(), ..Default::default() })
    }

    fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        note("delete");
        let (id, exec_id) = (request.id, request.exec_id);
        let gone =
            self.0.act(&id, &exec_id, |process| Ok((process.pid, process.exit.clone(), process.bundle.clone())))?;
        let (pid, Some((exit_status, exited_at)), bundle) = gone else {
            return Err(refused(Code::FAILED_PRECONDITION, "the process runs"));
        };
        self.0.tasks.lock().unwrap().processes.remove(&(id.clone(), exec_id.clone()));
        if exec_id.is_empty() {
            unmount(&bundle);
            let event = TaskDelete {
                container_id: id.clone(),
                pid,
                exit_status,
                exited_at: exited_at.clone(),
                ..Default::default()
            };
            publish("/tasks/delete", &event);
        }
        Ok(DeleteResponse { pid, exit_status, exited_at, ..Default::default() })
    }

    fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> ttrpc::Result<Empty> {
        note("shutdown");
        let mut tasks = self.0.tasks.lock().unwrap();
        tasks.is_over = tasks.processes.is_empty();
        self.0.changed.notify_all();
        Ok(Empty::new())
    }
}
