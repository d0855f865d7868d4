//! Rates on v1, measured: shares of a processor, direct I/O. Needs root and a disk below the temporary directory.

mod support;

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use berth_cgroup::{BlockIo, Cgroup, Cpu, Resources, ThrottleDevice, plan};
use berth_types::Signal;
use support::{TestGroup, WAIT, until};

/// S-050: shares of 1024 and 512 on one processor are two to one. Both are siblings, so whoever else works here slows both.
#[test]
fn s050_shares_are_kept() {
    let mut test = TestGroup::new("shares");
    let other = Cgroup::create(&test.layout, &format!("{}/other", test.parent)).unwrap();
    let shares = |shares| {
        let cpu = Cpu { shares: Some(shares), cpus: "0".into(), ..Cpu::default() };
        plan(&test.layout, &Resources { cpu, ..Resources::default() }).unwrap()
    };
    test.group.apply(&shares(1024)).unwrap();
    other.apply(&shares(512)).unwrap();
    let moved = test.spawn("while :; do :; done");
    other.attach(moved).unwrap();
    test.spawn("while :; do :; done");
    let used = || (test.group.stats().unwrap().cpu.total_ns, other.stats().unwrap().cpu.total_ns);
    until("both run", || used().0 > 0 && used().1 > 0);
    let before = used();
    let since = || (used().0 - before.0, used().1 - before.1);
    until("they used a second", || since().0 + since().1 > 1_000_000_000);
    let (more, less) = since();
    // In per mille of what both used: 667 are two thirds, ten per cent off two to one are 643 to 688.
    let share = more * 1000 / (more + less);
    assert!((643..=688).contains(&share), "{share} per mille: {more} and {less} ns");
    other.kill_all(Signal::KILL, WAIT).unwrap();
}

/// Writes `count` blocks past the page cache under a limit, and says how long that took.
fn direct(name: &str, block_io: impl FnOnce(Vec<ThrottleDevice>) -> BlockIo, rate: u64, dd: &str) -> Duration {
    let place = tempfile::Builder::new().prefix("rates-").tempdir_in("/var/tmp").expect("temporary directory");
    let device = place.path().metadata().expect("stat").dev();
    let device = ThrottleDevice { major: rustix::fs::major(device), minor: rustix::fs::minor(device), rate };
    let test = TestGroup::new(name);
    test.apply(&Resources { block_io: block_io(vec![device]), ..Resources::default() });
    let begun = Instant::now();
    let script = format!("exec dd if=/dev/zero of={}/file oflag=direct {dd} 2>/dev/null", place.path().display());
    let (code, stderr) = test.run(&script);
    let elapsed = begun.elapsed();
    assert_eq!((code, stderr.as_str()), (0, ""));
    let stats = test.group.stats().expect("stats").block_io;
    let written = stats.service_bytes.iter().filter(|entry| entry.op == "Write").map(|entry| entry.value).sum::<u64>();
    assert!(written > 0, "{stats:?}");
    elapsed
}

/// S-058: bytes per second.
#[test]
fn s058_direct_writes_keep_the_rate() {
    let limit = |write_bps| BlockIo { write_bps, ..BlockIo::default() };
    let elapsed = direct("bps", limit, 2 << 20, "bs=256k count=20");
    // 5 MiB at 2 MiB/s are 2.5 s; the first slice of a tenth passes at once, and the row allows ten per cent.
    assert!(elapsed > Duration::from_millis(2100), "{elapsed:?}");
}

/// S-057: operations per second.
#[test]
fn s057_direct_writes_keep_the_operations() {
    let limit = |write_iops| BlockIo { write_iops, ..BlockIo::default() };
    let elapsed = direct("iops", limit, 100, "bs=4k count=230");
    assert!(elapsed > Duration::from_millis(1900), "{elapsed:?}");
}
