//! Puts the parsed flags together into the create request.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::path::Path;

use bollard_stubs::models::{ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig};
use serde_json::Value;

use super::device::{check_cgroup_rule, parse_bps, parse_device, parse_iops, parse_weight_device};
use super::environment::{Pairs, as_map, key_values};
use super::limit::{bytes, check_signal, parse_ulimit, restart_policy};
use super::mount::{Volume, parse_mount, parse_tmpfs, parse_volume};
use super::options::{ContainerOptions, CreateLimitOptions, FileOptions, ObjectOptions, SecurityOptions};
use super::port::Ports;
use super::security::parse_security;
use crate::context::Environment;
use crate::failure::{Failure, Outcome};
use crate::timeline::Form;

/// What goes to the daemon, and what the caller needs to know of it.
#[derive(Debug)]
pub(crate) struct CreateRequest {
    pub(crate) name: Option<String>,
    pub(crate) platform: Option<String>,
    pub(crate) body: Value,
    pub(crate) warnings: Vec<String>,
    pub(crate) streams: Streams,
}

/// The process's streams that the client wants attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Streams {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

impl Streams {
    pub(crate) const fn any(self) -> bool {
        self.stdin || self.stdout || self.stderr
    }
}

/// `is_detached`: `-d`, or `create` without `-a`; nothing is attached then unless asked for.
pub(crate) fn create_request(
    options: &ContainerOptions,
    is_detached: bool,
    directory: &Path,
    environment: &Environment,
) -> Outcome<CreateRequest> {
    let (image, command) = options.words.split_first().ok_or_else(|| Failure::new("no image is named"))?;
    if image.is_empty() {
        return Err(Failure::new("no image is named"));
    }
    check_conflicts(options)?;
    let streams = streams(options, is_detached)?;
    let ports = Ports::parse(&options.network.publish, &options.network.expose)?;
    let mut warnings = Vec::new();
    let host = host_config(options, &ports, directory, &mut warnings)?;
    let process = &options.process;
    let env = key_values(Pairs::Environment(environment), &process.env_file, &process.env)?;
    let labels = as_map(&key_values(Pairs::Labels, &options.object.label_file, &options.object.label)?);
    let volumes = volumes(&options.files, directory)?.1;
    let body = ContainerCreateBody {
        image: Some(image.clone()),
        cmd: (!command.is_empty()).then(|| command.to_vec()),
        entrypoint: process.entrypoint.clone().map(|program| vec![program]),
        env: Some(env),
        labels: Some(labels.into_iter().collect()),
        hostname: options.network.hostname.clone(),
        domainname: options.network.domainname.clone(),
        user: process.user.clone(),
        working_dir: process.workdir.clone(),
        tty: Some(process.tty),
        open_stdin: Some(process.interactive),
        stdin_once: Some(process.interactive && streams.stdin),
        attach_stdin: Some(streams.stdin),
        attach_stdout: Some(streams.stdout),
        attach_stderr: Some(streams.stderr),
        exposed_ports: (!ports.exposed.is_empty()).then(|| ports.exposed.iter().cloned().collect()),
        volumes: (!volumes.is_empty()).then_some(volumes),
        stop_signal: process.stop_signal.as_deref().map(|text| check_signal("--stop-signal", text)).transpose()?,
        stop_timeout: process.stop_timeout,
        healthcheck: process
            .no_healthcheck
            .then(|| HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    };
    let mut body = serde_json::to_value(body)
        .map_err(|error| Failure::new("cannot write the create request as JSON").because(&error))?;
    // Docker's API knows two values; ours takes the forms of the other namespaces too.
    if let Some(mode) = options.security.cgroupns.as_deref().filter(|mode| !mode.is_empty()) {
        body["HostConfig"]["CgroupnsMode"] = mode.into();
    }
    if options.object.trace.is_some() {
        body["BerthTrace"] = true.into();
    }
    let object = &options.object;
    Ok(CreateRequest { name: object.name.clone(), platform: object.platform.clone(), body, warnings, streams })
}

fn check_conflicts(options: &ContainerOptions) -> Outcome<()> {
    let object = &options.object;
    if object.rm && object.restart.as_deref().is_some_and(|policy| !matches!(policy, "" | "no")) {
        return Err(Failure::new("--rm and --restart exclude each other"));
    }
    if !matches!(object.pull.as_str(), "always" | "missing" | "never") {
        return Err(Failure::new(format!("invalid --pull {:?}", object.pull)).hint("it is always, missing or never"));
    }
    if let Some(form) = &object.trace {
        Form::parse("--trace", form)?;
    }
    if object.plan.as_deref().is_some_and(|form| !matches!(form, "text" | "json")) {
        return Err(Failure::new("invalid --plan: the form is text or json"));
    }
    if options.limits.memory_swap.as_deref().is_some_and(|swap| swap != "-1") && options.limits.memory.is_none() {
        return Err(Failure::new("--memory-swap needs --memory").hint("the value is memory plus swap"));
    }
    Ok(())
}

fn streams(options: &ContainerOptions, is_detached: bool) -> Outcome<Streams> {
    let process = &options.process;
    if process.attach.is_empty() {
        if is_detached {
            return Ok(Streams::default());
        }
        return Ok(Streams { stdin: process.interactive, stdout: true, stderr: true });
    }
    let mut streams = Streams::default();
    for name in &process.attach {
        match name.to_ascii_lowercase().as_str() {
            "stdin" => streams.stdin = true,
            "stdout" => streams.stdout = true,
            "stderr" => streams.stderr = true,
            _ => {
                return Err(Failure::new(format!("invalid --attach {name:?}")).hint("it is stdin, stdout or stderr"));
            }
        }
    }
    Ok(streams)
}

fn host_config(
    options: &ContainerOptions,
    ports: &Ports,
    directory: &Path,
    warnings: &mut Vec<String>,
) -> Outcome<HostConfig> {
    let mut host = HostConfig::default();
    options.limits.apply(&mut host)?;
    more_limits(&options.more_limits, &mut host)?;
    files(&options.files, directory, &mut host)?;
    isolation(&options.security, &mut host)?;
    object(&options.object, &mut host)?;
    host.group_add = list(&options.process.group_add);
    host.init = options.process.init.then_some(true);
    network(options, ports, &mut host, warnings)?;
    Ok(host)
}

fn network(
    options: &ContainerOptions,
    ports: &Ports,
    host: &mut HostConfig,
    warnings: &mut Vec<String>,
) -> Outcome<()> {
    let flags = &options.network;
    let mode = match flags.network.as_slice() {
        [] => "default",
        [one] => one.as_str(),
        _ => return Err(Failure::not_yet("more than one --network: user-defined networks are not supported")),
    };
    let mode = mode.strip_prefix("name=").unwrap_or(mode);
    if mode.contains(',') {
        return Err(Failure::not_yet(format!("the long form of --network {mode:?}")));
    }
    if matches!(mode, "host" | "none") && (!ports.bindings.is_empty() || flags.publish_all) {
        warnings.push(format!("published ports are discarded with --network {mode}"));
    }
    host.network_mode = Some(mode.to_owned());
    host.port_bindings = (!ports.bindings.is_empty())
        .then(|| ports.bindings.iter().map(|(port, bindings)| (port.clone(), Some(bindings.clone()))).collect());
    host.publish_all_ports = flags.publish_all.then_some(true);
    host.dns = list(&flags.dns);
    host.dns_options = list(&flags.dns_option);
    host.dns_search = list(&flags.dns_search);
    for text in &flags.add_host {
        let is_valid = text.split_once([':', '=']).is_some_and(|(name, ip)| !name.is_empty() && !ip.is_empty());
        if !is_valid {
            return Err(Failure::new(format!("invalid --add-host {text:?}")).hint("write it as name:ip"));
        }
    }
    host.extra_hosts = list(&flags.add_host.iter().map(|text| colon_first(text)).collect::<Vec<_>>());
    Ok(())
}

/// `name=ip` as `name:ip`.
fn colon_first(text: &str) -> String {
    match text.find([':', '=']) {
        Some(at) => format!("{}:{}", &text[..at], &text[at + 1..]),
        None => text.to_owned(),
    }
}

fn more_limits(flags: &CreateLimitOptions, host: &mut HostConfig) -> Outcome<()> {
    if let Some(swappiness) = flags.memory_swappiness.filter(|value| *value != -1) {
        if !(0..=100).contains(&swappiness) {
            return Err(Failure::new(format!("invalid --memory-swappiness {swappiness}: it is 0 to 100")));
        }
        host.memory_swappiness = Some(swappiness);
    }
    if let Some(adj) = flags.oom_score_adj {
        if !(-1000..=1000).contains(&adj) {
            return Err(Failure::new(format!("invalid --oom-score-adj {adj}: it is -1000 to 1000")));
        }
        host.oom_score_adj = Some(adj);
    }
    host.oom_kill_disable = flags.oom_kill_disable.then_some(true);
    host.ulimits = each(&flags.ulimit, parse_ulimit)?;
    host.cgroup_parent.clone_from(&flags.cgroup_parent);
    host.blkio_weight_device = each(&flags.blkio_weight_device, parse_weight_device)?;
    host.blkio_device_read_bps = each(&flags.device_read_bps, |text| parse_bps("--device-read-bps", text))?;
    host.blkio_device_write_bps = each(&flags.device_write_bps, |text| parse_bps("--device-write-bps", text))?;
    host.blkio_device_read_iops = each(&flags.device_read_iops, |text| parse_iops("--device-read-iops", text))?;
    host.blkio_device_write_iops = each(&flags.device_write_iops, |text| parse_iops("--device-write-iops", text))?;
    Ok(())
}

/// Binds, and the paths of anonymous volumes.
fn volumes(flags: &FileOptions, directory: &Path) -> Outcome<(Vec<String>, Vec<String>)> {
    let mut binds = Vec::new();
    let mut anonymous = Vec::new();
    for text in &flags.volume {
        match parse_volume(text, directory)? {
            Volume::Bind(bind) => binds.push(bind),
            Volume::Anonymous(path) => anonymous.push(path),
        }
    }
    Ok((binds, anonymous))
}

fn files(flags: &FileOptions, directory: &Path, host: &mut HostConfig) -> Outcome<()> {
    let (binds, _) = volumes(flags, directory)?;
    host.binds = list(&binds);
    host.volumes_from = list(&flags.volumes_from);
    host.volume_driver.clone_from(&flags.volume_driver);
    host.mounts = each(&flags.mount, |text| parse_mount(text, directory))?;
    let tmpfs = flags.tmpfs.iter().map(|text| parse_tmpfs(text)).collect::<Outcome<HashMap<_, _>>>()?;
    host.tmpfs = (!tmpfs.is_empty()).then_some(tmpfs);
    host.readonly_rootfs = flags.read_only.then_some(true);
    host.shm_size = flags.shm_size.as_deref().map(|text| bytes("--shm-size", text)).transpose()?;
    host.devices = each(&flags.device, parse_device)?;
    host.device_cgroup_rules = each(&flags.device_cgroup_rule, check_cgroup_rule)?;
    Ok(())
}

fn isolation(flags: &SecurityOptions, host: &mut HostConfig) -> Outcome<()> {
    host.cap_add = list(&flags.cap_add);
    host.cap_drop = list(&flags.cap_drop);
    host.privileged = flags.privileged.then_some(true);
    let security = parse_security(&flags.security_opt)?;
    host.security_opt = list(&security.options);
    if security.is_systempaths_unconfined {
        host.masked_paths = Some(Vec::new());
        host.readonly_paths = Some(Vec::new());
    }
    host.pid_mode.clone_from(&flags.pid);
    host.ipc_mode.clone_from(&flags.ipc);
    host.uts_mode.clone_from(&flags.uts);
    host.userns_mode.clone_from(&flags.userns);
    host.sysctls = map("--sysctl", &flags.sysctl)?;
    host.runtime.clone_from(&flags.runtime);
    Ok(())
}

fn object(flags: &ObjectOptions, host: &mut HostConfig) -> Outcome<()> {
    host.auto_remove = flags.rm.then_some(true);
    host.restart_policy = flags.restart.as_deref().map(restart_policy).transpose()?;
    host.annotations = map("--annotation", &flags.annotation)?;
    let log_options = map("--log-opt", &flags.log_opt)?;
    if flags.log_driver.is_some() || log_options.is_some() {
        host.log_config = Some(HostConfigLogConfig { typ: flags.log_driver.clone(), config: log_options });
    }
    Ok(())
}

fn list(items: &[String]) -> Option<Vec<String>> {
    (!items.is_empty()).then(|| items.to_vec())
}

fn each<T>(items: &[String], parse: impl Fn(&str) -> Outcome<T>) -> Outcome<Option<Vec<T>>> {
    if items.is_empty() {
        return Ok(None);
    }
    items.iter().map(|text| parse(text)).collect::<Outcome<Vec<T>>>().map(Some)
}

fn map<S: BuildHasher + Default>(flag: &str, items: &[String]) -> Outcome<Option<HashMap<String, String, S>>> {
    let mut pairs = BTreeMap::new();
    for text in items {
        let (key, value) = text
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| Failure::new(format!("invalid {flag} {text:?}")).hint("write it as key=value"))?;
        pairs.insert(key.to_owned(), value.to_owned());
    }
    Ok((!pairs.is_empty()).then(|| pairs.into_iter().collect()))
}
