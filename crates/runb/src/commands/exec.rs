//! `exec`: a process from a file, or the container's own with changes.

use std::path::Path;

use berth_oci::runtime::Process as ProcessSpec;
use serde_json::{Value, json};

use crate::arguments::ExecArguments;
use crate::error::CommandError;
use crate::{console, foreground, paths, streams};

pub(crate) fn exec(root: &Path, arguments: &ExecArguments) -> Result<u8, CommandError> {
    let preserve_fds = streams::preserved(arguments.preserve_fds, 0)?;
    let (container, _) = paths::container(root, &arguments.id)?;
    let process = process(arguments, container.bundle())?;
    let wants_terminal = process.terminal().unwrap_or(false);
    if wants_terminal && arguments.detach && arguments.console_socket.is_none() {
        return Err(CommandError::Usage("a terminal without --console-socket needs the foreground".to_owned()));
    }
    if !wants_terminal && arguments.console_socket.is_some() {
        return Err(CommandError::Usage("--console-socket is given but no terminal is wanted".to_owned()));
    }
    let stdio = if wants_terminal { streams::terminal(None) } else { streams::inherited()? };
    if !arguments.detach {
        foreground::hold_signals()?;
    }
    let mut added = container.exec_preserving(&process, stdio, preserve_fds, &mut Vec::new())?;
    if let Some(socket) = &arguments.console_socket
        && let Some(master) = added.console.take()
    {
        console::send_master(socket, &master)?;
    }
    paths::write_pid(arguments.pid_file.as_deref(), added.pid)?;
    if arguments.detach { Ok(0) } else { foreground::wait(&mut added) }
}

fn process(arguments: &ExecArguments, bundle: &Path) -> Result<ProcessSpec, CommandError> {
    if let Some(path) = &arguments.process {
        return paths::document(path);
    }
    if arguments.args.is_empty() {
        return Err(CommandError::Usage("no program is named; write: runb exec ID PROGRAM [ARGUMENT]...".to_owned()));
    }
    let mut config: Value = paths::document(&bundle.join("config.json"))?;
    let mut process = config["process"].take();
    process["args"] = json!(arguments.args);
    process["terminal"] = json!(arguments.tty);
    if let Some(cwd) = &arguments.cwd {
        process["cwd"] = json!(cwd);
    }
    let mut environment: Vec<Value> = process["env"].as_array().cloned().unwrap_or_default();
    environment.extend(arguments.env.iter().map(|entry| json!(entry)));
    process["env"] = json!(environment);
    if let Some(user) = &arguments.user {
        process["user"] = user_value(user)?;
    }
    if !arguments.additional_gids.is_empty() {
        process["user"]["additionalGids"] = json!(arguments.additional_gids);
    }
    if let Some(label) = &arguments.process_label {
        process["selinuxLabel"] = json!(label);
    }
    if let Some(profile) = &arguments.apparmor {
        process["apparmorProfile"] = json!(profile);
    }
    if arguments.no_new_privs {
        process["noNewPrivileges"] = json!(true);
    }
    add_capabilities(&mut process, &arguments.cap);
    serde_json::from_value(process).map_err(|source| CommandError::Json { path: "the process".to_owned(), source })
}

/// Numbers only, checked as such (CVE-2026-30892): names belong to the engine.
fn user_value(text: &str) -> Result<Value, CommandError> {
    let wrong = || CommandError::Usage(format!("user {text:?} is not UID or UID:GID"));
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, group),
        None => (text, "0"),
    };
    let number = |part: &str| part.parse::<u32>().ok().filter(|id| *id <= i32::MAX.unsigned_abs()).ok_or_else(wrong);
    Ok(json!({"uid": number(user)?, "gid": number(group)?}))
}

fn add_capabilities(process: &mut Value, names: &[String]) {
    if names.is_empty() {
        return;
    }
    for set in ["bounding", "effective", "permitted"] {
        let mut list = process["capabilities"][set].as_array().cloned().unwrap_or_default();
        list.extend(names.iter().map(|name| json!(name)));
        process["capabilities"][set] = json!(list);
    }
}
