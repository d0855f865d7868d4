//! The checks of the fuzz targets (`fuzz/checks`) on inputs made from their seeds by random changes, without an instrumented build: some
//! thousands in the suite, `BERTH_FUZZ_SECONDS` for so long each. `BERTH_SEED` gives other ones; a failure prints what to repeat.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "test code; how long and from which seed is the environment's to say"
)]

#[path = "../../../fuzz/checks/config_plan.rs"]
mod config_plan;
#[path = "../../../fuzz/checks/mount_options.rs"]
mod mount_options;
#[path = "../../../fuzz/checks/passwd_group.rs"]
mod passwd_group;
#[path = "../../../fuzz/checks/seccomp_profile.rs"]
mod seccomp_profile;

use std::panic::catch_unwind;
use std::time::{Duration, Instant};

/// xorshift64*
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % end.max(1)
    }
}

/// What documents trip over.
const TOKENS: &[&str] = &[
    "-1",
    "0",
    "1",
    "4294967296",
    "18446744073709551615",
    "9223372036854775807",
    "1e999",
    "null",
    "[]",
    "{}",
    "\"\"",
    "..",
    "/",
    "\0",
    "\u{0}",
    ":",
    ",",
    "\\",
    "=",
    "\u{fffd}",
    "true",
    "\n",
    "\"/\"",
    "SCMP_ACT_NOTIFY",
    "rro",
    "tmpcopyup",
];

fn mutated(seed: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut text = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(text.len() + 1);
        let length = random.below(16).min(text.len() - at);
        match random.below(6) {
            0 => drop(text.drain(at..at + length)),
            1 => drop(text.splice(at..at + length, TOKENS[random.below(TOKENS.len())].bytes())),
            2 if !text.is_empty() => {
                let at = at.min(text.len() - 1);
                text[at] ^= 1 << random.below(8);
            }
            3 => {
                let copied = text[at..at + length].to_vec();
                let to = random.below(text.len() + 1);
                drop(text.splice(to..to, copied));
            }
            4 => {
                let from = random.below(other.len());
                let piece = other[from..(from + random.below(64)).min(other.len())].to_vec();
                drop(text.splice(at..at + length, piece));
            }
            // A whole number or word by something else.
            _ => {
                let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'-';
                let end = at + text[at..].iter().take_while(|byte| is_word(byte)).count();
                let token = TOKENS[random.below(TOKENS.len())];
                drop(text.splice(at..end, token.bytes()));
            }
        }
    }
    text
}

/// Calls `check` with changed seeds: so many, or for as long as the environment says.
fn each(target: &str, count: usize, check: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("BERTH_SEED").unwrap_or(0x5eed);
    let until = number("BERTH_FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let seeds: Vec<Vec<u8>> = files.iter().map(|path| std::fs::read(path).unwrap()).collect();
    let mut random = Random(seed | 1);
    let mut done = 0_usize;
    while until.map_or(done < count, |until| Instant::now() < until) {
        let (one, other) = (random.below(seeds.len()), random.below(seeds.len()));
        let input = mutated(&seeds[one], &seeds[other], &mut random);
        let failed = catch_unwind(|| check(&input)).is_err();
        assert!(!failed, "{target}: BERTH_SEED={seed}, input {done}:\n{}", input.escape_ascii());
        done += 1;
    }
    println!("{target}: {done} inputs");
}

#[test]
fn config_plan() {
    each("config_plan", 2_000, config_plan::check);
}

#[test]
fn mount_options() {
    each("mount_options", 20_000, |input| mount_options::check(&String::from_utf8_lossy(input)));
}

#[test]
fn seccomp_profile() {
    each("seccomp_profile", 2_000, seccomp_profile::check);
}

#[test]
fn passwd_group() {
    each("passwd_group", 20_000, |input| {
        let text = String::from_utf8_lossy(input);
        // One seed is a user, a passwd and a group, as the coverage-guided target splits its input itself.
        let (user, tables) = text.split_once('\n').unwrap_or((&text, ""));
        let middle = (0..=tables.len() / 2).rev().find(|at| tables.is_char_boundary(*at)).unwrap_or(0);
        passwd_group::check((user, &tables[..middle], &tables[middle..]));
    });
}
