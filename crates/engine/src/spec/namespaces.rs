//! Namespaces, id maps and the sysctls that belong to them.

use std::collections::HashMap;
use std::path::PathBuf;

use berth_oci::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceType};

use super::{Reason, SpecInput};
use crate::request::namespaces::{NetworkMode, NsMode, UserNsMode};

pub(super) fn namespaces(input: &SpecInput<'_>, reasons: &mut Vec<Reason>) -> Vec<LinuxNamespace> {
    let modes = &input.request.namespaces;
    let paths = input.namespaces;
    let host = &input.record.host;
    let mut list = Vec::with_capacity(7);
    let mut add = |kind: LinuxNamespaceType, path: Option<PathBuf>, asked: &str| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind);
        namespace.set_path(path);
        list.push(namespace);
        if !asked.is_empty() {
            reasons.push(Reason { object: kind.to_string(), reason: format!("mode {asked}") });
        }
    };
    add(LinuxNamespaceType::Mount, None, "");
    if modes.network != NetworkMode::Joined(NsMode::Host) {
        add(LinuxNamespaceType::Network, paths.network.clone(), &host.network_mode);
    }
    let simple = [
        (LinuxNamespaceType::Uts, &modes.uts, &paths.uts, &host.uts_mode),
        (LinuxNamespaceType::Ipc, &modes.ipc, &paths.ipc, &host.ipc_mode),
        (LinuxNamespaceType::Pid, &modes.pid, &paths.pid, &host.pid_mode),
        (LinuxNamespaceType::Cgroup, &modes.cgroup, &paths.cgroup, &host.cgroupns_mode),
    ];
    for (kind, mode, path, asked) in simple {
        if *mode != NsMode::Host {
            add(kind, path.clone(), asked);
        }
    }
    if !matches!(modes.user, UserNsMode::Host | UserNsMode::Joined(NsMode::Host)) {
        add(LinuxNamespaceType::User, paths.user.clone(), &host.userns_mode);
    }
    list
}

pub(super) fn id_mappings(input: &SpecInput<'_>) -> Option<Vec<LinuxIdMapping>> {
    let one = |range: &crate::request::namespaces::IdRange| {
        LinuxIdMappingBuilder::default().container_id(range.container).host_id(range.host).size(range.size).build().ok()
    };
    (!input.id_maps.is_empty()).then(|| input.id_maps.iter().filter_map(one).collect())
}

/// What was asked for. That low ports and ping need no capability in a network of the container's own, as in Docker, is
/// set where that network is made: in a user namespace the container itself has no right to.
pub(super) fn sysctls(input: &SpecInput<'_>) -> HashMap<String, String> {
    input.record.host.sysctls.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}
