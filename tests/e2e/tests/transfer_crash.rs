//! S-118, S-087, S-155: `kill -9` of the daemon in pull, load, commit and rmi, at their fault points and at random moments. The store opens, fsck finds
//! nothing, what was acknowledged is there, and a pull that goes on fetches at most 5 % twice.
//!
//! The short form makes some kills; `make soak` makes `BERTH_CRASH_POINTS` (1,000). `BERTH_SEED` replays a run.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use berth_testkit::dice::{Dice, number};
use berth_testkit::registry::{DockerRegistry, Wire, noise};
use berth_testkit::{Image, Instance, LayerFile, wait_until};

/// Bytes of each of the two layers of the image that is pulled.
const LAYER_BYTES: usize = 4 << 20;
const POINTS: u64 = 8;
/// Of the wire. Slow: what a starved daemon has not read yet when it is killed is lost, some 150 ms of it.
const PAUSE: Duration = Duration::from_millis(16);

fn two_layers(reference: &str, length: usize, seed: u64) -> Image {
    let layer = |n: u64| vec![LayerFile::program(&format!("noise-{n}"), noise(length, seed + n))];
    Image::new(reference).layer(layer(0)).layer(layer(1))
}

/// Some files and noise, in two layers: it takes a while to load and to remove.
fn many_files(reference: &str, seed: u64) -> Image {
    let layer = |n: u64| {
        let mut files = vec![LayerFile::program(&format!("noise-{n}"), noise(300_000, seed + n))];
        files.extend((0..60).map(|i| LayerFile::text(&format!("file-{n}-{i}"), &format!("{seed} {i}"))));
        files
    };
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Doing {
    Pull,
    Load,
    Commit,
    Remove,
}

const ALL: [Doing; 4] = [Doing::Pull, Doing::Load, Doing::Commit, Doing::Remove];

/// One operation: the name that it makes or removes, the image's id where it is known before, and its client.
struct Operation {
    name: String,
    id: Option<String>,
    command: Command,
}

/// How often an operation was cut short by a kill, and how often it had been acknowledged before it.
#[derive(Debug, Default)]
struct Count {
    acknowledged: u64,
    cut: u64,
}

/// One store and what is known of it.
struct Walk {
    berth: Instance,
    wire: Wire,
    pulled: String,
    pulled_id: String,
    /// Its layers, packed: noise grows.
    pulled_bytes: f64,
    archive: std::path::PathBuf,
    /// Every name with its image's id: no more and no less must be listed.
    has: BTreeMap<String, String>,
    made: u64,
    dice: Dice,
    point: u64,
    /// What each operation takes from its client's start to its end, undisturbed.
    length: BTreeMap<Doing, Duration>,
    counts: BTreeMap<Doing, Count>,
    recoveries_cut: u64,
}

impl Walk {
    fn new(registry: &DockerRegistry, seed: u64) -> Self {
        registry.put(&two_layers("p:1", LAYER_BYTES, 1).oci_archive(), "p:1");
        let berth = Instance::with_busybox();
        let archive = berth.directory.join("archive.tar");
        let wire = Wire::to(registry.port);
        wire.pause(PAUSE);
        let pulled = wire.name("p:1");
        let manifest = berth.berth(&["manifest", "inspect", &pulled]).ok().to_owned();
        let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        let pulled_bytes = layers.iter().map(|layer| layer["size"].as_f64().unwrap()).sum();
        let pulled_id = manifest["config"]["digest"].as_str().unwrap().to_owned();
        let script =
            "mkdir /files; for i in $(seq 300); do echo $i > /files/$i; done; dd if=/dev/urandom of=/big bs=1M count=2";
        berth.berth(&["run", "--name", "c1", "busybox", "sh", "-c", script]).ok();
        let mut walk = Self {
            berth,
            wire,
            pulled,
            pulled_id,
            pulled_bytes,
            archive,
            has: BTreeMap::new(),
            made: 0,
            dice: Dice(seed),
            point: 0,
            length: BTreeMap::new(),
            counts: BTreeMap::new(),
            recoveries_cut: 0,
        };
        walk.has = walk.listed();
        walk.measure();
        walk
    }

    /// Does everything once without a kill, so that the kills go all over it.
    fn measure(&mut self) {
        for doing in ALL {
            let operation = self.prepare(doing);
            let begin = Instant::now();
            assert!(quiet(operation.command).wait().unwrap().success(), "{doing:?}");
            self.length.insert(doing, begin.elapsed());
            self.berth.berth(&["rmi", "-f", &operation.name]);
            self.has.remove(&operation.name);
        }
        println!("undisturbed: {:?}", self.length);
    }

    /// Names and ids of all images that the daemon lists.
    fn listed(&self) -> BTreeMap<String, String> {
        let format = "{{.Repository}}:{{.Tag}} {{.ID}}";
        let images = self.berth.berth(&["images", "--no-trunc", "--format", format]);
        let pairs = images.ok().lines().map(|line| line.split_once(' ').unwrap());
        pairs.filter(|(name, _)| *name != "<none>:<none>").map(|(name, id)| (name.to_owned(), id.to_owned())).collect()
    }

    /// Does something, kills the daemon in it, and looks at what is left.
    fn step(&mut self) {
        self.point += 1;
        let doing = ALL[usize::try_from(self.dice.roll(4)).unwrap()];
        let Operation { name, id, mut command } = self.prepare(doing);
        self.wire.reset();
        let client = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let longest = self.length[&doing] * 11 / 10;
        let moment = self.dice.roll(u64::try_from(longest.as_micros()).unwrap());
        pause(Duration::from_micros(moment));
        self.berth.kill_daemon();
        let client = client.wait_with_output().unwrap();
        let is_acknowledged = client.status.success();
        self.adapt(doing, Duration::from_micros(moment), is_acknowledged);
        let count = self.counts.entry(doing).or_default();
        if is_acknowledged {
            count.acknowledged += 1;
        } else {
            count.cut += 1;
        }
        let after = format!("point {}: {doing:?} of {name} killed after {moment} us", self.point);
        self.recover();
        check_store(&self.berth, &after);
        let told = String::from_utf8_lossy(&client.stdout).trim().to_owned();
        let id = if doing == Doing::Commit && is_acknowledged { Some(told) } else { id };
        self.check_names(doing, &name, id.as_deref(), is_acknowledged, &after);
        match doing {
            Doing::Pull => self.finish_pull(&after),
            Doing::Commit if self.has.contains_key(&name) => {
                // Byte for byte what was committed is what fsck cannot know.
                let number = self.berth.berth(&["run", "--rm", &name, "sh", "-c", "cat /root/n; ls /files | wc -l"]);
                assert_eq!(number.ok(), format!("{}300", self.made), "{after}");
            }
            _ => {}
        }
        if self.has.len() > 8 {
            let made: Vec<String> = self.has.keys().filter(|name| name.starts_with("made")).cloned().collect();
            for name in made {
                self.berth.berth(&["rmi", "-f", &name]).ok();
                self.has.remove(&name);
            }
        }
    }

    /// A busy machine takes longer than was measured, a quiet one less: the kills go on reaching the end of it, and the middle.
    fn adapt(&mut self, doing: Doing, moment: Duration, is_acknowledged: bool) {
        let length = self.length.get_mut(&doing).unwrap();
        match is_acknowledged {
            true if moment < *length * 8 / 10 => *length = *length * 19 / 20,
            false if moment > *length => *length = *length * 11 / 10,
            _ => {}
        }
    }

    /// The next daemon; one in six is killed, too, while it recovers.
    fn recover(&mut self) {
        while self.dice.roll(6) == 0 {
            self.berth.launch();
            pause(Duration::from_micros(self.dice.roll(60_000)));
            self.berth.kill_daemon();
            self.recoveries_cut += 1;
        }
        self.berth.spawn();
    }

    /// Every name is there with the image that it had; the one that was at work is as acknowledged, or as before or after where it was not.
    fn check_names(&mut self, doing: Doing, name: &str, id: Option<&str>, is_acknowledged: bool, after: &str) {
        let mut listed = self.listed();
        let found = listed.remove(name);
        let had = self.has.remove(name);
        assert_eq!(listed, self.has, "{after}: other names");
        match (doing, is_acknowledged) {
            (Doing::Remove, true) => assert_eq!(found, None, "{after}: it was removed"),
            (Doing::Remove, false) => assert!(found.is_none() || found == had, "{after}: {found:?} was {had:?}"),
            (_, true) => assert_eq!(found.as_deref(), id, "{after}: it was acknowledged"),
            (_, false) => {
                assert!(found.is_none() || id.is_none() || found.as_deref() == id, "{after}: {found:?} is not {id:?}");
            }
        }
        if let Some(found) = found {
            self.berth.berth(&["image", "inspect", name]).ok();
            self.has.insert(name.to_owned(), found);
        }
    }

    fn prepare(&mut self, doing: Doing) -> Operation {
        self.made += 1;
        let name = format!("made:{}", self.made);
        let berth = &self.berth;
        let load = ["load", "-q", "-i", self.archive.to_str().unwrap()];
        if matches!(doing, Doing::Load | Doing::Remove) {
            let image = many_files(&name, 100 + self.made * 2);
            std::fs::write(&self.archive, image.docker_archive()).unwrap();
            let id = Some(image.id());
            if doing == Doing::Load {
                return Operation { name, id, command: berth.berth_command(&load) };
            }
            berth.berth(&load).ok();
            self.has.insert(name.clone(), image.id());
            return Operation { id, command: berth.berth_command(&["rmi", &name]), name };
        }
        if doing == Doing::Pull {
            let command = berth.berth_command(&["pull", "-q", &self.pulled]);
            return Operation { name: self.pulled.clone(), id: Some(self.pulled_id.clone()), command };
        }
        let number = berth.directory.join("n");
        std::fs::write(&number, self.made.to_string()).unwrap();
        berth.berth(&["cp", number.to_str().unwrap(), "c1:/root/n"]).ok();
        Operation { id: None, command: berth.berth_command(&["commit", "c1", &name]), name }
    }

    /// The pull goes on where it was, and its image is whole; then it goes, for the next time.
    fn finish_pull(&mut self, after: &str) {
        self.wire.pause(Duration::ZERO);
        self.berth.berth(&["pull", "-q", &self.pulled]).ok();
        self.wire.pause(PAUSE);
        let size = self.pulled_bytes;
        // Heads, manifest and config, twice.
        let came = self.wire.bytes() as f64 - 16_384.0;
        assert!(came <= size * 1.05, "after {after}: {came} bytes came for {size}");
        let name = self.pulled.clone();
        check_store(&self.berth, after);
        assert_eq!(self.listed().get(&name), Some(&self.pulled_id), "{after}");
        self.berth.berth(&["rmi", &name]).ok();
        self.has.remove(&name);
    }
}

/// S-118: kill -9 at random moments of pull, load, commit and rmi, and of the recovery from them.
#[test]
fn s118_kills_at_random_points_of_transfers() {
    let seed = number("BERTH_SEED").unwrap_or(20_261_126);
    let points = number("BERTH_CRASH_POINTS").unwrap_or(POINTS);
    println!("BERTH_SEED={seed}");
    let registry = DockerRegistry::start();
    let mut walk = Walk::new(&registry, seed);
    for _ in 0..points {
        walk.step();
        if walk.point.is_multiple_of(100) {
            println!("{} points: {:?}; {} recoveries were killed too", walk.point, walk.counts, walk.recoveries_cut);
        }
    }
    println!("{} points: {:?}; {} recoveries were killed too", walk.point, walk.counts, walk.recoveries_cut);
    let left = |directory: &str| std::fs::read_dir(walk.berth.root().join(directory)).map_or(0, Iterator::count);
    wait_until("no ingest is left", || (left("content/ingest") == 0).then_some(()));
    wait_until("the trash is empty", || (left("trash") == 0).then_some(()));
}
