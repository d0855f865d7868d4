//! The network on the real kernel, in namespaces of its own: nothing here touches the namespace the test started in.
//! Needs root, and the peers (`busybox`, `nft`) that `tests/fetch-peers.sh` unpacks.
#![expect(clippy::unwrap_used, reason = "tests, and what they have in common")]

mod lifecycle;
mod publish;
mod reach;
mod world;
