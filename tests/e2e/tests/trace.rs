//! Timelines: the steps of starts and execs by the parties that did them, in every form, and again later.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Instant;

use berth_testkit::Instance;
use serde_json::Value;

/// The JSON document on stderr; stdout is the container's.
#[track_caller]
fn traced(berth: &Instance, words: &[&str]) -> Value {
    let output = berth.berth(words);
    assert_eq!(output.code, 0, "{output:?}");
    serde_json::from_str(output.stderr.lines().last().unwrap()).unwrap()
}

fn names<'a>(report: &'a Value, party: &str) -> Vec<&'a str> {
    let spans = report["spans"].as_array().unwrap().iter().filter(|span| span["party"] == party);
    spans.map(|span| span["name"].as_str().unwrap()).collect()
}

/// Within five per cent.
#[track_caller]
fn assert_close(what: &str, one: f64, other: f64) {
    assert!((one - other).abs() <= 0.05 * other, "{what}: {one} against {other}");
}

/// S-150 to S-154: client, engine, shim and runtime, from the container's record to the kernel steps and the end; their own times add up
/// to the wall time, and that is the time a watch outside shows.
#[test]
fn s150_steps_add_up_to_the_wall_time() {
    let berth = Instance::with_busybox();
    let watch = Instant::now();
    let report = traced(&berth, &["run", "--rm", "--trace=json", "busybox", "sleep", "1"]);
    let outside = watch.elapsed().as_nanos() as f64;
    let wall = report["wall_ns"].as_f64().unwrap();
    assert_close("own times and wall time", report["sum_ns"].as_f64().unwrap(), wall);
    assert_close("wall time and a watch outside", wall, outside);
    let client = ["request.parse", "container.create", "container.attach", "container.start", "container.run"];
    assert_eq!(names(&report, "client"), client);
    let engine = names(&report, "engine");
    for name in [
        "container.create",
        "metadata.create",
        "snapshot.prepare",
        "container.start",
        "shim.start",
        "network.attach",
        "bundle.write",
        "task.create",
        "task.start",
        "process.run",
        "exit.record",
        "task.delete",
        "bundle.remove",
    ] {
        assert!(engine.contains(&name), "{name} in {engine:?}");
    }
    let place = |name: &str| engine.iter().position(|own| *own == name).unwrap();
    assert!(
        place("metadata.create") < place("task.create") && place("task.create") < place("task.start"),
        "{engine:?}"
    );
    assert_eq!(names(&report, "shim"), ["task.create", "task.start"]);
    let runtime = names(&report, "runtime");
    for name in ["create-cgroup", "clone-init", "mount", "enter-rootfs", "set-capabilities", "load-seccomp", "execute"]
    {
        assert!(runtime.contains(&name), "{name} in {runtime:?}");
    }
    // What the client waited for is known: of its start, the engine's steps fill all but the way there and back.
    let own = |party: &str, name: &str| {
        let spans = report["spans"].as_array().unwrap();
        let span = spans.iter().find(|span| span["party"] == party && span["name"] == name).unwrap();
        (span["own_ns"].as_f64().unwrap(), span["duration_ns"].as_f64().unwrap())
    };
    let (waited, took) = own("client", "container.start");
    assert!(waited < 0.5 * took, "{waited} of {took} ns are unexplained");
}

/// S-160, S-163, S-164: an exec goes the same way to the same shim, and joins instead of making.
#[test]
fn s164_exec() {
    let berth = Instance::with_busybox();
    berth.sleeper("c1", &[]);
    let report = traced(&berth, &["exec", "--trace=json", "c1", "true"]);
    assert_close("own times and wall time", report["sum_ns"].as_f64().unwrap(), report["wall_ns"].as_f64().unwrap());
    assert_eq!(names(&report, "client"), ["request.parse", "exec.create", "exec.start", "exec.run", "exec.inspect"]);
    let engine = names(&report, "engine");
    for name in ["exec.start", "process.plan", "task.exec", "task.attach", "task.exec-start"] {
        assert!(engine.contains(&name), "{name} in {engine:?}");
    }
    assert_eq!(names(&report, "shim"), ["task.exec"]);
    let runtime = names(&report, "runtime");
    assert!(runtime.contains(&"join-namespace") && runtime.contains(&"enter-cgroup"), "{runtime:?}");
    for step in ["create-cgroup", "map-mounts", "isolate-mounts", "enter-rootfs"] {
        assert!(!runtime.contains(&step), "{step} in {runtime:?}");
    }
    // Again, by its id; an exec that asked for no trace has the engine's own steps.
    let again = berth.berth(&["trace", "--json", "--exec", report["id"].as_str().unwrap(), "c1"]);
    let again: Value = serde_json::from_str(again.ok()).unwrap();
    assert_eq!(names(&again, "runtime"), runtime);
    // Nothing of it stays in the bundle.
    let left = fs::read_dir(berth.state().join("tasks"))
        .unwrap()
        .flatten()
        .flat_map(|task| fs::read_dir(task.path()).unwrap());
    let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("trace-")), "{left:?}");
}

/// Chrome's form: every event is complete, and those of one lane are nested.
#[test]
fn chrome_file() {
    let berth = Instance::with_busybox();
    let file = berth.directory.join("trace.json");
    berth.berth(&["run", "--rm", &format!("--trace=chrome:{}", file.display()), "busybox", "true"]).ok();
    let document: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let events: Vec<&Value> = document["traceEvents"].as_array().unwrap().iter().filter(|e| e["ph"] == "X").collect();
    assert!(events.len() > 30, "{document}");
    let range = |event: &Value| {
        let start = event["ts"].as_f64().unwrap();
        (start, start + event["dur"].as_f64().unwrap())
    };
    for (index, one) in events.iter().enumerate() {
        for other in events[index + 1..].iter().filter(|o| o["pid"] == one["pid"] && o["tid"] == one["tid"]) {
            let ((a, b), (c, d)) = (range(one), range(other));
            assert!(
                b <= c + 0.001 || d <= a + 0.001 || (a <= c && d <= b + 0.001) || (c <= a && b <= d + 0.001),
                "{one} and {other}"
            );
        }
    }
    let parties: BTreeSet<_> = events.iter().map(|event| event["cat"].as_str().unwrap()).collect();
    assert_eq!(parties.into_iter().collect::<Vec<_>>(), ["client", "engine", "runtime", "shim"]);
}

/// OTLP/JSON, to a collector: one POST with one trace whose spans hang together, on the wall clock.
#[test]
fn otlp_to_a_collector() {
    let berth = Instance::with_busybox();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("--trace=otlp:http://{}", listener.local_addr().unwrap());
    let collector = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut piece = [0; 65536];
        loop {
            let length = stream.read(&mut piece).unwrap();
            request.extend_from_slice(&piece[..length]);
            let text = String::from_utf8_lossy(&request);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let wanted =
                head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap().parse::<usize>().unwrap();
            if body.len() >= wanted {
                break;
            }
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
        String::from_utf8(request).unwrap()
    });
    berth.berth(&["run", "--rm", &url, "busybox", "true"]).ok();
    let request = collector.join().unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("POST /v1/traces HTTP/1.1\r\n") && head.contains("Content-Type: application/json"),
        "{head}"
    );
    let document: Value = serde_json::from_str(body).unwrap();
    let resources = document["resourceSpans"].as_array().unwrap();
    let spans: Vec<&Value> = resources.iter().flat_map(|r| r["scopeSpans"][0]["spans"].as_array().unwrap()).collect();
    let ids: BTreeSet<_> = spans.iter().map(|span| span["spanId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), spans.len());
    let roots: Vec<_> = spans.iter().filter(|span| span["parentSpanId"].is_null()).collect();
    assert_eq!(roots.len(), 1);
    assert!(spans.iter().all(|s| s["parentSpanId"].as_str().is_none_or(|parent| ids.contains(parent))));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let start: u128 = roots[0]["startTimeUnixNano"].as_str().unwrap().parse().unwrap();
    assert!(now > start && now - start < 60_000_000_000, "{start} and {now}");
    let names: Vec<_> =
        resources.iter().map(|r| r["resource"]["attributes"][0]["value"]["stringValue"].as_str().unwrap()).collect();
    assert_eq!(names, ["berth-client", "berth-engine", "berth-shim", "berth-runtime"]);
    // Nobody listens: the failure is told.
    let refused = berth.berth(&["run", "--rm", "--trace=otlp:http://127.0.0.1:1", "busybox", "true"]);
    assert!(refused.code == 125 && refused.stderr.contains("collector"), "{refused:?}");
}

/// A trace that was asked for stays with the container, over a restart of the daemon too.
#[test]
fn recalled() {
    let mut berth = Instance::with_busybox();
    let first = traced(&berth, &["run", "-d", "--name", "c1", "--trace=json", "busybox", "sleep", "1000"]);
    let runtime = names(&first, "runtime").len();
    assert!(runtime > 20);
    berth.kill_daemon();
    berth.spawn();
    let recalled = berth.berth(&["trace", "--json", "c1"]);
    let recalled: Value = serde_json::from_str(recalled.ok()).unwrap();
    assert_eq!((recalled["operation"].as_str(), names(&recalled, "runtime").len()), (Some("start"), runtime));
    assert_eq!(
        recalled["clock_offset_ns"].as_i64().unwrap() / 1_000_000_000,
        first["clock_offset_ns"].as_i64().unwrap() / 1_000_000_000
    );
    let text = berth.berth(&["trace", "c1"]);
    assert!(text.ok().starts_with("START") && text.stdout.contains("own times add up to"), "{text:?}");
    assert_eq!(berth.berth(&["trace", "nobody"]).code, 125);
}
