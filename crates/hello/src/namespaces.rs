//! The eight namespaces, beside the host's.

use crate::json::Value;
use crate::page::{Row, Section};

/// Name below `/proc/self/ns`, what it separates, and the number that every kernel gives its first one.
const KINDS: [(&str, &str, u64); 8] = [
    ("mnt", "mounts: which file systems there are", 0xefff_fff8),
    ("uts", "hostname and domain name", 0xefff_fffe),
    ("pid", "process numbers", 0xefff_fffc),
    ("net", "interfaces, addresses, routes, ports", 0xefff_fff9),
    ("user", "user and group numbers, privileges", 0xefff_fffd),
    ("ipc", "shared memory, semaphores, message queues", 0xefff_ffff),
    ("cgroup", "where the tree of resource groups starts", 0xefff_fffb),
    ("time", "monotonic and boot clocks", 0xefff_fffa),
];

/// From here on the numbers of first namespaces have been fixed since Linux 3.8 to 5.6.
const FIXED_EARLY: u64 = 0xefff_fffa;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Own,
    Host,
    Unknown,
}

impl Relation {
    fn word(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Host => "the host's",
            Self::Unknown => "?",
        }
    }
}

/// Whether this process has another file system tree than the host.
pub(crate) fn contained() -> bool {
    let (kind, _, first) = KINDS[0];
    relation(inode(kind), host_number(&told(), kind), fixed(first, &release())) != Relation::Host
}

pub(crate) fn section() -> Section {
    let (told, release) = (told(), release());
    let mut rows = Vec::new();
    let mut json = Vec::new();
    for (kind, meaning, first) in KINDS {
        let inode = inode(kind);
        let host = host_number(&told, kind);
        let relation = relation(inode, host, fixed(first, &release));
        let number = inode.map_or_else(|| "unreadable".to_owned(), |inode| inode.to_string());
        let beside = host.map(|host| format!(" (host {host})")).unwrap_or_default();
        rows.push(Row::new(kind, format!("{number}  {}{beside}", relation.word()), meaning));
        let own = match relation {
            Relation::Own => Value::from(true),
            Relation::Host => Value::from(false),
            Relation::Unknown => Value::Null,
        };
        json.push((kind, Value::object([("inode", inode.into()), ("host_inode", host.into()), ("own", own)])));
    }
    Section {
        key: "namespaces",
        title: "Namespaces",
        meaning: "what makes it a container: same number, same view",
        rows,
        json: Value::object(json),
    }
}

/// The numbers of the host's namespaces, `mnt=4026531841,uts=...`, when the engine was asked to pass them.
fn told() -> String {
    #[expect(clippy::disallowed_methods, reason = "a program with no configuration but its environment")]
    std::env::var("BERTH_HOST_NS").unwrap_or_default()
}

fn inode(kind: &str) -> Option<u64> {
    number(&std::fs::read_link(format!("/proc/self/ns/{kind}")).ok()?)
}

/// `mnt:[4026531841]`
fn number(link: &std::path::Path) -> Option<u64> {
    link.to_str()?.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

/// `mnt=4026531841,uts=...`, as the engine tells it.
fn host_number(told: &str, kind: &str) -> Option<u64> {
    told.split(',').filter_map(|entry| entry.split_once('=')).find(|(key, _)| *key == kind)?.1.parse().ok()
}

/// Without being told, only the numbers that are fixed in the kernel say something: no later namespace gets them.
fn relation(inode: Option<u64>, host: Option<u64>, first: Option<u64>) -> Relation {
    match (inode, host.or(first)) {
        (Some(inode), Some(host)) if inode == host => Relation::Host,
        (Some(_), Some(_)) => Relation::Own,
        _ => Relation::Unknown,
    }
}

/// The number of the first namespace of a kind, where this kernel fixes it: for `mnt` and `net` only since Linux 6.18.
fn fixed(first: u64, release: &str) -> Option<u64> {
    let mut numbers = release.split(|it: char| !it.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next()?, numbers.next()?);
    (first >= FIXED_EARLY || version >= (6, 18)).then_some(first)
}

fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_or_the_hosts() {
        assert_eq!(host_number("mnt=1,uts=2", "uts"), Some(2));
        assert_eq!(host_number("mnt=x,uts", "mnt"), None);
        assert_eq!(relation(Some(5), Some(5), Some(9)), Relation::Host);
        assert_eq!(relation(Some(5), Some(6), Some(5)), Relation::Own, "what the engine says counts more");
        assert_eq!(relation(Some(5), None, Some(5)), Relation::Host);
        assert_eq!(relation(Some(5), None, Some(6)), Relation::Own);
        assert_eq!(relation(Some(5), None, None), Relation::Unknown);
        assert_eq!(relation(None, Some(5), Some(5)), Relation::Unknown);
        let (mnt, uts) = (0xefff_fff8, 0xefff_fffe);
        assert_eq!((fixed(mnt, "6.17.9-x"), fixed(uts, "6.17.9-x")), (None, Some(uts)));
        assert_eq!((fixed(mnt, "6.18.44-x"), fixed(mnt, "7.0"), fixed(mnt, "odd")), (Some(mnt), Some(mnt), None));
        assert_eq!(number(std::path::Path::new("mnt:[4026531841]")), Some(4_026_531_841));
    }
}
