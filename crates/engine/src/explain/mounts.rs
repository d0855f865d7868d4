//! The mount table of the container's first process against what was planned: why each mount is there, and which nobody planned.

use std::path::Path;

use super::mount_table::{self, Mount};
use super::{ExplainLine, Subject};
use crate::request::namespaces::UserNsMode;

const SECTION: &str = "mounts";
/// Options of a mount that a container's safety may hang on.
const GUARDED: [&str; 4] = ["ro", "nosuid", "nodev", "noexec"];

/// A mount that there shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Planned {
    target: String,
    reason: String,
    /// Of [`GUARDED`], those it shall have; `None`: not told.
    options: Option<Vec<String>>,
    /// Its absence is a drift: other mounts are made only where their target exists.
    is_certain: bool,
    /// Mounts below it come with it.
    is_tree: bool,
}

impl Planned {
    fn at(target: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { target: target.into(), reason: reason.into(), options: None, is_certain: true, is_tree: false }
    }

    fn maybe(target: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { is_certain: false, ..Self::at(target, reason) }
    }
}

pub(super) fn lines(subject: &Subject<'_>) -> Vec<ExplainLine> {
    let proof = subject.proc_path("mountinfo");
    let Some(text) = subject.proc_text("mountinfo") else { return Vec::new() };
    compare(&planned(subject), &mount_table::parse(&text), &proof)
}

fn planned(subject: &Subject<'_>) -> Vec<Planned> {
    let host = &subject.record.host;
    let mut list = vec![root(subject)];
    for mount in subject.spec.mounts().iter().flatten() {
        let target = mount.destination().display().to_string();
        let options = mount.options().clone().unwrap_or_default();
        let kind = mount.typ().as_deref().unwrap_or_default();
        list.push(Planned {
            reason: reason(subject, &target, mount.source().as_deref()),
            options: Some(
                GUARDED.iter().filter(|g| options.iter().any(|o| o == *g)).map(|g| (*g).to_owned()).collect(),
            ),
            is_certain: true,
            is_tree: kind == "cgroup" || options.iter().any(|option| option == "rbind"),
            target,
        });
    }
    if subject.record.config.tty {
        list.push(Planned::at("/dev/console", "flag --tty"));
    }
    let paths = |own: bool| if own { "asked for by the client" } else { "default" };
    let linux = subject.spec.linux().clone().unwrap_or_default();
    let masked = paths(host.masked_paths.is_some());
    for path in linux.masked_paths().iter().flatten() {
        list.push(Planned::maybe(path, format!("{masked}: masked, it tells or does too much")));
    }
    let read_only = paths(host.readonly_paths.is_some());
    for path in linux.readonly_paths().iter().flatten() {
        let options = Some(vec!["ro".to_owned()]);
        list.push(Planned {
            options,
            ..Planned::maybe(path, format!("{read_only}: read-only, the host's own settings"))
        });
    }
    if subject.request.namespaces.user != UserNsMode::Host {
        let reason = "a device of the host, bound: no node can be made in a user namespace";
        for name in ["null", "zero", "full", "random", "urandom", "tty"] {
            list.push(Planned::maybe(format!("/dev/{name}"), reason));
        }
        for device in linux.devices().iter().flatten() {
            list.push(Planned::maybe(device.path().display().to_string(), reason));
        }
    }
    list
}

fn root(subject: &Subject<'_>) -> Planned {
    let is_read_only = subject.record.host.read_only_rootfs;
    let with = if is_read_only { "flag --read-only" } else { "its writable layer" };
    Planned {
        options: Some(if is_read_only { vec!["ro".to_owned()] } else { Vec::new() }),
        ..Planned::at("/", format!("image {} and {with}", subject.record.image_name))
    }
}

fn reason(subject: &Subject<'_>, target: &str, source: Option<&Path>) -> String {
    let asked = subject.reasons.iter().find(|reason| reason.object == target);
    if let Some(asked) = asked {
        return asked.reason.clone();
    }
    let bundle = subject.engine.inner.tasks.bundle(&subject.record.id);
    match target {
        _ if source.is_some_and(|source| source.starts_with(bundle.path())) => {
            "written by the engine for this container".to_owned()
        }
        "/dev/shm" if subject.record.host.shm_size_bytes.is_some_and(|size| size > 0) => "flag --shm-size".to_owned(),
        "/dev/shm" if subject.record.host.ipc_mode == "host" => "flag --ipc host".to_owned(),
        "/sbin/berth-init" => "flag --init".to_owned(),
        _ => "default: every container has it".to_owned(),
    }
}

fn compare(planned: &[Planned], mounts: &[Mount], proof: &str) -> Vec<ExplainLine> {
    let mut used = vec![false; planned.len()];
    let mut lines: Vec<ExplainLine> = mounts.iter().map(|mount| line(planned, &mut used, mount, proof)).collect();
    let missing = planned.iter().zip(used).filter(|(plan, is_used)| plan.is_certain && !is_used);
    lines.extend(missing.map(|(plan, _)| ExplainLine {
        section: SECTION,
        object: plan.target.clone(),
        asked: Some("mounted".to_owned()),
        in_force: None,
        reason: plan.reason.clone(),
        proof: proof.to_owned(),
        drift: Some("it was unmounted".to_owned()),
    }));
    lines
}

fn line(planned: &[Planned], used: &mut [bool], mount: &Mount, proof: &str) -> ExplainLine {
    let line = ExplainLine {
        section: SECTION,
        object: mount.target.clone(),
        in_force: Some(shown(mount)),
        proof: proof.to_owned(),
        ..ExplainLine::default()
    };
    // Of several plans for one place the later ones are mounted on top.
    let own = planned.iter().zip(used.iter_mut()).find(|(plan, is_used)| plan.target == mount.target && !**is_used);
    if let Some((plan, is_used)) = own {
        *is_used = true;
        let asked =
            plan.options.as_ref().map(|options| if options.is_empty() { "rw".to_owned() } else { options.join(",") });
        return ExplainLine { reason: plan.reason.clone(), asked, drift: options_drift(plan, mount), ..line };
    }
    let parent = planned.iter().filter(|plan| plan.is_tree && Path::new(&mount.target).starts_with(&plan.target));
    match parent.max_by_key(|plan| plan.target.len()).filter(|plan| plan.target != mount.target) {
        Some(plan) => ExplainLine { reason: format!("comes with {}: {}", plan.target, plan.reason), ..line },
        None => ExplainLine {
            reason: "nobody planned it".to_owned(),
            drift: Some("mounted since the start, by hand or by the container itself".to_owned()),
            ..line
        },
    }
}

fn options_drift(plan: &Planned, mount: &Mount) -> Option<String> {
    let asked = plan.options.as_ref()?;
    let has = |option: &str| mount.options.iter().any(|own| own == option);
    let lost: Vec<&str> = asked.iter().map(String::as_str).filter(|option| !has(option)).collect();
    if !lost.is_empty() {
        return Some(format!("remounted without {}", lost.join(",")));
    }
    (has("ro") && !asked.iter().any(|option| option == "ro")).then(|| "remounted read-only".to_owned())
}

fn shown(mount: &Mount) -> String {
    let source = match mount.kind.as_str() {
        "overlay" => {
            let count = |key: &str| mount.super_options.split(',').filter(|option| option.starts_with(key)).count();
            // Old kernels list all lower layers in one option.
            let joined = mount.super_options.split(',').find_map(|option| option.strip_prefix("lowerdir="));
            let layers = joined.map_or_else(|| count("lowerdir+="), |list| list.split(':').count());
            format!(
                "overlay of {layers} layer{}{}",
                if layers == 1 { "" } else { "s" },
                if count("upperdir=") > 0 { " and an upper one" } else { "" }
            )
        }
        kind if mount.root == "/" => format!("{kind} {}", mount.source),
        kind => format!("{kind} {} of {}", mount.root, mount.source),
    };
    let propagation = if mount.propagation.is_empty() { "private".to_owned() } else { mount.propagation.join(",") };
    format!("{source} ({}, {propagation})", mount.options.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(target: &str, options: &[&str], is_tree: bool) -> Planned {
        let options = Some(options.iter().map(|option| (*option).to_owned()).collect());
        Planned { options, is_tree, ..Planned::at(target, "why") }
    }

    fn drifts(planned: &[Planned], table: &str) -> Vec<(String, Option<String>)> {
        let lines = compare(planned, &mount_table::parse(table), "mountinfo");
        lines.into_iter().map(|line| (line.object, line.drift)).collect()
    }

    #[test]
    fn what_was_planned_is_there_and_nothing_else() {
        let planned = [plan("/", &[], false), plan("/data", &["ro"], true), Planned::maybe("/proc/kcore", "masked")];
        let good = "1 0 0:1 / / rw - overlay overlay rw\n2 1 0:2 / /data ro,nosuid - ext4 /dev/a rw\n3 2 0:3 / /data/sub rw - ext4 /dev/b rw\n";
        assert!(drifts(&planned, good).iter().all(|(_, drift)| drift.is_none()));
        let changed = "1 0 0:1 / / ro - overlay overlay rw\n2 1 0:2 / /data rw - ext4 /dev/a rw\n3 1 0:3 / /mnt rw - tmpfs x rw\n4 1 0:3 / /data rw - tmpfs x rw\n";
        let found: Vec<String> = drifts(&planned, changed).into_iter().map(|(_, drift)| drift.unwrap()).collect();
        assert_eq!(found[0], "remounted read-only");
        assert_eq!(found[1], "remounted without ro");
        assert!(found[2].starts_with("mounted since the start") && found[3].starts_with("mounted since the start"));
        let gone = drifts(&planned, "1 0 0:1 / / rw - overlay overlay rw\n");
        assert_eq!(gone[1], ("/data".to_owned(), Some("it was unmounted".to_owned())));
    }

    #[test]
    fn sources() {
        let table = "1 0 0:1 / / rw shared:1 - overlay overlay rw,lowerdir+=/a,lowerdir+=/b,upperdir=/u\n2 1 0:2 /x /y ro - ext4 /dev/a rw\n";
        let mounts = mount_table::parse(table);
        assert_eq!(shown(&mounts[0]), "overlay of 2 layers and an upper one (rw, shared:1)");
        assert_eq!(shown(&mounts[1]), "ext4 /x of /dev/a (ro, private)");
    }
}
