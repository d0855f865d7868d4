//! Loading takes little memory however large the archive is: one test, one process, so that its peak is its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::File;
use std::io::{Seek as _, Write};

use berth_testkit::archive::digest;
use berth_types::Digest;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use support::*;

const PEAK_BYTES_MAX: u64 = 64 << 20;
const LAYER_MIB: usize = 40;

fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// A layer of one large file, written piece by piece: half noise, half zeros.
fn write_layer(out: &mut dyn Write, seed: u64) {
    let mut header = tar::Header::new_ustar();
    header.set_path("large").unwrap();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size((LAYER_MIB as u64) << 20);
    header.set_cksum();
    out.write_all(header.as_bytes()).unwrap();
    let mut random = seed;
    for _ in 0..LAYER_MIB {
        let mut piece = vec![0u8; 1 << 20];
        for word in piece[..1 << 19].chunks_exact_mut(8) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            word.copy_from_slice(&(random ^ (random >> 29)).to_le_bytes());
        }
        out.write_all(&piece).unwrap();
    }
    out.write_all(&[0; 1024]).unwrap();
}

fn hash_of(file: &mut File) -> String {
    file.rewind().unwrap();
    let mut hasher = Sha256::new();
    std::io::copy(file, &mut Hashing(&mut hasher)).unwrap();
    file.rewind().unwrap();
    Digest::from_bytes(hasher.finalize().into()).to_string()
}

struct Hashing<'h>(&'h mut Sha256);

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// CVE-2023-25153 and the project's own aim: any load adds at most 64 MiB, here with two packed layers above it in a packed archive.
#[test]
fn a_large_load_stays_small_in_memory() {
    let fixture = Fixture::new();
    let mut archive = tar::Builder::new(zstd::Encoder::new(tempfile::tempfile().unwrap(), 1).unwrap());
    let mut add = |name: &str, size: u64, body: &mut dyn std::io::Read| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(size);
        archive.append_data(&mut header, name, body).unwrap();
    };
    let (mut diff_ids, mut layers) = (Vec::new(), Vec::new());
    for seed in 1..3 {
        let mut plain = tempfile::tempfile().unwrap();
        write_layer(&mut plain, seed);
        diff_ids.push(hash_of(&mut plain));
        let mut packed = flate2::write::GzEncoder::new(tempfile::tempfile().unwrap(), flate2::Compression::none());
        std::io::copy(&mut plain, &mut packed).unwrap();
        let mut packed = packed.finish().unwrap();
        packed.rewind().unwrap();
        let name = format!("layer{seed}");
        add(&name, packed.metadata().unwrap().len(), &mut packed);
        layers.push(name);
    }
    let config =
        json!({ "architecture": architecture(), "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let config = bytes(&config);
    add("config", config.len() as u64, &mut &*config);
    let manifest = bytes(&json!([{ "Config": "config", "RepoTags": ["large:latest"], "Layers": layers }]));
    add("manifest.json", manifest.len() as u64, &mut &*manifest);
    let mut archive = archive.into_inner().unwrap().finish().unwrap();
    archive.rewind().unwrap();

    let before = peak_bytes();
    fixture.store.load(&mut archive, &|_, _, _, _| {}).unwrap();
    let grown = peak_bytes() - before;
    let image = fixture.store.get("large").unwrap();
    assert_eq!(image.id.to_string(), digest(&config));
    assert_eq!(image.size_bytes, (2 * LAYER_MIB as u64) << 20);
    assert!(grown < PEAK_BYTES_MAX, "{} MiB more", grown >> 20);
}
