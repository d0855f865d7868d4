//! Events of both faces as containerd's clients get them.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use berth_testkit::{Instance, wait_until};

use berth_containerd_api::containerd::services::snapshots::v1::PrepareSnapshotRequest;
use berth_containerd_api::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;

use super::client::{Client, block_on};
use super::{ctr_exec, ctr_run};

static PROBES: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

/// A client that follows, with what it has printed so far.
struct Follower {
    child: Child,
    lines: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
}

impl Follower {
    fn start(instance: &Instance, filters: &[&str]) -> Self {
        let mut command = instance.ctr_command(&[&["events"], filters].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let (reader, into) = (BufReader::new(child.stdout.take().unwrap()), lines.clone());
        std::thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                into.lock().unwrap().push(line);
            }
        });
        let follower = Self { child, lines };
        // It follows when it sees what we do.
        wait_until("the client follows", || {
            let n = PROBES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            instance.ctr(&["namespaces", "create", &format!("probe{n}")]).ok();
            let seen = follower.lines.lock().unwrap().iter().any(|line| line.contains("/namespaces/create"));
            (seen || !filters.is_empty()).then_some(())
        });
        follower
    }

    /// Topics of a container, in order.
    fn topics(&self, id: &str) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        let about = lines.iter().filter(|line| line.contains(&format!("\"{id}\"")));
        about.map(|line| line.split_whitespace().find(|word| word.starts_with('/')).unwrap().to_owned()).collect()
    }

    fn wait_for(&self, id: &str, topics: &[&str]) {
        wait_until("all events have come", || (self.topics(id) == topics).then_some(()));
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("events: {:#?}", self.lines.lock().unwrap());
        }
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// S-120, S-121: each change of a container exactly once and in the legal order, whichever face made it; two subscribers get the same.
#[test]
fn s120_events_of_both_faces() {
    let instance = Instance::with_busybox();
    let followers = [Follower::start(&instance, &[]), Follower::start(&instance, &[])];
    ctr_run(&instance, &["-d"], "web", &["sleep", "1000"]).ok();
    ctr_exec(&instance, "web", "e1", &["true"]).ok();
    instance.ctr(&["tasks", "pause", "web"]).ok();
    instance.ctr(&["tasks", "resume", "web"]).ok();
    instance.berth(&["rm", "-f", "web"]).ok();
    let id = instance.sleeper("other", &[]);
    instance.berth(&["exec", "other", "true"]).ok();
    instance.berth(&["rm", "-f", "other"]).ok();
    for follower in &followers {
        follower.wait_for(
            "web",
            &[
                "/snapshot/prepare",
                "/containers/create",
                "/tasks/create",
                "/tasks/start",
                "/tasks/exec-added",
                "/tasks/exec-started",
                "/tasks/exit",
                "/tasks/delete",
                "/tasks/paused",
                "/tasks/resumed",
                "/tasks/exit",
                "/tasks/delete",
                "/containers/delete",
            ],
        );
        follower.wait_for(
            &id,
            &[
                "/containers/create",
                "/tasks/create",
                "/tasks/start",
                "/tasks/exec-added",
                "/tasks/exec-started",
                "/tasks/exit",
                "/tasks/exit",
                "/tasks/delete",
                "/containers/delete",
            ],
        );
    }
    let same = |follower: &Follower| -> Vec<String> {
        follower.lines.lock().unwrap().iter().filter(|line| !line.contains("/namespaces/")).cloned().collect()
    };
    assert_eq!(same(&followers[0]), same(&followers[1]));
    let words = instance.berth(&[
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--filter",
        "container=web",
        "--format",
        "{{.Action}}",
    ]);
    let words: Vec<&str> = words.ok().lines().collect();
    assert_eq!(words.first(), Some(&"create"), "{words:?}");
    assert_eq!(words.iter().filter(|word| **word == "die").count(), 1, "{words:?}");
}

/// Filters are obeyed: one topic of one container.
#[test]
fn filtered() {
    let instance = Instance::with_busybox();
    let follower = Follower::start(&instance, &[r#"topic=="/tasks/start",event.container_id==web"#]);
    wait_until("the client follows", || {
        ctr_run(&instance, &["--rm"], "other", &["true"]).ok();
        ctr_run(&instance, &["--rm"], "web", &["true"]).ok();
        (!follower.topics("web").is_empty()).then_some(())
    });
    assert_eq!(follower.topics("other"), [""; 0]);
    assert!(follower.topics("web").iter().all(|topic| topic == "/tasks/start"));
}

/// S-120: a snapshot that a collection removes is told as one that a client removes.
#[test]
fn s120_collected_snapshots_are_told() {
    let instance = Instance::with_busybox();
    let follower = Follower::start(&instance, &[]);
    block_on(async {
        let client = Client::connect(&instance, "default").await;
        let request = PrepareSnapshotRequest {
            snapshotter: "overlayfs".to_owned(),
            key: "lost".to_owned(),
            ..Default::default()
        };
        SnapshotsClient::new(client.channel.clone()).prepare(client.request(request)).await.unwrap();
    });
    instance.ctr(&["leases", "create", "--id", "l"]).ok();
    instance.ctr(&["leases", "delete", "--sync", "l"]).ok();
    follower.wait_for("lost", &["/snapshot/prepare", "/snapshot/remove"]);
}

/// S-120: every topic of containerd that `ctr` and our shim give rise to (sandboxes have tests of their own; a checkpoint is told by the shim that
/// makes one, and ours makes none).
#[test]
fn s120_every_topic() {
    let instance = Instance::with_busybox();
    instance.ctr(&["namespaces", "create", "other", "a=b"]).ok();
    instance.ctr(&["namespaces", "label", "other", "a=c"]).ok();
    instance.ctr(&["namespaces", "remove", "other"]).ok();
    let archive = instance.directory.join("image.tar");
    let more = berth_testkit::Image::new("more:1").layer(vec![berth_testkit::LayerFile::text("a", "b")]);
    std::fs::write(&archive, more.docker_archive()).unwrap();
    instance.ctr(&["images", "import", archive.to_str().unwrap()]).ok();
    instance.ctr(&["images", "label", "docker.io/library/more:1", "x=y"]).ok();
    instance.ctr(&["images", "rm", "--sync", "docker.io/library/more:1"]).ok();
    let blob = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    // Nothing refers to it: a collection that is under way may take it first, and that is not told.
    wait_until("the blob is removed by hand", || {
        let ingest = instance.ctr_command(&["content", "ingest", "--expected-digest", blob, "one"]);
        berth_testkit::instance::run(ingest, b"hello").ok();
        instance.ctr(&["content", "rm", blob]).ok();
        let topics = block_on(async { Client::connect(&instance, "default").await.topics().await });
        topics.iter().any(|topic| topic == "/content/delete").then_some(())
    });
    ctr_run(&instance, &["-d"], "web", &["sleep", "1000"]).ok();
    instance.ctr(&["containers", "label", "web", "x=y"]).ok();
    ctr_exec(&instance, "web", "e1", &["true"]).ok();
    instance.ctr(&["tasks", "pause", "web"]).ok();
    instance.ctr(&["tasks", "resume", "web"]).ok();
    instance.ctr(&["snapshots", "prepare", "mine"]).ok();
    instance.ctr(&["snapshots", "commit", "done", "mine"]).ok();
    instance.ctr(&["snapshots", "rm", "done"]).ok();
    instance.berth(&["rm", "-f", "web"]).ok();
    let hungry = ["sh", "-c", "exec tail -c 200m /dev/zero"];
    ctr_run(&instance, &["--rm", "--memory-limit", "16777216"], "hungry", &hungry);
    block_on(async {
        let topics = Client::connect(&instance, "default").await.topics().await;
        let expected = [
            "/containers/create",
            "/containers/update",
            "/containers/delete",
            "/content/create",
            "/content/delete",
            "/images/create",
            "/images/update",
            "/images/delete",
            "/snapshot/prepare",
            "/snapshot/commit",
            "/snapshot/remove",
            "/tasks/create",
            "/tasks/start",
            "/tasks/exec-added",
            "/tasks/exec-started",
            "/tasks/exit",
            "/tasks/oom",
            "/tasks/paused",
            "/tasks/resumed",
            "/tasks/delete",
        ];
        let missing: Vec<&str> = expected.into_iter().filter(|topic| !topics.iter().any(|t| t == topic)).collect();
        assert_eq!(missing, [""; 0], "{topics:?}");
        let of_other = Client::connect(&instance, "other").await.topics().await;
        assert_eq!(of_other, ["/namespaces/create", "/namespaces/update", "/namespaces/delete"]);
    });
}

/// S-121: a subscriber that does not read is ended with the number to go on from, loses nothing by that, and holds up nobody; each event is
/// delivered at once.
#[test]
fn s121_slow_subscribers() {
    const EVENTS: usize = 5000;
    let instance = Instance::start();
    block_on(async {
        let client = Client::connect(&instance, "slow").await;
        let slow_client = Client::connect(&instance, "slow").await;
        let mut slow = slow_client.events(None).await;
        let mut quick = client.events(None).await;
        let counting = tokio::spawn(async move {
            let mut topics = Vec::new();
            while topics.len() < EVENTS {
                let event = quick.message().await.unwrap().unwrap();
                topics.extend((event.namespace == "slow").then_some(event.topic));
            }
            topics
        });
        let mut publishing = tokio::task::JoinSet::new();
        for worker in 0..8 {
            let client = Client::connect(&instance, "slow").await;
            publishing.spawn(async move {
                for number in (worker..EVENTS).step_by(8) {
                    client.publish(&format!("/test/{number}")).await;
                }
            });
        }
        while let Some(done) = publishing.join_next().await {
            done.unwrap();
        }
        // The quick one has all of them, while the slow one has not read a byte.
        let mut all = counting.await.unwrap();
        let mut read = Vec::new();
        let status = loop {
            match slow.message().await {
                Ok(event) => read.push(event.unwrap().topic),
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status:?}");
        let after: u64 = status.metadata().get("berth-after-sequence").unwrap().to_str().unwrap().parse().unwrap();
        assert!(read.len() < EVENTS, "{} of {EVENTS} were read before the end", read.len());
        let mut rest = client.events(Some(after)).await;
        while read.len() < EVENTS {
            read.push(rest.message().await.unwrap().unwrap().topic);
        }
        assert_eq!(read, all, "each once and in order");
        all.sort();
        all.dedup();
        assert_eq!(all.len(), EVENTS);
        delivered_at_once(&client).await;
    });
}

/// Nothing waits for a timer or for others; how long they take from the call to the subscriber, the call itself included, is printed.
async fn delivered_at_once(client: &Client) {
    let mut events = client.events(None).await;
    let mut times = Vec::new();
    for number in 0..101 {
        let topic = format!("/test/at-once/{number}");
        let begun = std::time::Instant::now();
        client.publish(&topic).await;
        while events.message().await.unwrap().unwrap().topic != topic {}
        times.push(begun.elapsed());
    }
    times.sort();
    println!("delivered within {:?} (median), {:?} (longest)", times[50], times[100]);
    assert!(times[50].as_secs() < 1, "{times:?}");
}
