//! From a checked request to the OCI spec: a pure function, with the reason of everything that came from somebody's wish.
//!
//! One module per subject. What must be looked up on the host (device numbers, other containers' namespaces, generated files) comes in
//! as data, so that a plan can be made, compared and tested without root.

mod devices;
mod mounts;
mod namespaces;
pub(crate) mod process;
pub(crate) mod resources;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use berth_oci::annotation;
use berth_oci::runtime::{Linux, Root, Spec};

use crate::api::CgroupDriver;
use crate::host::HostFacts;
use crate::record::Record;
use crate::request::Request;
use crate::request::namespaces::{IdRange, NsMode};

pub(crate) use devices::HostDevice;
pub(crate) use resources::BlockDevices;

/// The runtime-spec version the fields used here are of.
const OCI_VERSION: &str = "1.2.0";

/// Everything the spec is made of.
#[derive(Debug)]
pub(crate) struct SpecInput<'a> {
    pub(crate) record: &'a Record,
    pub(crate) request: &'a Request,
    pub(crate) facts: &'a HostFacts,
    pub(crate) cgroup_path: &'a str,
    /// Directory of `hostname`, `hosts` and `resolv.conf`.
    pub(crate) files_dir: &'a Path,
    pub(crate) namespaces: &'a NamespacePaths,
    pub(crate) id_maps: &'a [IdRange],
    pub(crate) init_binary: Option<&'a Path>,
    pub(crate) seccomp_program: Option<&'a Path>,
    pub(crate) devices: &'a [HostDevice],
    pub(crate) block_devices: &'a BlockDevices,
    /// Directories of the host by the place the container sees them at.
    pub(crate) volumes: &'a BTreeMap<PathBuf, PathBuf>,
    /// `/dev/shm` of the container whose IPC namespace is joined.
    pub(crate) shared_shm: Option<&'a Path>,
}

/// Files of namespaces to join; `None`: a new one, or the host's, as the mode says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NamespacePaths {
    pub(crate) network: Option<PathBuf>,
    pub(crate) pid: Option<PathBuf>,
    pub(crate) ipc: Option<PathBuf>,
    pub(crate) uts: Option<PathBuf>,
    pub(crate) cgroup: Option<PathBuf>,
    pub(crate) user: Option<PathBuf>,
}

/// Why an object of the spec is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason {
    /// As the runtime's plan names it: a path, a namespace, a limit.
    pub(crate) object: String,
    pub(crate) reason: String,
}

/// Makes the spec.
pub(crate) fn generate(input: &SpecInput<'_>) -> (Spec, Vec<Reason>) {
    let mut reasons = Vec::new();
    let host = &input.record.host;
    let security = &input.request.security;
    let mut spec = Spec::default();
    OCI_VERSION.clone_into(spec.version_mut());
    let mut root = Root::default();
    root.set_path(PathBuf::from("rootfs"));
    root.set_readonly(Some(host.read_only_rootfs));
    spec.set_root(Some(root));
    if host.read_only_rootfs {
        reasons.push(Reason { object: "/".to_owned(), reason: "flag --read-only".to_owned() });
    }
    spec.set_process(Some(process::init(input)));
    let has_own_uts = input.request.namespaces.uts == NsMode::Private;
    spec.set_hostname(has_own_uts.then(|| hostname(input.record)));
    let domainname = &input.record.config.domainname;
    spec.set_domainname((has_own_uts && !domainname.is_empty()).then(|| domainname.clone()));
    spec.set_mounts(Some(mounts::mounts(input, &mut reasons)));
    spec.set_annotations(Some(annotations(input)));

    let mut linux = Linux::default();
    linux.set_namespaces(Some(namespaces::namespaces(input, &mut reasons)));
    let maps = namespaces::id_mappings(input);
    linux.set_uid_mappings(maps.clone());
    linux.set_gid_mappings(maps);
    linux.set_sysctl(Some(namespaces::sysctls(input)));
    linux.set_cgroups_path(Some(PathBuf::from(input.cgroup_path)));
    linux.set_resources(Some(resources::for_create(input, &mut reasons)));
    linux.set_devices(Some(devices::nodes(input)));
    linux.set_seccomp(None);
    linux.set_rootfs_propagation(mounts::rootfs_propagation(input.request));
    let mut masked = security.masked_paths.clone();
    if !masked.is_empty() && host.masked_paths.is_none() {
        masked.extend(input.facts.thermal_paths.iter().cloned());
    }
    linux.set_masked_paths(Some(masked));
    linux.set_readonly_paths(Some(security.readonly_paths.clone()));
    spec.set_linux(Some(linux));
    (spec, reasons)
}

/// The host name a container shows: asked for, else the host's for one in its network, else the short id.
pub(crate) fn hostname(record: &Record) -> String {
    match record.config.hostname.as_str() {
        "" if record.host.network_mode == "host" => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        "" => record.id.short().to_owned(),
        asked => asked.to_owned(),
    }
}

fn annotations(input: &SpecInput<'_>) -> HashMap<String, String> {
    let host = &input.record.host;
    let mut annotations: HashMap<String, String> = host.annotations.clone().into_iter().collect();
    if let Some(program) = input.seccomp_program {
        annotations.insert(annotation::SECCOMP_PROGRAM.to_owned(), program.display().to_string());
    }
    if input.facts.cgroup_driver == CgroupDriver::Systemd {
        annotations.insert(annotation::CGROUP_DRIVER.to_owned(), CgroupDriver::Systemd.name().to_owned());
    }
    if !host.group_add.is_empty() {
        annotations.insert(annotation::GROUP_ADD.to_owned(), host.group_add.join(","));
    }
    if input.record.config.trace {
        annotations.insert(annotation::TRACE.to_owned(), "true".to_owned());
    }
    annotations
}
