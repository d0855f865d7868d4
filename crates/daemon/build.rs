//! Copies what `BERTH_EMBED` holds to where the sources include it; empty files when it is not set.

use std::io;
use std::path::PathBuf;

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-env-changed=BERTH_EMBED");
    // 40,000 relocations take a megabyte to read in their long form, at each start (glibc 2.36).
    if std::env::var_os("CARGO_CFG_TARGET_ENV").is_some_and(|env| env == "gnu") {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets OUT_DIR"))?);
    let from = std::env::var_os("BERTH_EMBED").map(PathBuf::from);
    for name in ["hello.tar", "berth-init"] {
        let target = out.join(name);
        let Some(from) = &from else {
            std::fs::write(target, [])?;
            continue;
        };
        let source = from.join(name);
        println!("cargo:rerun-if-changed={}", source.display());
        let named = |error| io::Error::other(format!("cannot embed {}: {error}", source.display()));
        std::fs::copy(&source, target).map_err(named)?;
    }
    Ok(())
}
