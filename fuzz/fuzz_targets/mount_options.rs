//! Mount options: each is sorted somewhere, what is unknown goes to the file system unchanged, and sets never contradict themselves.
#![no_main]

#[path = "../checks/mount_options.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|text: &str| check::check(text));
