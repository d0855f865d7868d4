//! Users, capabilities, seccomp.

use crate::json::Value;
use crate::page::{Row, Section};
use crate::process::status;
use crate::unit::{self, plural};

/// In the order of their bits (capabilities(7)).
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

const SETS: [(&str, &str, &str); 5] = [
    ("CapEff", "effective", "what the kernel checks"),
    ("CapPrm", "permitted", "what it may make effective"),
    ("CapBnd", "bounding", "the most an executed program can get"),
    ("CapInh", "inheritable", "kept over an exec by file capabilities"),
    ("CapAmb", "ambient", "kept over any exec"),
];

pub(crate) fn section() -> Section {
    let mut rows = vec![user_row()];
    let mut maps = Vec::new();
    for (file, label) in [("uid_map", "user map"), ("gid_map", "group map")] {
        let text = unit::read(format!("/proc/self/{file}")).unwrap_or_default();
        let text = squeeze(&text);
        let note = if text == "0 0 4294967295" { "all numbers as on the host" } else { "inside, outside, how many" };
        rows.push(Row::new(label, &text, note));
        maps.push((file, Value::from(text)));
    }
    let mut sets = Vec::new();
    for (key, label, note) in SETS {
        let names = status(key).and_then(|text| u64::from_str_radix(&text, 16).ok()).map(names);
        let shown = names.as_ref().map_or_else(|| "unreadable".to_owned(), |names| capability_count(names.len()));
        rows.push(Row::new(label, shown, note));
        if let Some(names) = names.as_ref().filter(|_| key == "CapEff") {
            rows.extend(names.chunks(7).map(|some| Row::new("", some.join(" "), "")));
        }
        sets.push((label, names.map_or(Value::Null, Value::list)));
    }
    let (seccomp, mode) = seccomp_rows();
    rows.extend(seccomp);
    let json = Value::object([
        ("uid", u64::from(rustix::process::getuid().as_raw()).into()),
        ("gid", u64::from(rustix::process::getgid().as_raw()).into()),
        ("groups", status("Groups").map_or(Value::Null, |text| Value::list(text.split_whitespace()))),
        ("maps", Value::object(maps)),
        ("capabilities", Value::object(sets)),
        ("seccomp", mode),
        ("no_new_privs", status("NoNewPrivs").map(|value| value == "1").into()),
    ]);
    Section { key: "privileges", title: "Privileges", meaning: "what the kernel lets it do", rows, json }
}

fn user_row() -> Row {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let groups = status("Groups").unwrap_or_default();
    let note = if groups.is_empty() { "no further groups".to_owned() } else { format!("further groups {groups}") };
    Row::new("user", format!("uid {uid}, gid {gid}"), note)
}

fn seccomp_rows() -> (Vec<Row>, Value) {
    let mode = status("Seccomp");
    let filters = status("Seccomp_filters").and_then(|text| text.parse::<u64>().ok());
    let (word, note) = match mode.as_deref() {
        Some("0") => ("off", "every system call is allowed"),
        Some("1") => ("strict", "read, write and exit only"),
        Some("2") => ("filter", "each system call is checked by a program"),
        _ => ("unreadable", ""),
    };
    let count = filters.map(|count| format!(", {count} loaded")).unwrap_or_default();
    let no_new = match status("NoNewPrivs").as_deref() {
        Some("1") => "yes",
        Some(_) => "no",
        None => "unreadable",
    };
    let rows = vec![
        Row::new("seccomp", format!("{word}{count}"), note),
        Row::new("no new privileges", no_new, "yes: set-user-ID programs gain nothing"),
    ];
    (rows, Value::object([("mode", Value::from(word)), ("filters", filters.into())]))
}

fn names(bits: u64) -> Vec<String> {
    let name = |bit: usize| CAPABILITIES.get(bit).map_or_else(|| format!("cap_{bit}"), |name| (*name).to_owned());
    (0..64).filter(|bit| bits >> bit & 1 == 1).map(name).collect()
}

fn capability_count(count: usize) -> String {
    let all = unit::read("/proc/sys/kernel/cap_last_cap").and_then(|text| text.parse::<usize>().ok());
    match (count, all) {
        (0, _) => "none".to_owned(),
        (count, Some(last)) => format!("{count} of {}", last + 1),
        (count, None) => plural(count, "capability", "capabilities"),
    }
}

fn squeeze(text: &str) -> String {
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_by_name() {
        let usual = names(0xa804_25fb);
        assert_eq!(usual.len(), 14);
        assert_eq!((usual[0].as_str(), usual[13].as_str()), ("chown", "setfcap"));
        assert_eq!(names(1 << 40), ["checkpoint_restore"]);
        assert_eq!(names(1 << 63), ["cap_63"]);
        assert!(names(0).is_empty());
    }

    #[test]
    fn maps_on_one_line() {
        assert_eq!(squeeze("         0     100000      65536\n  70000 1 2\n"), "0 100000 65536; 70000 1 2");
    }
}
