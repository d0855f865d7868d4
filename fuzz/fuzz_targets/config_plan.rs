//! `config.json` to plan: whatever stands in it, there is an answer, and the same one twice.
#![no_main]

#[path = "../checks/config_plan.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|json: &[u8]| check::check(json));
