//! Which system call a seccomp filter answered with a kill: the kernel's audit line about it, read back from its log.
//!
//! ```text
//! audit: type=1326 audit(1795667332.976:69): … pid=24082 comm="mkdir" exe="/bin/busybox" sig=31 arch=c000003e syscall=83 compat=0 … code=0x80000000
//! ```
//! The line is not always there: an audit daemon takes it away, the log may be closed to us or have moved on, and the kernel limits how many it
//! writes. Its pid is the kernel's own, so below another pid namespace only the time can tell; there a line is taken when it is the only one, and
//! what is told says so.

use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;

use berth_seccomp::Arch;
use berth_types::Timestamp;
use serde::{Deserialize, Serialize};

const LOG: &str = "/dev/kmsg";
/// `LOG_LINE_MAX` of the kernel and its prefix.
const RECORD_BYTES_MAX: usize = 8192;
/// Records of the log that are looked at.
const RECORDS_MAX: usize = 65_536;
const SIGSYS: &str = "31";
/// `PROC_PID_INIT_INO` of the kernel.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";
/// The shim's clock of the end and the kernel's of the line may be this far apart.
const APART_NS: i64 = 2_000_000_000;

/// A call that ended its process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KilledCall {
    pub number: u32,
    /// Empty for a number that has no name on its architecture.
    pub name: String,
    /// The process's name, as the kernel has it.
    pub comm: String,
    /// Told by the time alone: it is the only such line about then, and its pid means nothing here.
    #[serde(default)]
    pub by_time: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    at_ns: i64,
    pid: u32,
    call: KilledCall,
}

/// The call by which a process ended at about this time; `None` when the log does not say.
pub(super) fn killed_call(pid: u32, ended: Timestamp) -> Option<KilledCall> {
    let are_pids_ours =
        std::fs::read_link("/proc/self/ns/pid").is_ok_and(|namespace| namespace.as_os_str() == FIRST_PID_NAMESPACE);
    choose(read_log(), are_pids_ours.then_some(pid), ended)
}

/// `pid`: nothing where it is another number than the kernel's.
fn choose(lines: Vec<Line>, pid: Option<u32>, ended: Timestamp) -> Option<KilledCall> {
    let near: Vec<Line> = lines.into_iter().filter(|line| (line.at_ns - ended.0).abs() <= APART_NS).collect();
    match (pid, &near[..]) {
        (Some(pid), near) => near.iter().rfind(|line| line.pid == pid).map(|line| line.call.clone()),
        (None, [line]) => Some(KilledCall { by_time: true, ..line.call.clone() }),
        (None, _) => None,
    }
}

/// Each read gives one record; at the end there is none.
fn read_log() -> Vec<Line> {
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let Ok(mut log) = std::fs::File::options().read(true).custom_flags(flags).open(LOG) else { return Vec::new() };
    let mut lines = Vec::new();
    let mut buffer = vec![0; RECORD_BYTES_MAX];
    for _ in 0..RECORDS_MAX {
        match log.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => lines.extend(std::str::from_utf8(&buffer[..length]).ok().and_then(parse)),
            // The record was overwritten while we read: the next one follows.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            Err(_) => break,
        }
    }
    lines
}

fn parse(record: &str) -> Option<Line> {
    let (_, line) = record.split_once("audit: type=1326 audit(")?;
    let (stamp, fields) = line.split_once("): ")?;
    let (seconds, rest) = stamp.split_once('.')?;
    let milliseconds: i64 = rest.split(':').next()?.parse().ok()?;
    let at_ns = seconds.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(milliseconds * 1_000_000)?;
    let field = |name: &str| fields.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    if field("sig") != Some(SIGSYS) {
        return None;
    }
    let number = field("syscall")?.parse().ok()?;
    let arch = u32::from_str_radix(field("arch")?, 16).ok()?;
    let name = named(arch, number).unwrap_or_default().to_owned();
    let comm = field("comm")?.trim_matches('"').to_owned();
    Some(Line { at_ns, pid: field("pid")?.parse().ok()?, call: KilledCall { number, name, comm, by_time: false } })
}

fn named(audit_arch: u32, number: u32) -> Option<&'static str> {
    let all = [Arch::X86_64, Arch::X32, Arch::X86, Arch::Aarch64, Arch::Arm];
    let calls = all.into_iter().filter(|arch| arch.audit_value() == audit_arch).flat_map(Arch::syscalls);
    calls.into_iter().find(|(_, own)| *own == number).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"5,1234,14830075293,-;audit: type=1326 audit(1795667332.976:69): auid=4294967295 uid=0 gid=0 ses=4294967295 pid=24082 comm="mkdir" exe="/bin/busybox" sig=31 arch=c000003e syscall=83 compat=0 ip=0x47b567 code=0x80000000"#;

    #[test]
    fn lines_of_the_kernel() {
        let line = parse(RECORD).unwrap();
        assert_eq!((line.at_ns, line.pid), (1_795_667_332_976_000_000, 24082));
        let call = KilledCall { number: 83, name: "mkdir".to_owned(), comm: "mkdir".to_owned(), by_time: false };
        assert_eq!(line.call, call);
        assert_eq!(parse(&RECORD.replace("sig=31", "sig=0")), None, "a call that was only logged");
        assert_eq!(parse(&RECORD.replace("arch=c000003e", "arch=c00000b7")).unwrap().call.name, "fdatasync");
        assert_eq!(parse("6,1,2,-;audit: type=1400 audit(1.2:3): x"), None);
    }

    #[test]
    fn a_line_is_taken_when_it_must_be_the_one() {
        let line = parse(RECORD).unwrap();
        let at = Timestamp(line.at_ns + 20_000_000);
        let other = Line { pid: 7, ..line.clone() };
        assert_eq!(choose(vec![other.clone(), line.clone()], Some(24082), at), Some(line.call.clone()));
        assert_eq!(choose(vec![other.clone()], Some(5), at), None, "somebody else's");
        let by_time = KilledCall { by_time: true, ..line.call.clone() };
        assert_eq!(choose(vec![other.clone()], None, at), Some(by_time));
        assert_eq!(choose(vec![other, line.clone()], None, at), None, "two could be it");
        assert_eq!(choose(vec![line.clone()], Some(24082), Timestamp(line.at_ns + 10_000_000_000)), None, "long ago");
    }
}
