//! The workloads. Engines take turns within each round, so that the machine's moods hit all alike.

use std::time::Instant;

use crate::Options;
use crate::engine::{self, CONTAINERD, Engine, quiet};
use crate::measure::{Sample, median, sample};
use crate::memory;
use crate::report::{Row, Table};

pub fn run_all(options: &Options) -> Table {
    // Order matters once: dockerd stands on the same containerd.
    let containerd = Engine::containerd();
    let docker = Engine::docker(CONTAINERD.as_ref());
    let berth = Engine::berth();
    let engines = [&berth, &containerd, &docker];
    let mut table = Table::default();
    let wanted = |name: &str| name.contains(&options.only);
    for network in ["none", "bridge"] {
        let name = format!("run --rm, {network}");
        if wanted(&name) {
            let mut number = 0;
            let samples = in_turns(&engines, options.runs, |engine| {
                number += 1;
                let words = engine.run_true(network, &format!("r{number}"));
                sample(&mut command(engine, &words))
            });
            table.push(Row::wall(&name, &samples));
            table.push(Row::cpu(&format!("{name}: CPU"), &samples));
        }
    }
    if wanted("exec") {
        table.push(exec(&engines, options.runs));
    }
    if wanted("run -d, stop, rm") {
        for row in background(&[&berth, &docker], options.runs) {
            table.push(row);
        }
    }
    if wanted("memory") {
        for row in idle_memory(&engines) {
            table.push(row);
        }
    }
    for network in ["none", "bridge"] {
        let name = format!("100 in parallel, {network}");
        if wanted(&name) {
            table.push(parallel(&name, network, &engines));
        }
    }
    drop((berth, docker, containerd));
    std::fs::remove_dir_all(engine::directory())
        .unwrap_or_else(|error| eprintln!("cannot remove the benchmark's files: {error}"));
    table
}

fn command(engine: &Engine, words: &[String]) -> std::process::Command {
    engine.command(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

type Samples = Vec<(&'static str, Vec<Sample>)>;

/// A B C A B C …, after one round that does not count.
fn in_turns(engines: &[&Engine], runs: usize, mut once: impl FnMut(&Engine) -> Sample) -> Samples {
    let mut samples: Samples = engines.iter().map(|engine| (engine.name, Vec::new())).collect();
    for round in 0..=runs {
        for (engine, (_, taken)) in engines.iter().zip(&mut samples) {
            let sample = once(engine);
            if round > 0 {
                taken.push(sample);
            }
        }
    }
    samples
}

fn exec(engines: &[&Engine], runs: usize) -> Row {
    for engine in engines {
        assert!(quiet(&mut command(engine, &engine.run_sleep("none", "target"))), "{} starts the target", engine.name);
    }
    let mut number = 0;
    let samples = in_turns(engines, runs, |engine| {
        number += 1;
        sample(&mut command(engine, &engine.exec_true("target", &format!("e{number}"))))
    });
    for engine in engines {
        engine.remove("target");
    }
    Row::wall("exec true", &samples)
}

fn background(engines: &[&Engine], runs: usize) -> Vec<Row> {
    let steps = ["run -d", "stop -t 0", "rm"];
    let mut taken: Vec<Samples> = vec![engines.iter().map(|e| (e.name, Vec::new())).collect(); steps.len()];
    for round in 0..=runs {
        for (index, engine) in engines.iter().enumerate() {
            let id = format!("b{round}");
            let run = sample(&mut command(engine, &engine.run_sleep("bridge", &id)));
            let stop = sample(&mut engine.command(&["stop", "-t", "0", &id]));
            let remove = sample(&mut engine.command(&["rm", &id]));
            if round > 0 {
                for (step, sample) in taken.iter_mut().zip([run, stop, remove]) {
                    step[index].1.push(sample);
                }
            }
        }
    }
    steps.iter().zip(&taken).map(|(name, samples)| Row::wall(name, samples)).collect()
}

const IDLE: u64 = 50;

fn idle_memory(engines: &[&Engine]) -> Vec<Row> {
    let mut per_container = Vec::new();
    let mut daemon = Vec::new();
    for engine in engines {
        let daemons = || -> u64 { engine.daemon_pids().into_iter().map(memory::pss_kib).sum() };
        let shims = || memory::named("containerd-shim");
        let before = daemons();
        let others = shims();
        for number in 0..IDLE {
            assert!(quiet(&mut command(engine, &engine.run_sleep("none", &format!("m{number}")))));
        }
        let own: u64 = shims().into_iter().filter(|pid| !others.contains(pid)).map(memory::pss_kib).sum();
        let grown = daemons().saturating_sub(before);
        per_container.push((engine.name, (own + grown) as f64 / IDLE as f64 / 1024.0));
        for number in 0..IDLE {
            engine.remove(&format!("m{number}"));
        }
        daemon.push((engine.name, daemons() as f64 / 1024.0));
    }
    vec![
        Row::plain("engine memory per idle container, MiB (N = 50)", per_container),
        Row::plain("daemon PSS after work, MiB", daemon),
    ]
}

const PARALLEL: usize = 100;
const CLIENTS: usize = 8;

fn parallel(name: &str, network: &str, engines: &[&Engine]) -> Row {
    let mut rates = Vec::new();
    for engine in engines {
        let rounds = (0..3).map(|round| {
            let start = Instant::now();
            std::thread::scope(|scope| {
                for client in 0..CLIENTS {
                    scope.spawn(move || {
                        for number in (client..PARALLEL).step_by(CLIENTS) {
                            let words = engine.run_sleep(network, &format!("p{round}-{number}"));
                            assert!(quiet(&mut command(engine, &words)), "{} starts {words:?}", engine.name);
                        }
                    });
                }
            });
            let rate = PARALLEL as f64 / start.elapsed().as_secs_f64();
            for number in 0..PARALLEL {
                engine.remove(&format!("p{round}-{number}"));
            }
            rate
        });
        rates.push((engine.name, median(rounds)));
    }
    Row::rate(name, rates)
}
