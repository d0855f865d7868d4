//! passwd and group of an image: digits are a number, no id is out of range, a user who was found is in the primary group.
#![no_main]

#[path = "../checks/passwd_group.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|input: (&str, &str, &str)| check::check(input));
