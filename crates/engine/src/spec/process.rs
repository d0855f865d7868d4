//! The process of the container, and further ones (`exec`).

use std::path::PathBuf;

use berth_oci::runtime::{BoxBuilder, LinuxCapabilities, PosixRlimit, PosixRlimitBuilder, Process, User};

use super::SpecInput;
use crate::api::ExecConfig;
use crate::merge::DEFAULT_PATH;
use crate::record::Record;
use crate::request::Request;
use crate::request::security;

/// Where `--init` puts our init inside the container; Docker's place, so that images that look for it find it.
pub(crate) const INIT_PATH: &str = "/sbin/docker-init";

pub(super) fn init(input: &SpecInput<'_>) -> Process {
    let config = &input.record.config;
    let mut args = input.record.argv();
    if input.init_binary.is_some() {
        args.splice(0..0, [INIT_PATH.to_owned(), "--".to_owned()]);
    }
    let mut process = base(input.request, input.request.security.capabilities.as_slice());
    process.set_terminal(Some(config.tty));
    process.set_user(user(&config.user));
    process.set_args(Some(args));
    process.set_env(Some(environment(input.record, config.tty)));
    process.set_cwd(directory(&config.working_dir));
    process.set_oom_score_adj(Some(input.request.oom_score_adj));
    process
}

/// A further process: the container's environment, limits and capabilities unless asked otherwise (S-161).
pub(crate) fn exec(record: &Record, request: &Request, exec: &ExecConfig, size: Option<(u16, u16)>) -> Process {
    let all: Vec<&str>;
    let capabilities = if exec.privileged {
        all = berth_types::capability::NAMES.to_vec();
        all.as_slice()
    } else {
        request.security.capabilities.as_slice()
    };
    let mut process = base(request, capabilities);
    process.set_terminal(Some(exec.tty));
    process.set_user(user(if exec.user.is_empty() { &record.config.user } else { &exec.user }));
    process.set_args(Some(exec.cmd.clone()));
    let mut env = environment(record, exec.tty);
    replace(&mut env, &exec.env);
    process.set_env(Some(env));
    let working_dir = if exec.working_dir.is_empty() { &record.config.working_dir } else { &exec.working_dir };
    process.set_cwd(directory(working_dir));
    process.set_oom_score_adj(Some(request.oom_score_adj));
    if let Some((rows, columns)) = size {
        process.set_console_size(BoxBuilder::default().height(rows).width(columns).build().ok());
    }
    process
}

fn base(request: &Request, names: &[&str]) -> Process {
    let mut process = Process::default();
    process.set_capabilities(Some(capabilities(names)));
    process.set_no_new_privileges(Some(request.security.no_new_privileges));
    process.set_rlimits((!request.rlimits.is_empty()).then(|| rlimits(request)));
    process.set_apparmor_profile(None);
    process.set_selinux_label(None);
    process
}

fn rlimits(request: &Request) -> Vec<PosixRlimit> {
    let one = |r: &crate::request::process::Rlimit| {
        PosixRlimitBuilder::default().typ(r.kind).soft(r.soft).hard(r.hard).build().ok()
    };
    request.rlimits.iter().filter_map(one).collect()
}

/// Never inheritable or ambient (CVE-2022-24769, CVE-2016-8867).
fn capabilities(names: &[&str]) -> LinuxCapabilities {
    let set = security::oci(names);
    let mut capabilities = LinuxCapabilities::default();
    capabilities.set_bounding(Some(set.clone()));
    capabilities.set_effective(Some(set.clone()));
    capabilities.set_permitted(Some(set));
    capabilities.set_inheritable(None);
    capabilities.set_ambient(None);
    capabilities
}

fn directory(text: &str) -> PathBuf {
    PathBuf::from(if text.is_empty() { "/" } else { text })
}

/// Names are resolved inside the root by the runtime, which is told the text; numbers are numbers here already.
fn user(text: &str) -> User {
    let mut user = User::default();
    if text.is_empty() {
        return user;
    }
    user.set_username(Some(text.to_owned()));
    let mut parts = text.splitn(2, ':').map(str::parse::<u32>);
    if let Some(Ok(uid)) = parts.next() {
        user.set_uid(uid);
    }
    if let Some(Ok(gid)) = parts.next() {
        user.set_gid(gid);
    }
    user
}

fn environment(record: &Record, is_terminal: bool) -> Vec<String> {
    let mut env = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={}", super::hostname(record))];
    if is_terminal {
        env.push("TERM=xterm".to_owned());
    }
    replace(&mut env, &record.config.env);
    env
}

/// Later variables win, in the earlier one's place.
fn replace(env: &mut Vec<String>, with: &[String]) {
    let key = |variable: &str| variable.split_once('=').map_or(variable.len(), |(key, _)| key.len());
    for variable in with {
        let name = &variable[..key(variable)];
        let place = env.iter().position(|v| &v[..key(v)] == name);
        match (place, variable.contains('=')) {
            (Some(index), true) => variable.clone_into(&mut env[index]),
            (Some(index), false) => drop(env.remove(index)),
            (None, true) => env.push(variable.clone()),
            (None, false) => {}
        }
    }
}
