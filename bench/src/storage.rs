//! Files of containers: commit, diff, copy; listings, logs.

use std::fs;
use std::process::Stdio;
use std::time::Instant;

use crate::Options;
use crate::engine::{Engine, directory, must};
use crate::images::noise;
use crate::measure::{Candidate as _, in_turns, timed};
use crate::report::{Row, Table};
use crate::workload::command;

/// Words that `--only` may ask for.
pub const NAMES: [&str; 4] = ["commit, diff", "cp", "listings", "logs"];

pub fn run_all(options: &Options, engines: &[&Engine], table: &mut Table) {
    let wanted = |name: &str| name.contains(&options.only);
    let [berth, ctr, docker, podman] = engines[..] else { unreachable!("there are four engines") };
    let with_podman = [berth, docker, podman];
    if wanted("commit, diff") {
        table.extend(commit_and_diff(&with_podman));
    }
    if wanted("cp") {
        table.extend(copy(&with_podman));
    }
    if wanted("listings") {
        table.extend(listings(&[berth, ctr, docker], options.runs));
    }
    if wanted("logs") {
        table.extend(logs(&with_podman));
    }
}

const ROUNDS: usize = 3;

fn commit_and_diff(engines: &[&Engine]) -> Vec<Row> {
    let script = "mkdir /many && cd /many && i=0; while [ $i -lt 10000 ]; do echo $i > f$i; i=$((i+1)); done";
    for engine in engines {
        engine.meter().enter();
        must(&mut engine.command(&["run", "--name", "changed", "--network", "none", "busybox", "sh", "-c", script]));
    }
    let diff = in_turns(engines, ROUNDS * 2, |engine, _| timed(&mut engine.command(&["diff", "changed"])));
    let commit = in_turns(engines, ROUNDS, |engine, round| {
        let taken = timed(&mut engine.command(&["commit", "changed", &format!("changed:{round}")]));
        must(&mut engine.command(&["rmi", &format!("changed:{round}")]));
        taken
    });
    engines.iter().for_each(|engine| engine.remove("changed"));
    vec![Row::wall("commit of 10,000 new files", &commit), Row::wall("diff of 10,000 new files", &diff)]
}

fn copy(engines: &[&Engine]) -> Vec<Row> {
    let file = directory().join("200M");
    fs::write(&file, noise(&mut 7, 200 << 20)).unwrap();
    let name = file.to_str().expect("our own names are UTF-8");
    for engine in engines {
        engine.meter().enter();
        must(&mut command(engine, &engine.run_sleep("none", "copies")));
    }
    let into = in_turns(engines, ROUNDS, |engine, _| timed(&mut engine.command(&["cp", name, "copies:/tmp/file"])));
    let back = directory().join("back");
    let out = in_turns(engines, ROUNDS, |engine, _| timed(engine.command(&["cp", "copies:/tmp/file"]).arg(&back)));
    engines.iter().for_each(|engine| engine.remove("copies"));
    vec![Row::wall("cp of 200 MB in", &into), Row::wall("cp of 200 MB out", &out)]
}

fn listings(engines: &[&Engine], runs: usize) -> Vec<Row> {
    const OBJECTS: usize = 300;
    for engine in engines {
        engine.meter().enter();
        for number in 0..OBJECTS {
            let id = format!("l{number}");
            let name = format!("docker.io/library/many:{number}");
            let words: [Vec<&str>; 2] = match engine.name {
                "ctr" => [
                    vec!["containers", "create", "docker.io/library/busybox:latest", &id, "true"],
                    vec!["images", "tag", "docker.io/library/busybox:latest", &name],
                ],
                _ => [vec!["create", "--name", &id, "busybox", "true"], vec!["tag", "busybox", &name]],
            };
            for words in words {
                must(&mut engine.command(&words));
            }
        }
    }
    let containers = in_turns(engines, runs, |engine, _| {
        let words: &[&str] = if engine.name == "ctr" { &["containers", "ls"] } else { &["ps", "-a"] };
        timed(&mut engine.command(words))
    });
    let images = in_turns(engines, runs, |engine, _| {
        let words: &[&str] = if engine.name == "ctr" { &["images", "ls"] } else { &["images"] };
        timed(&mut engine.command(words))
    });
    for engine in engines {
        let ids: Vec<String> = (0..OBJECTS).map(|number| format!("l{number}")).collect();
        if engine.name == "ctr" {
            let words: Vec<&str> = ["containers", "rm"].into_iter().chain(ids.iter().map(String::as_str)).collect();
            must(&mut engine.command(&words));
        } else {
            engine.remove_all(&ids);
        }
    }
    vec![Row::wall("ps -a, 300 containers", &containers), Row::wall("images, 300 names", &images)]
}

/// A container prints 256 MB in lines of 64 bytes; then they are read back.
fn logs(engines: &[&Engine]) -> Vec<Row> {
    const MEBIBYTES: f64 = 256.0;
    let line = "x".repeat(63);
    let script = format!("yes {line} | head -c {}", (MEBIBYTES as u64) << 20);
    let mut written = Vec::new();
    let mut read = Vec::new();
    for engine in engines {
        engine.meter().enter();
        // Of podman the files that docker writes have no name; its own are of another form, and have no limit.
        let options: &[&str] = match engine.name {
            "podman" => &["--log-driver", "k8s-file"],
            _ => &["--log-opt", "max-size=2g", "--log-opt", "max-file=1"],
        };
        let words =
            [&["run", "-d", "--name", "printer", "--network", "none"][..], options, &["busybox", "sh", "-c", &script]];
        let start = Instant::now();
        must(&mut engine.command(&words.concat()));
        must(&mut engine.command(&["wait", "printer"]));
        written.push((engine.name, MEBIBYTES / start.elapsed().as_secs_f64()));
        let start = Instant::now();
        let status = engine.command(&["logs", "printer"]).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success());
        read.push((engine.name, MEBIBYTES / start.elapsed().as_secs_f64()));
        engine.remove("printer");
    }
    vec![Row::rate("logs written, MiB per second", written), Row::rate("logs read back, MiB per second", read)]
}
