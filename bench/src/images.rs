//! Images: pull from a registry, load, remove; beside podman, too, which keeps up best with large images.
//!
//! Before each run everything is flushed: who flushes what it wrote would else flush for those who do not, too.

use std::fs;
use std::path::PathBuf;

use berth_testkit::registry::{DockerRegistry, skopeo};
use berth_testkit::{Image, LayerFile};

use crate::Options;
use crate::engine::{Engine, directory};
use crate::measure::{Samples, in_turns, timed};
use crate::memory::Peak;
use crate::report::{Row, Table};
use crate::storage;

/// Words that `--only` may ask for.
const NAMES: [&str; 3] = ["load, rmi", "pull, gzip", "pull, zstd"];
const ROUNDS_MAX: usize = 5;

pub fn run_all(options: &Options) -> Table {
    let mut table = Table::new("images (medians)", "berth", &["ctr", "docker", "podman"]);
    let wanted = |name: &str| name.contains(&options.only);
    if !NAMES.iter().chain(&storage::NAMES).any(|name| wanted(name)) {
        return table;
    }
    let engines = [Engine::berth(), Engine::containerd(), Engine::docker(), Engine::podman()];
    let all: Vec<&Engine> = engines.iter().collect();
    let rounds = options.runs.min(ROUNDS_MAX);
    if wanted("load, rmi") {
        table.extend(load_and_remove(&all, rounds));
    }
    storage::run_all(options, &all, &mut table);
    if !NAMES[1..].iter().any(|name| wanted(name)) {
        return table;
    }
    let registry = DockerRegistry::start();
    if wanted("pull, gzip") {
        put(&registry, "gzip", &[]);
        table.extend(pull("gzip", &registry, &all, rounds));
    }
    if wanted("pull, zstd") {
        put(&registry, "zstd", &["--format", "oci", "--dest-compress-format", "zstd"]);
        // docker 20.10 reads no zstd.
        table.extend(pull("zstd", &registry, &[all[0], all[1], all[3]], rounds));
    }
    table
}

/// 329 MB in 15,129 files and 7 layers, as an uncompressed docker-archive.
fn large_archive() -> PathBuf {
    let file = directory().join("large.tar");
    if !file.exists() {
        let mut seed = 1_u64;
        let layers = (0..7).map(|layer| {
            let mut files = vec![LayerFile::directory(&format!("layer{layer}"))];
            for directory in 0..22 {
                files.push(LayerFile::directory(&format!("layer{layer}/d{directory}")));
                files.extend((0..98).map(|number| {
                    let bytes = noise(&mut seed, 21_800);
                    LayerFile::File { path: format!("layer{layer}/d{directory}/f{number}"), mode: 0o644, bytes }
                }));
            }
            files
        });
        let image = layers.fold(Image::new("large:latest"), Image::layer);
        fs::write(&file, image.docker_archive()).unwrap();
    }
    file
}

/// Half random, half zeros: it compresses to about half.
pub fn noise(seed: &mut u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    for piece in bytes[..length / 2].chunks_mut(8) {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        piece.copy_from_slice(&seed.to_le_bytes()[..piece.len()]);
    }
    bytes
}

fn put(registry: &DockerRegistry, tag: &str, more: &[&str]) {
    let source = format!("docker-archive:{}", large_archive().display());
    let target = format!("docker://{}", registry.name(&format!("large:{tag}")));
    let done = skopeo(&[&["copy", "--dest-tls-verify=false"][..], more, &[&source, &target]].concat());
    assert_eq!(done.code, 0, "{done:?}");
}

/// What the engine calls the image it loaded from the archive, or pulled.
fn remove(engine: &Engine, name: &str) -> f64 {
    let words: &[&str] = if engine.name == "ctr" { &["images", "rm", "--sync", name] } else { &["rmi", name] };
    timed(&mut engine.command(words))
}

fn load_and_remove(engines: &[&Engine], rounds: usize) -> Vec<Row> {
    const WHAT: &str = "load of 329 MB, 15,000 files, 7 layers";
    let archive = large_archive();
    // In turns: while what the load wrote is still on its way to the disk, and when nothing is.
    let mut removal: [Vec<Samples>; 2] = [empty(engines), empty(engines)];
    let mut peaks = Vec::new();
    let load = in_turns(engines, rounds, |engine, round| {
        let (words, name): (&[&str], &str) = match engine.name {
            "ctr" => (&["images", "import"], "docker.io/library/large:latest"),
            "docker" => (&["load", "-q", "-i"], "large:latest"),
            _ => (&["load", "-i"], "large:latest"),
        };
        rustix::fs::sync();
        let peak = Peak::begin(&engine.daemon_pids());
        let taken = timed(engine.command(words).arg(&archive));
        if round == rounds {
            peaks.push((engine.name, peak.grown_mib()));
        }
        let is_at_rest = round % 2 == 1;
        if is_at_rest {
            rustix::fs::sync();
        }
        let removed = remove(engine, name);
        if round > 0 {
            let own = removal[usize::from(is_at_rest)]
                .iter_mut()
                .find(|s| s.name == engine.name)
                .expect("every engine has its samples");
            own.wall_ms.push(removed);
        }
        taken
    });
    peaks.retain(|(name, _)| *name != "podman");
    vec![
        Row::wall(WHAT, &load),
        Row::cpu(WHAT, &load),
        Row::plain("load: growth of the daemon, MiB", peaks),
        Row::wall("image remove", &removal[1]),
        Row::wall("image remove, right after the load", &removal[0]),
    ]
}

fn pull(kind: &str, registry: &DockerRegistry, engines: &[&Engine], rounds: usize) -> Vec<Row> {
    let what = format!("pull of the same image, {kind}");
    let name = registry.name(&format!("large:{kind}"));
    let mut peaks = Vec::new();
    let taken = in_turns(engines, rounds, |engine, round| {
        let words: &[&str] = match engine.name {
            "ctr" => &["images", "pull", "--plain-http"],
            "podman" => &["pull", "-q", "--tls-verify=false"],
            _ => &["pull", "-q"],
        };
        rustix::fs::sync();
        let peak = Peak::begin(&engine.daemon_pids());
        let taken = timed(engine.command(words).arg(&name));
        if round == rounds {
            peaks.push((engine.name, peak.grown_mib()));
        }
        remove(engine, &name);
        taken
    });
    peaks.retain(|(name, _)| *name != "podman");
    vec![
        Row::wall(&what, &taken),
        Row::cpu(&what, &taken),
        Row::plain(&format!("pull, {kind}: growth of the daemon, MiB"), peaks),
    ]
}

fn empty(engines: &[&Engine]) -> Vec<Samples> {
    engines.iter().map(|e| Samples { name: e.name, wall_ms: Vec::new(), cpu_ms: 0.0 }).collect()
}
