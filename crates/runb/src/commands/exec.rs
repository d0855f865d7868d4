//! `exec`: a process from a file, or the container's own with changes.

use std::path::Path;

use berth_oci::runtime::Process as ProcessSpec;
use berth_runtime::{ExecTuning, Status};
use serde_json::{Value, json};

use crate::arguments::ExecArguments;
use crate::error::CommandError;
use crate::foreground::Signals;
use crate::log::Log;
use crate::socket::Receivers;
use crate::{paths, seal, streams};

pub(crate) fn exec(root: &Path, arguments: &ExecArguments, log: &Log) -> Result<u8, CommandError> {
    let preserve_fds = streams::preserved(arguments.preserve_fds, 0)?;
    let container = paths::container(root, &arguments.id)?;
    let refused = |text: &str| Err(CommandError::State(text.to_owned()));
    match container.status() {
        Status::Stopped => return refused("cannot exec in a stopped container"),
        Status::Paused if !arguments.ignore_paused => {
            return refused("cannot exec in a paused container (use --ignore-paused to override)");
        }
        _ => {}
    }
    let maps = std::fs::read_to_string(format!("/proc/{}/uid_map", container.init.pid));
    seal::enter_only_sealed(maps.ok().as_deref(), log)?;
    let process = process(arguments, container.bundle(), log)?;
    let terminal = process.terminal().unwrap_or(false);
    streams::check_terminal(terminal, arguments.detach, arguments.console_socket.is_some())?;
    let receivers = Receivers::connect(arguments.console_socket.as_deref(), arguments.pidfd_socket.as_deref())?;
    let stdio = if terminal {
        streams::terminal(process.console_size().as_ref(), !arguments.detach)
    } else {
        streams::inherited()?
    };
    let tuning = ExecTuning {
        preserve_fds,
        even_paused: arguments.ignore_paused,
        sub_cgroups: sub_cgroups(&arguments.cgroups).map_err(CommandError::Usage)?,
        ..ExecTuning::default()
    };
    let signals = if arguments.detach { None } else { Some(Signals::hold()?) };
    let mut spans = Vec::new();
    let joined = container.exec_reporting(&process, stdio, &tuning, &mut spans);
    log.steps(&spans);
    let (mut added, warnings) = joined?;
    warnings.iter().for_each(|warning| log.warn(warning));
    let told = receivers.serve(&mut added).and_then(|()| paths::write_pid(arguments.pid_file.as_deref(), added.pid));
    if let Err(error) = told {
        // Nobody would know of it.
        let _gone = berth_sys::shim_process::pidfd_send_signal(std::os::fd::AsFd::as_fd(&added.pidfd), 9);
        return Err(error);
    }
    signals.map_or(Ok(0), |signals| signals.wait(&mut added))
}

/// `[CONTROLLER[,CONTROLLER]:]PATH`; without a controller it is of the v2 hierarchy, and the only one.
fn sub_cgroups(given: &[String]) -> Result<Vec<(String, String)>, String> {
    let mut found: Vec<(String, String)> = Vec::new();
    for text in given {
        let Some((controllers, path)) = text.split_once(':') else {
            if given.len() > 1 {
                return Err(format!("invalid --cgroup argument: {text} (missing <controller>: prefix)"));
            }
            return Ok(vec![(String::new(), text.clone())]);
        };
        for controller in controllers.split(',') {
            if controller.is_empty() {
                return Err(format!("invalid --cgroup argument: {text} (empty <controller> prefix)"));
            }
            if found.iter().any(|(known, _)| known == controller) {
                let twice = format!("controller {controller} specified multiple times");
                return Err(format!("invalid --cgroup argument(s): {twice}"));
            }
            found.push((controller.to_owned(), path.to_owned()));
        }
    }
    Ok(found)
}

fn process(arguments: &ExecArguments, bundle: &Path, log: &Log) -> Result<ProcessSpec, CommandError> {
    if let Some(path) = &arguments.process {
        let mut document: Value = paths::document(path)?;
        // The container may be older than its bundle, which then has nothing to add.
        let container = paths::document::<Value>(&bundle.join("config.json")).unwrap_or_default();
        inherit(&mut document, &container["process"]);
        let json = |source| CommandError::Json { path: path.display().to_string(), source };
        let parsed = berth_oci::document::process(document.to_string().as_bytes()).map_err(json)?;
        parsed.warnings.iter().for_each(|warning| log.warn(warning));
        return Ok(parsed.document);
    }
    if arguments.program.is_empty() {
        return Err(CommandError::Usage("exec args cannot be empty".to_owned()));
    }
    let mut config: Value = paths::document(&bundle.join("config.json"))?;
    let mut process = config["process"].take();
    change(&mut process, arguments).map_err(CommandError::Usage)?;
    // As text, like a document that is given: one reader for both.
    serde_json::from_str(&process.to_string())
        .map_err(|source| CommandError::Json { path: "the process".to_owned(), source })
}

/// What a process document does not mention is the container's own, as in runc: what it may do, never more than that.
fn inherit(process: &mut Value, of_container: &Value) {
    let Some(process) = process.as_object_mut() else { return };
    for key in ["capabilities", "noNewPrivileges", "apparmorProfile", "selinuxLabel", "rlimits"] {
        let is_missing = process.get(key).is_none_or(Value::is_null);
        if let Some(own) = of_container.get(key).filter(|own| is_missing && !own.is_null()) {
            process.insert(key.to_owned(), own.clone());
        }
    }
}

fn change(process: &mut Value, arguments: &ExecArguments) -> Result<(), String> {
    process["args"] = json!(arguments.program);
    process["terminal"] = json!(arguments.tty);
    if let Some(cwd) = &arguments.cwd {
        process["cwd"] = json!(cwd);
    }
    extend(process, "/env", arguments.environment.iter().map(|entry| json!(entry)));
    if let Some(user) = &arguments.user {
        change_user(&mut process["user"], user)?;
    }
    let groups: Vec<Value> =
        arguments.additional_gids.iter().map(|gid| id(gid).map(Value::from)).collect::<Result<_, _>>()?;
    if !groups.is_empty() {
        extend(&mut process["user"], "/additionalGids", groups.into_iter());
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
    add_capabilities(process, &arguments.capabilities);
    Ok(())
}

/// Appends to a list that may be missing or null.
fn extend(object: &mut Value, pointer: &str, more: impl Iterator<Item = Value>) {
    let mut list = object.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    list.extend(more);
    object[pointer.trim_start_matches('/')] = json!(list);
}

/// Numbers only, checked as such (CVE-2026-30892): names belong to the engine. A group that is not named stays the container's.
fn change_user(user: &mut Value, text: &str) -> Result<(), String> {
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (text, None),
    };
    user["uid"] = json!(id(uid).map_err(|_| format!("user {text:?} is not UID or UID:GID"))?);
    if let Some(gid) = gid {
        user["gid"] = json!(id(gid).map_err(|_| format!("user {text:?} is not UID or UID:GID"))?);
    }
    if let Some(user) = user.as_object_mut() {
        user.remove("username");
    }
    Ok(())
}

fn id(text: &str) -> Result<u32, String> {
    let number = text.parse::<u32>().ok().filter(|id| *id <= i32::MAX.unsigned_abs());
    number.ok_or_else(|| format!("{text:?} is not a user or group number"))
}

/// Ambient only where the container's process has inheritable ones: without them it would have no effect.
fn add_capabilities(process: &mut Value, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let has_inheritable = process["capabilities"]["inheritable"].is_array();
    for set in ["bounding", "effective", "permitted", "ambient"] {
        if set != "ambient" || has_inheritable {
            extend(&mut process["capabilities"], &format!("/{set}"), names.iter().map(|name| json!(name)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_what_they_say() {
        let changed = |text: &str| {
            let mut user = json!({"uid": 7, "gid": 8, "username": "web"});
            change_user(&mut user, text).map(|()| user)
        };
        assert_eq!(changed("1").unwrap(), json!({"uid": 1, "gid": 8}));
        assert_eq!(changed("1:2").unwrap(), json!({"uid": 1, "gid": 2}));
        for text in ["", "-1", "root", "1:", "1:web", "4294967296", "2147483648", "1:2:3", "0x1"] {
            assert!(changed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_process_document_inherits_what_it_leaves_out() {
        let container = json!({"capabilities": {"bounding": ["CAP_KILL"]}, "noNewPrivileges": true, "args": ["sh"]});
        let mut process = json!({"args": ["true"], "capabilities": null, "rlimits": []});
        inherit(&mut process, &container);
        let expected = json!({"args": ["true"], "capabilities": {"bounding": ["CAP_KILL"]}, "noNewPrivileges": true, "rlimits": []});
        assert_eq!(process, expected);
        let mut given = json!({"capabilities": {}, "noNewPrivileges": false});
        inherit(&mut given, &container);
        assert_eq!(given, json!({"capabilities": {}, "noNewPrivileges": false}));
    }

    #[test]
    fn sub_groups_as_runc_writes_them() {
        let parsed = |words: &[&str]| sub_cgroups(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(parsed(&["/a"]).unwrap(), [pair("", "/a")]);
        assert_eq!(
            parsed(&["cpu,memory:a", "pids:b"]).unwrap(),
            [pair("cpu", "a"), pair("memory", "a"), pair("pids", "b")]
        );
        assert!(parsed(&["a", "b"]).is_err() && parsed(&[":a"]).is_err() && parsed(&["cpu:a", "cpu:b"]).is_err());
    }

    #[test]
    fn capabilities_are_added() {
        let mut process = json!({"capabilities": {"bounding": ["CAP_KILL"]}});
        add_capabilities(&mut process, &["CAP_CHOWN".to_owned()]);
        assert_eq!(process["capabilities"]["bounding"], json!(["CAP_KILL", "CAP_CHOWN"]));
        assert_eq!(process["capabilities"]["effective"], json!(["CAP_CHOWN"]));
        assert!(process["capabilities"]["ambient"].is_null());
    }
}
