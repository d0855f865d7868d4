//! What the build puts into the binary: the `hello` image and the init for `--init`.
//!
//! `make build` sets `BERTH_EMBED` to the directory that holds them; a plain `cargo build` embeds nothing and the daemon
//! says so when one of them is asked for.

/// OCI archive of the image `hello`.
pub(crate) const HELLO_IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hello.tar"));
/// The static `berth-init`.
pub(crate) const INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/berth-init"));
