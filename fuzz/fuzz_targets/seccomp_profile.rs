//! Seccomp profiles: what compiles is a program the kernel would look at, of the length it takes, and survives its bytes.
#![no_main]

#[path = "../checks/seccomp_profile.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|json: &[u8]| check::check(json));
