//! Everything an instance holds in the kernel and on disk, as lines: two pictures of an idle instance must be equal (S-155).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use crate::deadline::wait_until;
use crate::{Instance, leak, peers};

/// What the network crate keeps ready.
const SANDBOXES_READY: &str = "8 veth links";

/// One picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces(BTreeSet<String>);

impl Traces {
    /// Of an instance whose daemon runs. Counts of links and namespaces are the whole machine's: nothing else may run beside.
    pub fn of(instance: &Instance) -> Self {
        let mut lines = BTreeSet::new();
        let (root, state) = (instance.root(), instance.state());
        for (kind, directory) in [
            ("bundle", state.join("tasks")),
            ("throw-away record", state.join("containers")),
            ("socket", state.join("sockets")),
            ("container directory", root.join("containers")),
            ("trash", root.join("trash")),
            ("volume", root.join("volumes")),
            ("blob", root.join("content/blobs/sha256")),
            ("ingest", root.join("content/ingest")),
        ] {
            lines.extend(names(&directory).into_iter().map(|name| format!("{kind} {name}")));
        }
        lines.extend(below(&root.join("snapshots"), 3).into_iter().map(|path| format!("snapshot {path}")));
        let picture = leak::Picture::take(&instance.cgroup_parent());
        lines.extend(picture.cgroups.iter().map(|name| format!("cgroup {name}")));
        lines.extend(picture.mounts.iter().map(|name| format!("mount {name}")));
        let veths = picture.links.iter().filter(|name| name.starts_with("veth")).count();
        lines.insert(format!("{veths} veth links"));
        lines.insert(format!("{} network namespaces", network_namespaces()));
        lines.extend(processes(instance).into_iter().map(|line| format!("process {line}")));
        lines.extend(rules(&instance.bridge()).into_iter().map(|line| format!("rule {line}")));
        lines.insert(format!("addresses {}", addresses(instance)));
        lines.extend(descriptors(instance).into_iter().map(|(what, count)| format!("{count} descriptors of {what}")));
        Self(lines)
    }

    /// Of an idle instance, once its daemon has the network sandboxes ready that it keeps for the next starts.
    pub fn idle(instance: &Instance) -> Self {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(15);
        let mut last = None;
        wait_until("the sandboxes are ready", || {
            let picture = Self::of(instance);
            // The daemon may not have noticed yet that the last client has gone.
            if last.replace(picture.clone()).as_ref() != Some(&picture) {
                return None;
            }
            let is_trash = |line: &String| line.starts_with("trash") || line.contains("/trash/");
            let is_idle = picture.0.contains(SANDBOXES_READY) && !picture.0.iter().any(is_trash);
            assert!(is_idle || std::time::Instant::now() < deadline, "the instance is not idle: {picture:#?}");
            is_idle.then_some(picture)
        })
    }

    /// Waits until the instance looks like this again; panics with the difference when it never does.
    #[track_caller]
    pub fn await_again(&self, instance: &Instance, after: &str) {
        // Generous: it bounds a leak, it decides nothing else.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(45);
        wait_until("nothing is left", || {
            let now = Self::of(instance);
            if now == *self {
                return Some(());
            }
            let more: Vec<_> = now.0.difference(&self.0).collect();
            let less: Vec<_> = self.0.difference(&now.0).collect();
            assert!(std::time::Instant::now() < deadline, "after {after}: left {more:#?}\nmissing {less:#?}");
            None
        });
    }
}

/// The daemon's, by what they lead to: a file's path, or a kind. Without its connections to registries, which it keeps for a while.
fn descriptors(instance: &Instance) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let connections = connections(instance.daemon_pid());
    let open = std::fs::read_dir(format!("/proc/{}/fd", instance.daemon_pid())).into_iter().flatten().flatten();
    for target in open.filter_map(|entry| std::fs::read_link(entry.path()).ok()) {
        let target = target.to_string_lossy();
        if connections.contains(&*target) {
            continue;
        }
        // socket:[1234] has a number of its own, anon_inode:[eventpoll] has not.
        let what = target.split_once(":[").filter(|(kind, _)| *kind != "anon_inode").map_or(&*target, |(kind, _)| kind);
        // The log of events goes on in another file once one is full.
        let what = what.rsplit_once("/events/").map_or(what, |(directory, _)| directory);
        *found.entry(what.to_owned()).or_default() += 1;
    }
    found
}

/// TCP sockets that do not listen (proc_net_tcp), as links of descriptors name them.
fn connections(pid: u32) -> BTreeSet<String> {
    const LISTENS: &str = "0A";
    let tables = ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/{pid}/net/{table}")));
    let tables = tables.map(Result::unwrap_or_default);
    let rows = tables.iter().flat_map(|table| table.lines().skip(1));
    rows.filter_map(|row| {
        let columns: Vec<&str> = row.split_whitespace().collect();
        (*columns.get(3)? != LISTENS).then(|| columns.get(9).map(|inode| format!("socket:[{inode}]")))?
    })
    .collect()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn below(directory: &Path, depth: usize) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        found.push(path.display().to_string());
        if depth > 1 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(below(&path, depth - 1));
        }
    }
    found
}

/// Those of processes, and those that only a descriptor keeps.
fn network_namespaces() -> usize {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        found.extend(std::fs::read_link(format!("/proc/{pid}/ns/net")));
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        found.extend(
            fds.filter_map(|fd| std::fs::read_link(fd.path()).ok()).filter(|target| target.starts_with("net:")),
        );
        found.retain(|target| target.to_string_lossy().starts_with("net:"));
    }
    found.len()
}

/// Processes of the instance: shims, and whatever runs below a root of ours. The daemon and clients are not counted.
fn processes(instance: &Instance) -> Vec<String> {
    let directory = instance.directory.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let groups = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        let is_ours = line.contains(&directory) || groups.contains(&instance.cgroup_parent());
        if is_ours && pid != instance.daemon_pid().to_string() {
            found.push(format!("{pid} {line}"));
        }
    }
    found
}

/// The firewall table as Debian's `nft` lists it.
fn rules(table: &str) -> Vec<String> {
    let nft = peers::peer("usr/sbin/nft");
    let libraries = peers::peer("usr/lib/x86_64-linux-gnu");
    let listed =
        Command::new(nft).args(["list", "table", "inet", table]).env("LD_LIBRARY_PATH", libraries).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    text.lines().enumerate().map(|(number, line)| format!("{number:03} {line}")).collect()
}

fn addresses(instance: &Instance) -> String {
    let shown = instance.berth(&["network", "inspect", "bridge"]);
    let shown: serde_json::Value = serde_json::from_str(shown.ok()).unwrap();
    shown[0]["Status"]["IPAM"]["Subnets"].to_string()
}
