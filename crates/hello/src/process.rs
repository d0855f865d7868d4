//! The process itself: number, names, files, environment.

use crate::json::Value;
use crate::page::{Row, Section};
use crate::unit::{self, plural};

pub(crate) fn section() -> Section {
    let pid = u64::from(std::process::id());
    let uname = rustix::system::uname();
    let hostname = uname.nodename().to_string_lossy().into_owned();
    let domain = uname.domainname().to_string_lossy().into_owned();
    let release = uname.release().to_string_lossy().into_owned();
    let others = visible_processes();
    let descriptors = descriptors();
    let variables = std::env::vars_os().count();
    let directory = std::env::current_dir().map_or_else(|_| "?".to_owned(), |path| path.display().to_string());

    let pid_note = if pid == 1 { "the first process of its PID namespace" } else { "not the first process here" };
    let descriptor_list: Vec<String> =
        descriptors.iter().map(|(number, target)| format!("{number} -> {target}")).collect();
    let rows = vec![
        Row::new("pid", pid.to_string(), pid_note),
        Row::new("sees", plural(others, "process", "processes"), "in /proc, itself included"),
        Row::new("hostname", &hostname, "of its UTS namespace"),
        Row::new("domain", &domain, ""),
        Row::new("kernel", &release, "the machine's own: a container brings none"),
        Row::new("directory", &directory, ""),
        Row::new("environment", plural(variables, "variable", "variables"), ""),
        Row::new("open files", descriptors.len().to_string(), descriptor_list.join(", ")),
    ];
    let json = Value::object([
        ("pid", pid.into()),
        ("visible_processes", others.into()),
        ("hostname", hostname.into()),
        ("domainname", domain.into()),
        ("kernel", release.into()),
        ("cwd", directory.into()),
        ("environment_count", variables.into()),
        (
            "open_fds",
            Value::list(
                descriptors
                    .into_iter()
                    .map(|(number, target)| Value::object([("fd", number.into()), ("target", target.into())])),
            ),
        ),
    ]);
    Section {
        key: "process",
        title: "Process",
        meaning: "one of many on the machine, the only one it knows of",
        rows,
        json,
    }
}

fn visible_processes() -> usize {
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0 };
    let is_number = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    entries.flatten().filter(|entry| is_number(&entry.file_name())).count()
}

/// Open descriptors with what they lead to; the one that reads the directory is not counted.
fn descriptors() -> Vec<(u64, String)> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let numbers: Vec<u64> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok())).collect();
    let mut found: Vec<_> = numbers
        .into_iter()
        .filter_map(|number| {
            let target = std::fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
            Some((number, target.display().to_string()))
        })
        .collect();
    found.sort_unstable();
    found
}

/// A line `Key:\tvalue` of `/proc/self/status`.
pub(crate) fn status(key: &str) -> Option<String> {
    let text = unit::read("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.map(|value| value.trim().to_owned())
}
