//! S-118, S-087, S-155: `kill -9` of the daemon in pull, load, commit and rmi, at their fault points and at random moments. The store opens, fsck finds
//! nothing, what was acknowledged is there, and a pull that goes on fetches at most 5 % twice.
//!
//! The short form makes some kills; `make soak` makes `BERTH_CRASH_POINTS` (1,000). `BERTH_SEED` replays a run.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use berth_testkit::dice::{Dice, number};
use berth_testkit::registry::{DockerRegistry, Wire, noise};
use berth_testkit::{Image, Instance, LayerFile, wait_until};

/// Bytes of each of the two layers of the image that is pulled.
const LAYER_BYTES: usize = 4 << 20;
const POINTS: u64 = 8;

fn two_layers(reference: &str, length: usize, seed: u64) -> Image {
    let layer = |n: u64| vec![LayerFile::program(&format!("noise-{n}"), noise(length, seed + n))];
    Image::new(reference).layer(layer(0)).layer(layer(1))
}

fn pause(duration: Duration) {
    // Nobody sends: it is a clock.
    let (_sender, clock) = channel::<()>();
    assert!(clock.recv_timeout(duration).is_err());
}

/// Everything is in order, and nothing half done is left but what a pull goes on with.
#[track_caller]
fn check_store(berth: &Instance, after: &str) {
    let checked = berth.berth(&["fsck"]);
    assert!(checked.ok().ends_with("all in order"), "after {after}: {checked:?}");
    for driver in std::fs::read_dir(berth.root().join("snapshots")).unwrap().flatten() {
        let pending = std::fs::read_dir(driver.path().join("pending")).unwrap().count();
        assert_eq!(pending, 0, "after {after}: layers that nobody unpacks");
    }
    for ingest in std::fs::read_dir(berth.root().join("content/ingest")).unwrap().flatten() {
        let about = std::fs::read_to_string(ingest.path().join("about.json")).unwrap_or_default();
        assert!(about.contains("\".fetch\""), "after {after}: {} {about}", ingest.path().display());
    }
}

/// S-155, S-118: a failure and a kill after each step of a pull and of an image's removal: it is done or undone, and can be done again.
#[test]
fn s155_pull_and_rmi_at_every_step() {
    let registry = DockerRegistry::start();
    registry.put(&two_layers("p:1", 200_000, 1).oci_archive(), "p:1");
    let name = registry.name("p:1");
    let mut berth = Instance::start();
    let seen = berth.directory.join("faults.seen");
    let mut walked = 0;
    for words in [["pull", &name], ["rmi", &name]] {
        let prepare = |berth: &Instance| match words[0] {
            "pull" => drop(berth.berth(&["rmi", "-f", &name])),
            _ => drop(berth.berth(&["pull", "-q", &name]).ok().to_owned()),
        };
        prepare(&berth);
        drop(std::fs::remove_file(&seen));
        std::fs::write(berth.fault_points(), "record").unwrap();
        berth.berth(&words).ok();
        std::fs::remove_file(berth.fault_points()).unwrap();
        let steps: Vec<String> = std::fs::read_to_string(&seen).unwrap().lines().map(str::to_owned).collect();
        assert!(steps.len() >= 3, "{words:?}: {steps:?}");
        for (index, step) in steps.iter().enumerate() {
            let after = format!("{} killed after {step}", words[0]);
            prepare(&berth);
            std::fs::write(berth.fault_points(), format!("kill {}", index + 1)).unwrap();
            let mut client = quiet(berth.berth_command(&words));
            berth.await_daemon_death();
            client.wait().unwrap();
            berth.spawn();
            check_store(&berth, &after);
            walked += 1;
            if step.ends_with('!') {
                continue;
            }
            prepare(&berth);
            std::fs::write(berth.fault_points(), format!("fail {}", index + 1)).unwrap();
            let failed = berth.berth(&words);
            assert_eq!(failed.code, 125, "{step}: {failed:?}");
            assert!(!berth.fault_points().exists(), "{step} was not reached");
            assert!(failed.stderr.contains(&format!("injected failure after step {step}")), "{failed:?}");
            check_store(&berth, &format!("{} failed after {step}", words[0]));
        }
    }
    assert!(walked >= 8, "only {walked} steps");
    berth.berth(&["pull", "-q", &name]).ok();
}

fn quiet(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// What the daemon is doing when it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Pull,
    Load,
    Commit,
    Remove,
}

/// One store and what was acknowledged of it.
struct Walk {
    berth: Instance,
    wire: Wire,
    pulled: String,
    /// Its layers, packed: noise grows.
    pulled_bytes: f64,
    archives: std::path::PathBuf,
    /// Names that must be there. What may be there is not in it.
    has: BTreeSet<String>,
    made: u64,
    dice: Dice,
    point: u64,
}

impl Walk {
    fn new(registry: &DockerRegistry, seed: u64) -> Self {
        registry.put(&two_layers("p:1", LAYER_BYTES, 1).oci_archive(), "p:1");
        let berth = Instance::with_busybox();
        let archives = berth.directory.join("archive.tar");
        let wire = Wire::to(registry.port);
        let pulled = wire.name("p:1");
        let manifest = berth.berth(&["manifest", "inspect", &pulled]).ok().to_owned();
        let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        let pulled_bytes = layers.iter().map(|layer| layer["size"].as_f64().unwrap()).sum();
        berth.berth(&["create", "--name", "c1", "busybox", "true"]).ok();
        let has = BTreeSet::from(["busybox:latest".to_owned()]);
        Self { berth, wire, pulled, pulled_bytes, archives, has, made: 0, dice: Dice(seed), point: 0 }
    }

    /// Does something, kills the daemon in it, and looks at what is left.
    fn step(&mut self) {
        self.point += 1;
        let doing = match self.dice.roll(6) {
            0..=2 => Doing::Pull,
            3 => Doing::Load,
            4 => Doing::Commit,
            _ => Doing::Remove,
        };
        let (name, command) = self.command(doing);
        let after = format!("{doing:?} at point {}", self.point);
        self.wire.reset();
        let mut client = quiet(command);
        let longest = if doing == Doing::Pull { 4_200_000 } else { 150_000 };
        pause(Duration::from_micros(self.dice.roll(longest)));
        self.berth.kill_daemon();
        let is_acknowledged = client.wait().unwrap().success();
        self.berth.spawn();
        check_store(&self.berth, &after);
        match (doing, is_acknowledged) {
            (Doing::Remove, true) => {
                let shown = self.berth.berth(&["image", "inspect", &name]);
                assert_eq!(shown.code, 125, "{name} was removed, after {after}: {shown:?}");
            }
            (Doing::Pull | Doing::Load | Doing::Commit, true) => drop(self.has.insert(name.clone())),
            _ => {}
        }
        for name in &self.has {
            self.berth.berth(&["image", "inspect", name]).ok();
        }
        if doing == Doing::Pull {
            self.finish_pull(&after);
        }
        if self.has.len() > 8 {
            for name in std::mem::take(&mut self.has).into_iter().filter(|name| name.starts_with("made")) {
                self.berth.berth(&["rmi", "-f", &name]).ok();
            }
            self.has.insert("busybox:latest".to_owned());
        }
    }

    fn command(&mut self, doing: Doing) -> (String, Command) {
        self.made += 1;
        let name = format!("made:{}", self.made);
        let berth = &self.berth;
        let words: Vec<&str> = match doing {
            Doing::Pull => return (self.pulled.clone(), berth.berth_command(&["pull", "-q", &self.pulled])),
            Doing::Load => {
                let seed = 100 + self.made * 2;
                std::fs::write(&self.archives, two_layers(&name, 300_000, seed).docker_archive()).unwrap();
                vec!["load", "-q", "-i", self.archives.to_str().unwrap()]
            }
            Doing::Commit => vec!["commit", "c1", &name],
            Doing::Remove => {
                berth.berth(&["commit", "c1", &name]).ok();
                vec!["rmi", &name]
            }
        };
        let command = berth.berth_command(&words);
        (name, command)
    }

    /// The pull goes on where it was, and its image is whole; then it goes, for the next time.
    fn finish_pull(&mut self, after: &str) {
        self.berth.berth(&["pull", "-q", &self.pulled]).ok();
        let size = self.pulled_bytes;
        // Heads, manifest and config, twice.
        let came = self.wire.bytes() as f64 - 16_384.0;
        assert!(came <= size * 1.05, "after {after}: {came} bytes came for {size}");
        let name = self.pulled.clone();
        check_store(&self.berth, after);
        self.berth.berth(&["rmi", &name]).ok();
        self.has.remove(&name);
    }
}

/// S-118: kill -9 at random moments of pull, load, commit and rmi.
#[test]
fn s118_kills_at_random_points_of_transfers() {
    let seed = number("BERTH_SEED").unwrap_or(20_261_126);
    let points = number("BERTH_CRASH_POINTS").unwrap_or(POINTS);
    println!("BERTH_SEED={seed}");
    let registry = DockerRegistry::start();
    let mut walk = Walk::new(&registry, seed);
    // Slow: what a starved daemon has not read yet when it is killed is lost, some 150 ms of the wire.
    walk.wire.pause(Duration::from_millis(16));
    for _ in 0..points {
        walk.step();
    }
    let pending = || std::fs::read_dir(walk.berth.root().join("content/ingest")).unwrap().count();
    wait_until("no ingest is left", || (pending() == 0).then_some(()));
}
