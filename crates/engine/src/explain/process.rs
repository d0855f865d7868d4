//! The first process: user, capabilities, seccomp, no_new_privs, LSM label, OOM score, limits, id maps.

use berth_types::capability;

use super::{ExplainLine, Subject};
use crate::request::security::{ProfileSource, SeccompMode};

const SECTION: &str = "process";

pub(super) fn lines(subject: &Subject<'_>) -> Vec<ExplainLine> {
    let Some(status) = subject.proc_text("status") else { return Vec::new() };
    let proof = subject.proc_path("status");
    let mut lines = vec![user(subject, &status)];
    lines.push(capabilities(subject, &status, "CapBnd:", "capabilities, at most"));
    lines.push(capabilities(subject, &status, "CapEff:", "capabilities, now"));
    lines.push(seccomp(subject, &status));
    lines.push(no_new_privileges(subject, &status));
    for line in &mut lines {
        line.section = SECTION;
        line.proof.clone_from(&proof);
    }
    lines.extend(label(subject));
    lines.push(oom_score(subject));
    lines.extend(id_map(subject));
    lines.extend(limits(subject));
    lines
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// A program may change its user itself, so a difference is no drift.
fn user(subject: &Subject<'_>, status: &str) -> ExplainLine {
    let asked = subject.record.config.user.clone();
    let first = |name| field(status, name).and_then(|ids| ids.split_whitespace().next()).unwrap_or("?").to_owned();
    ExplainLine {
        object: "user".to_owned(),
        reason: if asked.is_empty() { "default: root" } else { "flag --user, or the image" }.to_owned(),
        asked: Some(if asked.is_empty() { "root".to_owned() } else { asked }),
        in_force: Some(format!("uid {} gid {}, by the host's numbers", first("Uid:"), first("Gid:"))),
        ..ExplainLine::default()
    }
}

fn capabilities(subject: &Subject<'_>, status: &str, name: &str, object: &str) -> ExplainLine {
    let asked: Vec<&str> = subject.request.security.capabilities.clone();
    let mask = field(status, name).and_then(|hex| u64::from_str_radix(hex, 16).ok());
    let actual = mask.map(names);
    let extra: Vec<&str> = actual.iter().flatten().copied().filter(|name| !asked.contains(name)).collect();
    let host = &subject.record.host;
    let reason = if host.privileged {
        "flag --privileged".to_owned()
    } else {
        let flags = [("--cap-add", &host.cap_add), ("--cap-drop", &host.cap_drop)];
        let changes =
            flags.iter().filter(|(_, list)| !list.is_empty()).map(|(flag, list)| format!("{flag} {}", list.join(",")));
        std::iter::once("default".to_owned()).chain(changes).collect::<Vec<_>>().join(", ")
    };
    ExplainLine {
        object: object.to_owned(),
        asked: Some(shown(&asked)),
        in_force: actual.map(|actual| shown(&actual)),
        reason,
        drift: (!extra.is_empty()).then(|| format!("more than was asked: {}", extra.join(" "))),
        ..ExplainLine::default()
    }
}

fn names(mask: u64) -> Vec<&'static str> {
    capability::NAMES.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1).map(|(_, name)| *name).collect()
}

fn shown(names: &[&str]) -> String {
    let mut names = names.to_vec();
    names.sort_unstable();
    match names.len() {
        0 => "none".to_owned(),
        count if count == capability::NAMES.len() => format!("all {count}"),
        count => format!("{count}: {}", names.join(" ")),
    }
}

fn seccomp(subject: &Subject<'_>, status: &str) -> ExplainLine {
    let (asked, reason) = match &subject.request.security.seccomp {
        SeccompMode::Default => ("filter", "default profile"),
        SeccompMode::Unconfined if subject.record.host.privileged => ("none", "flag --privileged"),
        SeccompMode::Unconfined => ("none", "flag --security-opt seccomp=unconfined"),
        SeccompMode::Profile(ProfileSource::Json(_) | ProfileSource::File(_)) => {
            ("filter", "flag --security-opt seccomp=PROFILE")
        }
    };
    let mode = field(status, "Seccomp:");
    let filters = field(status, "Seccomp_filters:").map_or_else(String::new, |count| format!(" ({count})"));
    let actual = mode.map(|mode| match mode {
        "0" => "none".to_owned(),
        "1" => "strict".to_owned(),
        _ => format!("filter{filters}"),
    });
    ExplainLine {
        object: "seccomp".to_owned(),
        drift: (asked == "filter" && mode == Some("0")).then(|| "it runs without a filter".to_owned()),
        asked: Some(asked.to_owned()),
        in_force: actual,
        reason: reason.to_owned(),
        ..ExplainLine::default()
    }
}

fn no_new_privileges(subject: &Subject<'_>, status: &str) -> ExplainLine {
    let asked = subject.request.security.no_new_privileges;
    let actual = field(status, "NoNewPrivs:");
    let yes = |is_set: bool| if is_set { "yes" } else { "no" }.to_owned();
    ExplainLine {
        object: "no new privileges".to_owned(),
        asked: Some(yes(asked)),
        in_force: actual.map(|flag| yes(flag == "1")),
        reason: if asked { "flag --security-opt no-new-privileges" } else { "default" }.to_owned(),
        drift: (asked && actual == Some("0")).then(|| "it may gain privileges".to_owned()),
        ..ExplainLine::default()
    }
}

/// Only where the host has a security module that gives labels.
fn label(subject: &Subject<'_>) -> Option<ExplainLine> {
    let label = subject.proc_text("attr/current")?;
    Some(ExplainLine {
        section: SECTION,
        object: "label".to_owned(),
        in_force: Some(label.trim_end_matches(['\0', '\n']).to_owned()),
        reason: "the host's security module".to_owned(),
        proof: subject.proc_path("attr/current"),
        ..ExplainLine::default()
    })
}

fn oom_score(subject: &Subject<'_>) -> ExplainLine {
    let asked = subject.request.oom_score_adj.to_string();
    let actual = subject.proc_text("oom_score_adj").map(|text| text.trim().to_owned());
    let is_right = actual.as_ref().is_none_or(|actual| *actual == asked);
    ExplainLine {
        section: SECTION,
        object: "oom_score_adj".to_owned(),
        drift: (!is_right).then(|| "changed by hand, or by the program".to_owned()),
        reason: if subject.record.host.oom_score_adj.is_some() { "flag --oom-score-adj" } else { "default" }.to_owned(),
        asked: Some(asked),
        in_force: actual,
        proof: subject.proc_path("oom_score_adj"),
    }
}

fn id_map(subject: &Subject<'_>) -> Option<ExplainLine> {
    let maps = subject.spec.linux().as_ref()?.uid_mappings().clone().unwrap_or_default();
    if maps.is_empty() {
        return None;
    }
    let asked: Vec<String> =
        maps.iter().map(|map| format!("{} {} {}", map.container_id(), map.host_id(), map.size())).collect();
    let text = subject.proc_text("uid_map")?;
    let actual: Vec<String> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    Some(ExplainLine {
        section: SECTION,
        object: "uid_map".to_owned(),
        reason: format!("flag --userns {}", subject.record.host.userns_mode),
        drift: (asked != actual).then(|| "another map than was planned".to_owned()),
        asked: Some(asked.join(", ")),
        in_force: Some(actual.join(", ")),
        proof: subject.proc_path("uid_map"),
    })
}

/// `ulimit` names of what was asked, by their line in `/proc/<pid>/limits`.
const LIMIT_LINES: [(&str, &str); 15] = [
    ("core", "Max core file size"),
    ("cpu", "Max cpu time"),
    ("data", "Max data size"),
    ("fsize", "Max file size"),
    ("locks", "Max file locks"),
    ("memlock", "Max locked memory"),
    ("msgqueue", "Max msgqueue size"),
    ("nice", "Max nice priority"),
    ("nofile", "Max open files"),
    ("nproc", "Max processes"),
    ("rss", "Max resident set"),
    ("rtprio", "Max realtime priority"),
    ("rttime", "Max realtime timeout"),
    ("sigpending", "Max pending signals"),
    ("stack", "Max stack size"),
];

fn limits(subject: &Subject<'_>) -> Vec<ExplainLine> {
    let Some(text) = subject.proc_text("limits") else { return Vec::new() };
    let asked = &subject.record.host.ulimits;
    let line = |limit: &crate::config::Ulimit| {
        let title = LIMIT_LINES.iter().find(|(name, _)| *name == limit.name)?.1;
        let actual = text.lines().find_map(|line| line.strip_prefix(title))?;
        let mut words = actual.split_whitespace();
        let actual = format!("{}:{}", words.next()?, words.next()?);
        let shown = |value: i64| if value < 0 { "unlimited".to_owned() } else { value.to_string() };
        let wanted = format!("{}:{}", shown(limit.soft), shown(limit.hard));
        Some(ExplainLine {
            section: SECTION,
            object: format!("limit {}", limit.name),
            drift: (wanted != actual).then(|| "changed by hand, or by the program".to_owned()),
            asked: Some(wanted),
            in_force: Some(actual),
            reason: "flag --ulimit".to_owned(),
            proof: subject.proc_path("limits"),
        })
    };
    asked.iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_and_fields() {
        assert_eq!(shown(&names(0xa804_25fb)).split(':').next(), Some("14"));
        assert_eq!(shown(&names(0)), "none");
        assert_eq!(shown(&names((1 << 41) - 1)), "all 41");
        assert_eq!(field("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n", "Seccomp:"), Some("2"));
    }
}
