//! `list`, `ps`, `events`.

use std::path::Path;
use std::process::Command;

use berth_runtime::{Container, StateDir, Status};
use berth_types::{Timestamp, timestamp::parse_duration};
use serde_json::{Value, json};

use super::print;
use crate::arguments::{EventsArguments, ListArguments, OutputFormat, PsArguments};
use crate::error::CommandError;
use crate::paths;

pub(crate) fn created_text(seconds: u64) -> String {
    let nanoseconds = i64::try_from(seconds).ok().and_then(|seconds| seconds.checked_mul(1_000_000_000));
    nanoseconds.map_or_else(|| Timestamp::NEVER_TEXT.to_owned(), |nanoseconds| Timestamp(nanoseconds).to_string())
}

pub(crate) fn list(root: &Path, arguments: &ListArguments) -> Result<(), CommandError> {
    let mut entries = Vec::new();
    for id in StateDir::list(root)? {
        // One that vanishes meanwhile, or is half-made, does not keep the others from being shown.
        let Ok((container, created)) = paths::container(root, id.as_str()) else { continue };
        let mut entry = serde_json::to_value(container.state())
            .map_err(|source| CommandError::Json { path: "a state".to_owned(), source })?;
        entry["created"] = json!(created_text(created));
        entry["owner"] = json!("root");
        entries.push(entry);
    }
    let text = |entry: &Value, key: &str| match &entry[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if arguments.quiet {
        entries.iter().for_each(|entry| print(&text(entry, "id")));
    } else if arguments.format == OutputFormat::Json {
        print(&Value::Array(entries).to_string());
    } else {
        print(&format!("{:<20} {:<8} {:<10} {:<40} CREATED", "ID", "PID", "STATUS", "BUNDLE"));
        for entry in &entries {
            let columns = ["id", "pid", "status", "bundle", "created"].map(|key| text(entry, key));
            let [id, pid, status, bundle, created] = columns;
            print(&format!("{id:<20} {pid:<8} {status:<10} {bundle:<40} {created}"));
        }
    }
    Ok(())
}

pub(crate) fn processes(root: &Path, arguments: &PsArguments) -> Result<(), CommandError> {
    let (container, _) = paths::container(root, &arguments.id)?;
    let pids = container.pids()?;
    if arguments.format == OutputFormat::Json {
        print(&json!(pids).to_string());
        return Ok(());
    }
    let default = ["-ef".to_owned()];
    let options = if arguments.options.is_empty() { default.as_slice() } else { &arguments.options };
    let output = Command::new("ps").args(options).output().map_err(paths::file("run", Path::new("ps")))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split_whitespace().position(|name| name == "PID");
    let column = column.ok_or_else(|| CommandError::Usage("the output of ps has no column PID".to_owned()))?;
    print(header);
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|text| text.parse().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            print(line);
        }
    }
    Ok(())
}

pub(crate) fn events(root: &Path, arguments: &EventsArguments) -> Result<(), CommandError> {
    let (container, _) = paths::container(root, &arguments.id)?;
    let interval = parse_duration(&arguments.interval).filter(|interval| !interval.is_zero());
    let interval = interval.ok_or_else(|| CommandError::Usage("--interval is not a duration such as 5s".to_owned()))?;
    loop {
        if container.status() == Status::Stopped {
            return Err(CommandError::Usage(format!("container {} is stopped", arguments.id)));
        }
        print(&stats(&container, &arguments.id)?.to_string());
        if arguments.stats {
            return Ok(());
        }
        // The end of the container ends the waiting, too.
        use std::os::fd::AsFd;
        let mut fds =
            [rustix::event::PollFd::from_borrowed_fd(container.init.pidfd.as_fd(), rustix::event::PollFlags::IN)];
        let timeout = rustix::event::Timespec::try_from(interval)
            .map_err(|_| CommandError::Usage("--interval is too long".to_owned()))?;
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(source) => return Err(CommandError::Kernel { what: "wait", source }),
        }
    }
}

fn stats(container: &Container, id: &str) -> Result<Value, CommandError> {
    let stats = container.stats()?;
    Ok(json!({"type": "stats", "id": id, "data": {
        "cpu": {
            "usage": {"total": stats.cpu.total_ns, "percpu": stats.cpu.percpu_ns, "kernel": stats.cpu.system_ns,
                "user": stats.cpu.user_ns},
            "throttling": {"periods": stats.cpu.periods, "throttledPeriods": stats.cpu.throttled_periods,
                "throttledTime": stats.cpu.throttled_ns},
        },
        "memory": {
            "usage": {"limit": stats.memory.limit.unwrap_or(u64::MAX), "usage": stats.memory.usage,
                "max": stats.memory.max_usage, "failcnt": stats.memory.failcnt},
            "raw": stats.memory.stat,
        },
        "pids": {"current": stats.pids.current, "limit": stats.pids.limit.unwrap_or(0)},
    }}))
}
