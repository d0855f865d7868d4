//! What users do with an engine. Engines take turns within each round, so that the machine's moods hit all alike.

use std::process::Command;
use std::time::Instant;

use crate::Options;
use crate::ctr_face;
use crate::engine::{Engine, quiet};
use crate::measure::{Candidate as _, Samples, in_turns, median, timed};
use crate::memory;
use crate::report::{Row, Table};

pub fn run_all(options: &Options) -> Table {
    let mut table = Table::new("engine (medians)", "berth", &["ctr", "docker"]);
    let names = [
        "run --rm, none",
        "run --rm, bridge",
        "exec",
        "run -d, stop, rm",
        "memory",
        "by ctr",
        "100 in parallel, none",
        "100 in parallel, bridge",
    ];
    let wanted = |name: &str| name.contains(&options.only);
    if !names.iter().any(|name| wanted(name)) {
        return table;
    }
    let engines = [Engine::berth(), Engine::containerd(), Engine::docker()];
    let all: Vec<&Engine> = engines.iter().collect();
    for network in ["none", "bridge"] {
        let name = format!("run --rm, {network}");
        if wanted(&name) {
            let samples = in_turns(&all, options.runs, |engine, round| {
                timed(&mut command(engine, &engine.run_true(network, &format!("r-{network}-{round}"))))
            });
            table.extend(vec![Row::wall(&name, &samples), Row::p95(&name, &samples), Row::cpu(&name, &samples)]);
        }
    }
    if wanted("exec") {
        table.extend(exec(&all, options.runs));
    }
    if wanted("run -d, stop, rm") {
        table.extend(background(&[all[0], all[2]], options.runs));
    }
    if wanted("by ctr") {
        table.extend(ctr_face::by_ctr(&[all[0], all[1]], options.runs));
    }
    if wanted("memory") {
        table.extend(idle_memory(&all));
    }
    for network in ["none", "bridge"] {
        let name = format!("100 in parallel, {network}");
        if wanted(&name) {
            table.push(parallel(&name, network, &all));
        }
    }
    table
}

pub fn command(engine: &Engine, words: &[String]) -> Command {
    engine.command(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

fn exec(engines: &[&Engine], runs: usize) -> Vec<Row> {
    for engine in engines {
        engine.meter().enter();
        assert!(quiet(&mut command(engine, &engine.run_sleep("none", "target"))), "{} starts the target", engine.name);
    }
    let samples = in_turns(engines, runs, |engine, round| {
        timed(&mut command(engine, &engine.exec_true("target", &format!("e{round}"))))
    });
    for engine in engines {
        engine.remove("target");
    }
    vec![Row::wall("exec true", &samples), Row::cpu("exec true", &samples)]
}

fn background(engines: &[&Engine], runs: usize) -> Vec<Row> {
    let steps = ["run -d", "stop -t 0", "rm"];
    let empty = || engines.iter().map(|e| Samples { name: e.name, wall_ms: Vec::new(), cpu_ms: 0.0 }).collect();
    let mut taken: Vec<Vec<Samples>> = steps.iter().map(|_| empty()).collect();
    for round in 0..=runs {
        for (index, engine) in engines.iter().enumerate() {
            engine.meter().enter();
            let id = format!("b{round}");
            let run = timed(&mut command(engine, &engine.run_sleep("bridge", &id)));
            let stop = timed(&mut engine.command(&["stop", "-t", "0", &id]));
            let remove = timed(&mut engine.command(&["rm", &id]));
            if round > 0 {
                for (step, wall_ms) in taken.iter_mut().zip([run, stop, remove]) {
                    step[index].wall_ms.push(wall_ms);
                }
            }
        }
    }
    steps.iter().zip(&taken).map(|(name, samples)| Row::wall(name, samples)).collect()
}

const IDLE: u64 = 50;
const AT_REST: std::time::Duration = std::time::Duration::from_secs(3);

/// Each has the same time to give back what its work needed.
#[expect(clippy::disallowed_methods, reason = "that nothing happens is what is waited for")]
fn rest() {
    std::thread::sleep(AT_REST);
}

fn idle_memory(engines: &[&Engine]) -> Vec<Row> {
    let mut per_container = Vec::new();
    let mut daemon = Vec::new();
    for engine in engines {
        engine.meter().enter();
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
        rest();
        daemon.push((engine.name, daemons() as f64 / 1024.0));
    }
    vec![
        Row::plain("engine memory per idle container, MiB (N = 50)", per_container),
        Row::plain("daemon PSS 3 s after work, MiB", daemon),
    ]
}

const PARALLEL: usize = 100;
const CLIENTS: usize = 8;

fn parallel(name: &str, network: &str, engines: &[&Engine]) -> Row {
    let mut rates: Vec<(&'static str, Vec<f64>)> = engines.iter().map(|e| (e.name, Vec::new())).collect();
    for round in 0..3 {
        for (engine, (_, taken)) in engines.iter().zip(&mut rates) {
            engine.meter().enter();
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
            taken.push(PARALLEL as f64 / start.elapsed().as_secs_f64());
            engine.remove_all(&(0..PARALLEL).map(|number| format!("p{round}-{number}")).collect::<Vec<_>>());
        }
    }
    let medians = rates.into_iter().map(|(name, taken)| (name, median(taken.into_iter()))).collect();
    Row::rate(&format!("{name}, per second"), medians)
}
