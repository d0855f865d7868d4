//! S-118, S-131, S-132, S-155: kill -9 of the daemon at random moments under a mixed load, and of shims. Seeded: `BERTH_SEED` replays a run.
//!
//! The short form makes some kills; `make soak` (`BERTH_SOAK`: seconds) goes on as long as it is told; `BERTH_KILLS` tells their number.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use berth_testkit::dice::{Dice, number};
use berth_testkit::instance::run;
use berth_testkit::registry::{DockerRegistry, noise};
use berth_testkit::{Image, Instance, LayerFile, Output, Traces, peers, wait_until};

/// Counts of links and namespaces are the machine's: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const WORKERS: u64 = 4;
const KILLS: u64 = 6;
/// Of one worker: all of them together fit into the network's addresses, however long it goes on.
const CONTAINERS_MAX: usize = 40;
/// Where the machine is free it is 2 s: the slowest is printed. A test gives up, it does not measure.
const READY_MAX: Duration = Duration::from_secs(20);

/// A client of the instance that needs no hold on it.
#[derive(Clone)]
struct Client {
    socket: PathBuf,
}

impl Client {
    fn berth(&self, words: &[&str]) -> Output {
        let mut command = Command::new(peers::binaries().join("berth"));
        command.env("BERTH_HOST", format!("unix://{}", self.socket.display())).args(words);
        run(command, b"")
    }
}

/// One worker: what it was told is there must stay there.
struct Worker {
    client: Client,
    number: u64,
    dice: Dice,
    made: u64,
    containers: Vec<String>,
    images: Vec<String>,
    /// In a registry; nobody else pulls it.
    pulled: String,
}

impl Worker {
    fn work(&mut self) {
        match self.dice.roll(11) {
            0 | 1 if self.containers.len() < CONTAINERS_MAX => self.run_detached(),
            2 => self.exec(),
            3 => {
                let ended = self.client.berth(&["run", "--rm", "busybox", "sh", "-c", "exit 5"]);
                assert!([5, 125].contains(&ended.code), "run --rm of exit 5: {ended:?}");
            }
            4 => self.commit(),
            0 | 1 | 5 => self.remove(),
            6 => {
                let tail = self.client.berth(&["logs", "-n", "20", "writer"]);
                check_lines(&tail.stdout);
            }
            7 => drop(self.client.berth(&["events", "--since", "1m", "--until", "0s"])),
            8 | 9 => self.pull(),
            _ => self.restart(),
        }
        self.check();
    }

    fn some(&mut self) -> Option<String> {
        let count = u64::try_from(self.containers.len()).unwrap();
        (count > 0).then(|| self.containers[usize::try_from(self.dice.roll(count)).unwrap()].clone())
    }

    fn run_detached(&mut self) {
        self.made += 1;
        let name = format!("w{}-{}", self.number, self.made);
        let started = self.client.berth(&["run", "-d", "--name", &name, "busybox", "sleep", "1000000"]);
        if started.code == 0 {
            self.containers.push(name);
        }
    }

    fn exec(&mut self) {
        let name = self.some().unwrap_or_else(|| "idle".to_owned());
        let ended = self.client.berth(&["exec", &name, "sh", "-c", "echo said; exit 7"]);
        assert!([7, 125].contains(&ended.code), "exec of exit 7 in {name}: {ended:?}");
        assert!(ended.code != 7 || ended.stdout == "said\n", "{ended:?}");
    }

    fn commit(&mut self) {
        let Some(name) = self.some() else { return };
        self.made += 1;
        let image = format!("image{}:{}", self.number, self.made);
        if self.client.berth(&["commit", &name, &image]).code == 0 {
            self.images.push(image);
        }
    }

    /// Takes the image away where it is there, and fetches it where it is not.
    fn pull(&mut self) {
        let count = self.images.len();
        self.images.retain(|other| *other != self.pulled);
        if self.images.len() == count {
            if self.client.berth(&["pull", "-q", &self.pulled]).code == 0 {
                self.images.push(self.pulled.clone());
            }
        } else if self.client.berth(&["rmi", &self.pulled]).code == 0 {
            let shown = self.client.berth(&["image", "inspect", &self.pulled]);
            assert_eq!(shown.code, 125, "{} was removed: {shown:?}", self.pulled);
        }
    }

    fn remove(&mut self) {
        let Some(name) = self.some() else { return };
        self.containers.retain(|other| *other != name);
        if self.client.berth(&["rm", "-f", &name]).code == 0 {
            let shown = self.client.berth(&["inspect", &name]);
            assert_eq!(shown.code, 125, "{name} was removed: {shown:?}");
        }
    }

    fn restart(&mut self) {
        let Some(name) = self.some() else { return };
        self.client.berth(&["restart", "-t", "0", &name]);
        // Cut short it may be stopped; started again it must come up or say that nobody answers.
        self.client.berth(&["start", &name]);
    }

    /// Whatever was acknowledged is known, by every daemon that answers.
    fn check(&mut self) {
        for (kind, names) in [("container", &self.containers), ("image", &self.images)] {
            let Some(name) = names.last() else { continue };
            let shown = self.client.berth(&["inspect", "--type", kind, name]);
            let is_unanswered = shown.stderr.contains("cannot connect to the daemon");
            let is_lost = !is_unanswered && shown.stderr.to_lowercase().contains("no such");
            assert!(!is_lost, "{kind} {name} was acknowledged and is lost: {shown:?}");
        }
    }
}

/// Numbered lines without gap or repetition.
fn check_lines(text: &str) {
    let numbers: Vec<u64> = text.lines().map(|line| line.parse().unwrap_or_else(|_| panic!("{line:?}"))).collect();
    for pair in numbers.windows(2) {
        assert_eq!(pair[1], pair[0] + 1, "a line is lost or doubled");
    }
}

fn seed() -> u64 {
    number("BERTH_SEED").unwrap_or(20_240_601)
}

fn soak() -> Option<Duration> {
    number("BERTH_SOAK").map(Duration::from_secs)
}

/// An image for each worker, of a layer of its own and one that all have.
fn filled_registry() -> DockerRegistry {
    let registry = DockerRegistry::start();
    for worker in 0..WORKERS {
        let layer = |seed: u64| vec![LayerFile::program(&format!("noise-{seed}"), noise(1 << 20, seed))];
        let image = Image::new("k:1").layer(layer(99)).layer(layer(worker));
        registry.put(&image.oci_archive(), &format!("k{worker}:1"));
    }
    registry
}

/// S-118, S-132, S-155: the daemon is killed at random moments while four workers start, exec, pull, commit, restart, remove and read. After each
/// kill it is ready; containers that run keep their process, ended ones their code; what was acknowledged is there; no line of a
/// log is lost or doubled; in the end nothing is left.
#[test]
fn s155_random_kills_under_load() {
    let _alone = alone();
    let seed = seed();
    println!("BERTH_SEED={seed}");
    let registry = filled_registry();
    let mut berth = Instance::with_busybox();
    berth.busybox(&[], &["true"]).ok();
    pull_once(&berth, &registry);
    let idle = Traces::idle(&berth);
    let writer = "i=0; while :; do echo $i; i=$((i+1)); usleep 1000; done";
    berth.berth(&["run", "-d", "--name", "writer", "busybox", "sh", "-c", writer]).ok();
    // The long form takes longer than other sleepers sleep.
    berth.berth(&["run", "-d", "--name", "idle", "-p", "127.0.0.1:0:80", "busybox", "sleep", "1000000"]).ok();
    let steady = [("writer", berth.pid("writer")), ("idle", berth.pid("idle"))];
    let address = berth.inspect("idle", "{{.NetworkSettings.IPAddress}} {{json .NetworkSettings.Ports}}");

    let done = Arc::new(AtomicU64::new(0));
    let is_over = Arc::new(AtomicBool::new(false));
    let client = Client { socket: berth.socket() };
    let workers: Vec<_> = (0..WORKERS)
        .map(|number| {
            let (client, done, is_over) = (client.clone(), Arc::clone(&done), Arc::clone(&is_over));
            let dice = Dice(seed.wrapping_add(number));
            let pulled = registry.name(&format!("k{number}:1"));
            let mut worker =
                Worker { client, number, dice, made: 0, containers: Vec::new(), images: Vec::new(), pulled };
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    worker.work();
                    done.fetch_add(1, Ordering::Relaxed);
                }
                worker
            })
        })
        .collect();

    let mut dice = Dice(seed ^ 0xdead);
    let begin = Instant::now();
    let (mut kills, mut slowest) = (0, Duration::ZERO);
    let is_due = |kills| match (number("BERTH_KILLS"), soak()) {
        (None, Some(length)) => begin.elapsed() < length,
        (number, _) => kills < number.unwrap_or(KILLS),
    };
    while is_due(kills) && !workers.iter().any(|w| w.is_finished()) {
        // So many operations of the workers later, in the middle of the next ones.
        let due = done.load(Ordering::Relaxed) + dice.roll(8);
        wait_until("the workers get on", || {
            (done.load(Ordering::Relaxed) >= due || workers.iter().any(|w| w.is_finished())).then_some(())
        });
        let code = dice.roll(100).to_string();
        let script = format!("usleep {}; exit {code}", dice.roll(200_000));
        let ending = format!("e{kills}");
        let is_started = berth.berth(&["run", "-d", "--name", &ending, "busybox", "sh", "-c", &script]).code == 0;
        berth.kill_daemon();
        let restart = Instant::now();
        berth.spawn();
        slowest = slowest.max(restart.elapsed());
        assert!(slowest < READY_MAX, "ready after {slowest:?}, seed {seed}");
        for (name, pid) in steady {
            assert_eq!(berth.pid(name), pid, "{name} has another process after kill {kills}, seed {seed}");
        }
        assert_eq!(berth.berth(&["exec", "idle", "echo", "here"]).ok(), "here");
        let now = berth.inspect("idle", "{{.NetworkSettings.IPAddress}} {{json .NetworkSettings.Ports}}");
        assert_eq!(now, address);
        if is_started {
            assert_eq!(berth.berth(&["wait", &ending]).ok(), code, "exit code over kill {kills}, seed {seed}");
        }
        berth.berth(&["rm", "-f", &ending]);
        kills += 1;
        if kills % 100 == 0 {
            println!("{kills} kills, {} operations; ready after {slowest:?} at most", done.load(Ordering::Relaxed));
        }
    }
    is_over.store(true, Ordering::Relaxed);
    let workers: Vec<Worker> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
    println!("{kills} kills, {} operations; ready after {slowest:?} at most", done.load(Ordering::Relaxed));

    for worker in &workers {
        for container in &worker.containers {
            berth.berth(&["inspect", container]).ok();
        }
        for image in &worker.images {
            berth.berth(&["image", "inspect", image]).ok();
        }
    }
    check_lines(berth.berth(&["logs", "writer"]).ok());
    pull_once(&berth, &registry);
    clean(&berth);
    assert!(berth.berth(&["fsck"]).ok().ends_with("all in order"), "{kills} kills with seed {seed}");
    idle.await_again(&berth, &format!("{kills} kills with seed {seed}"));
    check_lives(&berth);
}

/// A daemon that has pulled holds what pulls need (a runtime's descriptors) for its life.
fn pull_once(berth: &Instance, registry: &DockerRegistry) {
    // Each of them: what a pull that was cut off has left is for the next one to go on with.
    for worker in 0..WORKERS {
        let image = registry.name(&format!("k{worker}:1"));
        berth.berth(&["pull", "-q", &image]).ok();
        berth.berth(&["rmi", &image]).ok();
    }
}

fn clean(berth: &Instance) {
    for id in berth.berth(&["ps", "-aq", "--no-trunc"]).ok().lines() {
        berth.berth(&["rm", "-f", "-v", id]).ok();
    }
    let images = berth.berth(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok().to_owned();
    for image in images.lines().filter(|name| name.starts_with("image") || name.starts_with("127.")) {
        berth.berth(&["rmi", "-f", image]);
    }
    berth.berth(&["image", "prune", "-f"]).ok();
}

/// S-120: every container that was told of was created first and destroyed last; each start has its end; numbers have no gap.
fn check_lives(berth: &Instance) {
    let told = berth.berth(&["events", "--since", "24h", "--until", "0s", "--json"]);
    let mut last = None;
    let mut lives: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
    for line in told.ok().lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let number = event["sequence"].as_u64().unwrap();
        assert!(last.is_none_or(|last| number == last + 1), "{last:?} before {number}");
        last = Some(number);
        let action = event["Action"].as_str().unwrap();
        if event["Type"] == "container" && ["create", "start", "die", "destroy"].contains(&action) {
            lives.entry(event["Actor"]["ID"].as_str().unwrap().to_owned()).or_default().push(action.to_owned());
        }
    }
    for (id, life) in lives {
        let runs = life.len().saturating_sub(2) / 2;
        let legal: Vec<&str> =
            std::iter::once("create").chain(["start", "die"].repeat(runs)).chain(std::iter::once("destroy")).collect();
        assert_eq!(life, legal, "container {id}");
    }
}

/// S-132: a shim that is killed takes its container along; that is told with a reason within 5 s, and all of it can be removed.
#[test]
fn s132_a_killed_shim_is_reported() {
    let _alone = alone();
    let mut berth = Instance::with_busybox();
    berth.busybox(&[], &["true"]).ok();
    let idle = Traces::idle(&berth);
    for is_daemon_down in [false, true] {
        berth.sleeper("c1", &["-p", "127.0.0.1:0:80"]);
        berth.berth(&["exec", "-d", "c1", "sleep", "1000"]).ok();
        let pid = berth.pid("c1");
        let shim = parent(pid);
        let name = std::fs::read_to_string(format!("/proc/{shim}/comm")).unwrap();
        assert!(name.contains("shim"), "S-131: the parent of the container is its shim, not {name}");
        if is_daemon_down {
            berth.kill_daemon();
        }
        kill(shim);
        if is_daemon_down {
            berth.spawn();
        }
        let begin = Instant::now();
        let state = wait_until("the container is reported dead", || {
            let state = berth.inspect("c1", "{{.State.Status}}|{{.State.Pid}}|{{.State.ExitCode}}|{{.State.Error}}");
            assert!(begin.elapsed() < Duration::from_secs(40), "{state}\n{}", berth.log());
            state.starts_with("exited|0|137|").then_some(state)
        });
        println!("told after {:?}", begin.elapsed());
        assert!(state.len() > "exited|0|137|".len(), "no reason is given: {state}");
        wait_until("its process is gone", || (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
        berth.berth(&["start", "c1"]).ok();
        berth.berth(&["rm", "-f", "c1"]).ok();
        idle.await_again(&berth, "a killed shim");
    }
}

fn parent(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}
