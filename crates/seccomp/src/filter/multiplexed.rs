//! `socketcall` and `ipc`: the old 32-bit calls that hold many others, told apart by their first argument.
//!
//! A rule for `socket` that forgot `socketcall` would forbid nothing to an i386 program, so rules without argument tests apply to
//! both. The arguments proper are behind a pointer there, which no filter can follow: rules with tests stay with the direct call.

use super::{ArgTest, Comparison};

const SOCKETCALL: [(&str, u64); 20] = [
    ("socket", 1),
    ("bind", 2),
    ("connect", 3),
    ("listen", 4),
    ("accept", 5),
    ("getsockname", 6),
    ("getpeername", 7),
    ("socketpair", 8),
    ("send", 9),
    ("recv", 10),
    ("sendto", 11),
    ("recvfrom", 12),
    ("shutdown", 13),
    ("setsockopt", 14),
    ("getsockopt", 15),
    ("sendmsg", 16),
    ("recvmsg", 17),
    ("accept4", 18),
    ("recvmmsg", 19),
    ("sendmmsg", 20),
];

const IPC: [(&str, u64); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

/// The call through which `name` can be made as well, and how it is recognized.
pub(super) fn carrier(name: &str) -> Option<(&'static str, ArgTest)> {
    let number = |table: &[(&str, u64)]| table.iter().find(|(own, _)| *own == name).map(|(_, number)| *number);
    if let Some(value) = number(&SOCKETCALL) {
        return Some(("socketcall", ArgTest { index: 0, comparison: Comparison::Equal, value }));
    }
    // The upper half of ipc's number is a version.
    let value = number(&IPC)?;
    Some(("ipc", ArgTest { index: 0, comparison: Comparison::MaskedEqual { mask: 0xffff }, value }))
}
