//! Lays the program out (see `layout.ld`), where it is the static one that is shipped.

#[expect(clippy::disallowed_methods, reason = "a build script is told by its environment")]
fn main() {
    let told = |name: &str| std::env::var(name).unwrap_or_default();
    println!("cargo::rerun-if-changed=layout.ld");
    if told("CARGO_CFG_TARGET_ENV") == "musl" && told("PROFILE") == "release" {
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}/layout.ld", told("CARGO_MANIFEST_DIR"));
    }
}
