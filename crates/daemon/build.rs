//! Copies what `BERTH_EMBED` holds to where the sources include it; empty files when it is not set.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-env-changed=BERTH_EMBED");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let from = std::env::var_os("BERTH_EMBED").map(PathBuf::from);
    for name in ["hello.tar", "berth-init"] {
        embed(from.as_deref(), &out, name);
    }
}

fn embed(from: Option<&Path>, out: &Path, name: &str) {
    let bytes = match from {
        Some(from) => {
            let path = from.join(name);
            println!("cargo:rerun-if-changed={}", path.display());
            std::fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
        }
        None => Vec::new(),
    };
    std::fs::write(out.join(name), bytes).expect("OUT_DIR is writable");
}
