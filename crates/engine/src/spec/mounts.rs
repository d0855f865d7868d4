//! The container's mounts: kernel file systems, then what was asked and the generated files, parents before children.

use std::path::{Path, PathBuf};

use berth_oci::runtime::Mount;

use super::process::INIT_PATH;
use super::{Reason, SpecInput};
use crate::request::Request;
use crate::request::mounts::{MountKind, MountPlan, ReadOnly};
use crate::request::namespaces::{NetworkMode, NsMode, UserNsMode};

const DEFAULT_SHM_BYTES: i64 = 64 << 20;

fn mount(destination: impl Into<PathBuf>, kind: &str, source: &Path, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount.set_destination(destination.into());
    mount.set_typ(Some(kind.to_owned()));
    mount.set_source(Some(source.to_owned()));
    mount.set_options(Some(options.iter().map(|o| (*o).to_owned()).collect()));
    mount
}

pub(super) fn mounts(input: &SpecInput<'_>, reasons: &mut Vec<Reason>) -> Vec<Mount> {
    let asked = &input.request.mounts;
    let is_free = |mount: &Mount| !asked.iter().any(|plan| plan.target == *mount.destination());
    let mut list: Vec<Mount> = kernel_mounts(input).into_iter().filter(is_free).collect();
    let mut rest: Vec<Mount> = generated(input).into_iter().filter(is_free).collect();
    for plan in asked {
        reasons.push(Reason { object: plan.target.display().to_string(), reason: plan.reason.clone() });
        rest.push(asked_mount(input, plan));
    }
    rest.sort_by_key(|mount| mount.destination().components().count());
    list.extend(rest);
    list
}

fn kernel_mounts(input: &SpecInput<'_>) -> Vec<Mount> {
    let security = &input.request.security;
    let modes = &input.request.namespaces;
    let shm_bytes = input.record.host.shm_size_bytes.filter(|size| *size > 0).unwrap_or(DEFAULT_SHM_BYTES);
    let shm_size = format!("size={shm_bytes}");
    let plain = ["nosuid", "noexec", "nodev"];
    let read_only = ["nosuid", "noexec", "nodev", "ro"];
    let sysfs: &[&str] = if security.privileged { &plain } else { &read_only };
    let cgroup: &[&str] = if security.writable_cgroups { &plain } else { &read_only };
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    let maps_tty_group = |r: &crate::request::namespaces::IdRange| (r.container..r.container + r.size).contains(&5);
    if modes.user == UserNsMode::Host || input.id_maps.iter().any(maps_tty_group) {
        pts.push("gid=5");
    }
    let mut list = vec![
        mount("/proc", "proc", Path::new("proc"), &plain),
        mount("/dev", "tmpfs", Path::new("tmpfs"), &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", Path::new("devpts"), &pts),
        mount("/sys", "sysfs", Path::new("sysfs"), sysfs),
        mount("/sys/fs/cgroup", "cgroup", Path::new("cgroup"), cgroup),
    ];
    // Queues are those of the IPC namespace the container is in, the host's own included.
    list.push(mount("/dev/mqueue", "mqueue", Path::new("mqueue"), &plain));
    if modes.ipc == NsMode::Host {
        let bind = ["rbind", "nosuid", "noexec", "nodev"];
        list.push(mount("/dev/shm", "bind", Path::new("/dev/shm"), &bind));
        return list;
    }
    if let Some(shm) = input.shared_shm {
        list.push(mount("/dev/shm", "bind", shm, &["bind", "nosuid", "noexec", "nodev"]));
        return list;
    }
    if modes.has_shm {
        let options = ["nosuid", "noexec", "nodev", "mode=1777", &shm_size];
        list.push(mount("/dev/shm", "tmpfs", Path::new("shm"), &options));
    }
    list
}

/// Files we write for the container, and the init it may have asked for.
fn generated(input: &SpecInput<'_>) -> Vec<Mount> {
    let mode = if input.record.host.read_only_rootfs { "ro" } else { "rw" };
    let options = ["rbind", "rprivate", mode];
    let mut list = Vec::new();
    let has_files = !matches!(input.request.namespaces.network, NetworkMode::Joined(NsMode::Path(_)));
    if has_files {
        for name in ["resolv.conf", "hostname", "hosts"] {
            list.push(mount(format!("/etc/{name}"), "bind", &input.files_dir.join(name), &options));
        }
    }
    if let Some(init) = input.init_binary {
        list.push(mount(INIT_PATH, "bind", init, &["bind", "rprivate", "ro", "nosuid", "nodev"]));
    }
    list
}

fn asked_mount(input: &SpecInput<'_>, plan: &MountPlan) -> Mount {
    match &plan.kind {
        MountKind::Bind { source, is_recursive, propagation, .. } => {
            let mut options =
                vec![if *is_recursive { "rbind" } else { "bind" }, propagation.as_deref().unwrap_or("rprivate")];
            match plan.read_only {
                // As its source is: a mount that is read-only, or may hold no devices, stays so.
                ReadOnly::No => {}
                ReadOnly::Top => options.push("ro"),
                ReadOnly::Recursive => options.extend(["ro", "rro"]),
            }
            mount(&plan.target, "bind", source, &options)
        }
        MountKind::Volume(_) => {
            let unknown = PathBuf::new();
            let source = input.volumes.get(&plan.target).unwrap_or(&unknown);
            let mut options = vec!["rbind", "rprivate"];
            match plan.read_only {
                // As its source is: a mount that is read-only, or may hold no devices, stays so.
                ReadOnly::No => {}
                ReadOnly::Top => options.push("ro"),
                ReadOnly::Recursive => options.extend(["ro", "rro"]),
            }
            // A volume's files belong to the container's users, whatever their numbers are on the host.
            if !input.id_maps.is_empty() {
                options.push("idmap");
            }
            mount(&plan.target, "bind", source, &options)
        }
        MountKind::Tmpfs { options } => {
            let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
            if plan.read_only != ReadOnly::No {
                options.push("ro");
            }
            mount(&plan.target, "tmpfs", Path::new("tmpfs"), &options)
        }
    }
}

/// A bind that shares or receives mounts needs the root to do so, too.
pub(super) fn rootfs_propagation(request: &Request) -> Option<String> {
    let propagations: Vec<&str> = request
        .mounts
        .iter()
        .filter_map(|plan| match &plan.kind {
            MountKind::Bind { propagation, .. } => propagation.as_deref(),
            MountKind::Tmpfs { .. } | MountKind::Volume(_) => None,
        })
        .collect();
    let has = |kind: &str| propagations.iter().any(|p| p.trim_start_matches('r') == kind);
    if has("shared") { Some("shared".to_owned()) } else { has("slave").then(|| "rslave".to_owned()) }
}
