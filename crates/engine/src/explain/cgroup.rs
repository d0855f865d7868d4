//! The control group: each file that was written for a limit, and the usual ones that nobody asked to change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use berth_cgroup::{Cgroup, Controller, DeviceRule, Layout, Setting, Value};

use super::{ExplainLine, Subject, limit, read};
use crate::api::Status;

const LIMITS: &str = "cgroup";
const DEVICES: &str = "devices";
/// The engine allows it to every container beside the runtime's own defaults.
const CONSOLE_RULE: &str = "c 5:1 rwm";

/// Directories of the group by controller; the v2 hierarchy has the empty name.
type Paths = BTreeMap<String, PathBuf>;

pub(super) fn lines(subject: &Subject<'_>) -> Vec<ExplainLine> {
    let Some((paths, settings)) = group(subject) else {
        return vec![ExplainLine {
            section: LIMITS,
            object: subject.engine.cgroup_path(subject.record),
            drift: Some("the control group is gone".to_owned()),
            ..ExplainLine::default()
        }];
    };
    let mut lines: Vec<ExplainLine> = Vec::new();
    for setting in settings.iter().filter(|setting| !matches!(setting.value, Value::Devices(_))) {
        lines.extend(setting_line(subject, &paths, setting));
    }
    let known: BTreeSet<String> = lines.iter().map(|line| line.object.clone()).collect();
    for (file, default) in limit::defaults().filter(|(file, _)| !known.contains(*file)) {
        lines.extend(default_line(subject, &paths, file, default));
    }
    lines
}

fn group(subject: &Subject<'_>) -> Option<(Paths, Vec<Setting>)> {
    let layout: &Layout = subject.engine.inner.facts.cgroups.as_ref()?;
    let group = Cgroup::open(layout, &subject.engine.cgroup_path(subject.record)).ok()?;
    let settings = berth_runtime::limit_settings(layout, subject.spec).ok()?;
    Some((group.paths(), settings))
}

fn directory(paths: &Paths, controller: Controller) -> Option<&Path> {
    paths.get(controller.v1_name()).or_else(|| paths.get("")).map(PathBuf::as_path)
}

/// A setting of the plan; where the kernel lacks its file, the one that does the same.
fn setting_line(subject: &Subject<'_>, paths: &Paths, setting: &Setting) -> Option<ExplainLine> {
    let path = directory(paths, setting.controller)?.join(&*setting.file);
    let actual = read(&path.display().to_string());
    if actual.is_none() {
        return match &setting.missing {
            berth_cgroup::Missing::Instead(other) => setting_line(subject, paths, other),
            berth_cgroup::Missing::Skip => None,
            berth_cgroup::Missing::Fail(_) => Some(line(setting, path, None, subject)),
        };
    }
    Some(line(setting, path, actual, subject))
}

fn line(setting: &Setting, path: PathBuf, actual: Option<String>, subject: &Subject<'_>) -> ExplainLine {
    let asked = match &setting.value {
        Value::Text(text) => text.clone(),
        Value::AboveUsage(bytes) => bytes.to_string(),
        Value::Devices(_) => String::new(),
    };
    let drift = match &actual {
        None => Some("the file is gone".to_owned()),
        Some(actual) if limit::agrees(&setting.file, &asked, actual) => None,
        Some(_) => Some("changed by hand, or by another program".to_owned()),
    };
    ExplainLine {
        section: LIMITS,
        object: setting.file.clone().into_owned(),
        reason: limit::flag(setting.limit, &subject.record.host.resources).to_owned(),
        in_force: actual.map(|text| shown(&setting.file, &asked, &text)),
        asked: Some(asked),
        proof: path.display().to_string(),
        drift,
    }
}

/// Of files with a line per device or counter, the lines that matter.
fn shown(file: &str, asked: &str, text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    if file == "memory.oom_control" {
        let value = lines.iter().find_map(|line| line.strip_prefix("oom_kill_disable "));
        return value.unwrap_or_default().to_owned();
    }
    let device = asked.split_whitespace().next().filter(|word| word.contains(':'));
    match device.and_then(|device| lines.iter().find(|line| line.split_whitespace().next() == Some(device))) {
        Some(line) => (*line).to_owned(),
        None => lines.join(", "),
    }
}

fn default_line(subject: &Subject<'_>, paths: &Paths, file: &str, default: &str) -> Option<ExplainLine> {
    let controller = file.split('.').next().unwrap_or_default();
    // A v1 file is below its own hierarchy, a v2 file in the one there is; a hybrid host has both.
    let directory = paths.get(controller).or_else(|| paths.get(""))?;
    let path = directory.join(file);
    let actual = read(&path.display().to_string())?;
    let is_freezer = matches!(file, "freezer.state" | "cgroup.freeze");
    let is_paused = subject.record.state.status == Status::Paused;
    let (asked, reason) = match (is_freezer, is_paused) {
        (true, true) => (Some(if file == "cgroup.freeze" { "1" } else { "FROZEN" }), "paused"),
        (true, false) => (Some(default), "not paused"),
        _ => (None, "the kernel's default"),
    };
    let is_right = limit::agrees(file, asked.unwrap_or(default), &actual);
    Some(ExplainLine {
        section: LIMITS,
        object: file.to_owned(),
        asked: asked.map(str::to_owned),
        in_force: Some(actual.trim().to_owned()),
        reason: reason.to_owned(),
        proof: path.display().to_string(),
        drift: (!is_right).then(|| "nobody asked for it: set by hand, or by another program".to_owned()),
    })
}

/// What the device controller lets through: asked rules against the kernel's list. On v2 the rules are a program that cannot be read back.
pub(super) fn device_lines(subject: &Subject<'_>) -> Vec<ExplainLine> {
    let Some((paths, settings)) = group(subject) else { return Vec::new() };
    let filter = settings.iter().find_map(|setting| match &setting.value {
        Value::Devices(filter) => Some(filter),
        _ => None,
    });
    let Some(filter) = filter else { return Vec::new() };
    let mut asked: Vec<String> = filter.exceptions.iter().map(ToString::to_string).collect();
    if filter.default_allow {
        asked.insert(0, "a *:* rwm".to_owned());
    }
    let mut defaults: Vec<String> = DeviceRule::container_defaults().iter().map(ToString::to_string).collect();
    defaults.push(CONSOLE_RULE.to_owned());
    let reason = |rule: &str| {
        if subject.request.security.privileged {
            "flag --privileged"
        } else if defaults.iter().any(|default| default == rule) {
            "default"
        } else {
            "flag --device or --device-cgroup-rule"
        }
    };
    let directory = paths.get(Controller::Devices.v1_name());
    let proof = directory.map(|directory| directory.join("devices.list").display().to_string());
    let listed = proof.as_deref().and_then(read);
    compare_devices(
        &asked,
        listed.as_deref(),
        &proof.unwrap_or_else(|| "an eBPF program, which cannot be read back".to_owned()),
        reason,
    )
}

fn compare_devices(
    asked: &[String],
    listed: Option<&str>,
    proof: &str,
    reason: impl Fn(&str) -> &'static str,
) -> Vec<ExplainLine> {
    let actual: Vec<&str> = listed.map(|text| text.lines().collect()).unwrap_or_default();
    let mut lines: Vec<ExplainLine> = asked
        .iter()
        .map(|rule| {
            let is_there = actual.contains(&rule.as_str());
            ExplainLine {
                section: DEVICES,
                object: rule.clone(),
                asked: Some("allowed".to_owned()),
                in_force: listed.map(|_| if is_there { "allowed" } else { "denied" }.to_owned()),
                reason: reason(rule).to_owned(),
                proof: proof.to_owned(),
                drift: (listed.is_some() && !is_there).then(|| "the rule was taken away".to_owned()),
            }
        })
        .collect();
    let is_foreign = |rule: &&&str| !asked.iter().any(|own| own == **rule);
    lines.extend(actual.iter().filter(is_foreign).map(|rule| ExplainLine {
        section: DEVICES,
        object: (*rule).to_owned(),
        asked: None,
        in_force: Some("allowed".to_owned()),
        reason: "nobody asked for it".to_owned(),
        proof: proof.to_owned(),
        drift: Some("the rule was added by hand, or by another program".to_owned()),
    }));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_rules() {
        let asked = ["c 1:3 rwm".to_owned(), "c 1:5 rwm".to_owned()];
        let lines = compare_devices(&asked, Some("c 1:3 rwm\nc 1:11 r\n"), "devices.list", |_| "default");
        let drifts: Vec<_> = lines.iter().map(|line| (line.object.as_str(), line.drift.is_some())).collect();
        assert_eq!(drifts, [("c 1:3 rwm", false), ("c 1:5 rwm", true), ("c 1:11 r", true)]);
        let unseen = compare_devices(&asked, None, "a program", |_| "default");
        assert!(unseen.iter().all(|line| line.in_force.is_none() && line.drift.is_none()));
    }

    #[test]
    fn lines_of_devices_are_picked() {
        assert_eq!(shown("io.max", "8:0 rbps=5", "7:0 rbps=1\n8:0 rbps=5 wbps=max\n"), "8:0 rbps=5 wbps=max");
        assert_eq!(shown("memory.oom_control", "1", "oom_kill_disable 1\nunder_oom 0\n"), "1");
        assert_eq!(shown("pids.max", "5", "5\n"), "5");
    }
}
