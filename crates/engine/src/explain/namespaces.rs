//! The eight namespaces: whose each one is, and whether that is what was asked.

use std::collections::BTreeMap;

use super::{ExplainLine, Subject};
use crate::request::namespaces::{NetworkMode, NsMode, UserNsMode};

const SECTION: &str = "namespaces";

/// Kind in `/proc/<pid>/ns`, and the flag that decides over it.
const KINDS: [(&str, &str); 8] = [
    ("mnt", ""),
    ("net", "--network"),
    ("pid", "--pid"),
    ("ipc", "--ipc"),
    ("uts", "--uts"),
    ("user", "--userns"),
    ("cgroup", "--cgroupns"),
    ("time", ""),
];

/// Whose a namespace shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Own,
    Host,
    /// With the inode of the namespace that is to be joined, where it can be told.
    Joined(String, Option<u64>),
}

/// One namespace of the container, and the others that are in it.
struct Found<'a> {
    inode: Option<u64>,
    host_inode: Option<u64>,
    sharers: &'a [String],
}

pub(super) fn lines(subject: &Subject<'_>) -> Vec<ExplainLine> {
    let others = others(subject);
    let none = Vec::new();
    KINDS
        .iter()
        .map(|(kind, flag)| {
            let inode = inode(&subject.proc_path(&format!("ns/{kind}")));
            let sharers = inode.and_then(|inode| others.get(&(*kind, inode))).unwrap_or(&none);
            let found = Found { inode, host_inode: self::inode(&format!("/proc/self/ns/{kind}")), sharers };
            let mut line = compare(&wanted(subject, kind), &found);
            line.object = (*kind).to_owned();
            line.reason = reason(subject, kind, flag);
            line.proof = subject.proc_path(&format!("ns/{kind}"));
            line
        })
        .collect()
}

/// Names of the other running containers by the namespaces they are in.
fn others(subject: &Subject<'_>) -> BTreeMap<(&'static str, u64), Vec<String>> {
    let mut found: BTreeMap<(&'static str, u64), Vec<String>> = BTreeMap::new();
    for container in subject.engine.inner.registry.all() {
        let record = container.record();
        if record.id == subject.record.id || !record.state.is_running() {
            continue;
        }
        for (kind, _) in KINDS {
            if let Some(inode) = inode(&format!("/proc/{}/ns/{kind}", record.state.pid)) {
                found.entry((kind, inode)).or_default().push(record.name.clone());
            }
        }
    }
    found
}

/// `net:[4026531840]` by its number.
fn inode(path: &str) -> Option<u64> {
    let link = std::fs::read_link(path).ok()?;
    link.to_str()?.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

fn wanted(subject: &Subject<'_>, kind: &str) -> Wanted {
    let modes = &subject.request.namespaces;
    let mode = match kind {
        "mnt" => return Wanted::Own,
        "time" => return Wanted::Host,
        "net" => match &modes.network {
            NetworkMode::Bridge | NetworkMode::None => return Wanted::Own,
            NetworkMode::Joined(mode) => mode,
        },
        "user" => match &modes.user {
            UserNsMode::Host => return Wanted::Host,
            UserNsMode::Auto | UserNsMode::Map(_) => return Wanted::Own,
            UserNsMode::Joined(mode) => mode,
        },
        "pid" => &modes.pid,
        "ipc" => &modes.ipc,
        "uts" => &modes.uts,
        _ => &modes.cgroup,
    };
    match mode {
        NsMode::Private => Wanted::Own,
        NsMode::Host => Wanted::Host,
        NsMode::Path(path) => Wanted::Joined(path.display().to_string(), inode(&path.display().to_string())),
        NsMode::Container(name) => {
            let pid = subject.engine.find(name).ok().map(|other| other.record().state.pid).filter(|pid| *pid != 0);
            let joined = pid.and_then(|pid| inode(&format!("/proc/{pid}/ns/{kind}")));
            Wanted::Joined(format!("that of {name}"), joined)
        }
    }
}

fn compare(wanted: &Wanted, found: &Found<'_>) -> ExplainLine {
    let is_hosts = found.inode.is_some() && found.inode == found.host_inode;
    let asked = match wanted {
        Wanted::Own => "its own".to_owned(),
        Wanted::Host => "the host's".to_owned(),
        Wanted::Joined(whose, _) => whose.clone(),
    };
    let in_force = found.inode.map(|inode| {
        let whose = if is_hosts {
            "the host's".to_owned()
        } else if found.sharers.is_empty() {
            "its own".to_owned()
        } else {
            format!("shared with {}", found.sharers.join(", "))
        };
        format!("{inode} {whose}")
    });
    let drift = match wanted {
        // A kernel without this kind has nothing to say.
        _ if found.inode.is_none() => None,
        Wanted::Own if is_hosts => Some("it shall be its own, and is the host's".to_owned()),
        Wanted::Host if !is_hosts => Some("it shall be the host's, and is another".to_owned()),
        Wanted::Joined(whose, Some(inode)) if found.inode != Some(*inode) => {
            Some(format!("it shall be {whose} ({inode}), and is another"))
        }
        _ => None,
    };
    ExplainLine { section: SECTION, asked: Some(asked), in_force, drift, ..ExplainLine::default() }
}

fn reason(subject: &Subject<'_>, kind: &str, flag: &str) -> String {
    let host = &subject.record.host;
    let asked = match kind {
        "net" => &host.network_mode,
        "pid" => &host.pid_mode,
        "ipc" => &host.ipc_mode,
        "uts" => &host.uts_mode,
        "user" => &host.userns_mode,
        "cgroup" => &host.cgroupns_mode,
        "mnt" => return "every container has its own".to_owned(),
        _ => return "no container has a clock of its own".to_owned(),
    };
    match asked.as_str() {
        "" | "default" => "default".to_owned(),
        asked => format!("flag {flag} {asked}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drift(wanted: &Wanted, inode: u64) -> Option<String> {
        compare(wanted, &Found { inode: Some(inode), host_inode: Some(1), sharers: &[] }).drift
    }

    #[test]
    fn whose_it_is() {
        assert_eq!(drift(&Wanted::Own, 2), None);
        assert!(drift(&Wanted::Own, 1).is_some());
        assert_eq!(drift(&Wanted::Host, 1), None);
        assert!(drift(&Wanted::Host, 2).is_some());
        let joined = Wanted::Joined("that of db".to_owned(), Some(7));
        assert_eq!(drift(&joined, 7), None);
        assert!(drift(&joined, 8).unwrap().contains("that of db (7)"));
        // A container that has gone cannot be compared with.
        assert_eq!(drift(&Wanted::Joined("that of db".to_owned(), None), 8), None);
        let sharers = ["db".to_owned()];
        let line = compare(&Wanted::Own, &Found { inode: Some(5), host_inode: Some(1), sharers: &sharers });
        assert_eq!(line.in_force.as_deref(), Some("5 shared with db"));
    }
}
