//! `top`: the container's processes as `ps` would show them, read from the host's `/proc`. Nothing is executed, neither on the host nor
//! in the container (CVE-2022-1227).

use std::collections::HashMap;

use berth_types::Timestamp;

use crate::api::Top;
use crate::engine::Engine;
use crate::error::{EngineError, Result};

/// Longest command line that is shown.
const COMMAND_BYTES_MAX: usize = 4096;
/// Of the host's passwd.
const PASSWD_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    User,
    Uid,
    Pid,
    Ppid,
    C,
    Stime,
    Start,
    Elapsed,
    Tty,
    Time,
    Cmd,
    Comm,
    CpuPercent,
    MemoryPercent,
    Vsz,
    Rss,
    State,
    Threads,
    Nice,
}

/// What a `ps` argument asks for.
fn columns(ps_args: &str) -> Result<Vec<(Column, &'static str)>> {
    use Column as C;
    let full = vec![
        (C::User, "UID"),
        (C::Pid, "PID"),
        (C::Ppid, "PPID"),
        (C::C, "C"),
        (C::Stime, "STIME"),
        (C::Tty, "TTY"),
        (C::Time, "TIME"),
        (C::Cmd, "CMD"),
    ];
    let bsd = vec![
        (C::User, "USER"),
        (C::Pid, "PID"),
        (C::CpuPercent, "%CPU"),
        (C::MemoryPercent, "%MEM"),
        (C::Vsz, "VSZ"),
        (C::Rss, "RSS"),
        (C::Tty, "TTY"),
        (C::State, "STAT"),
        (C::Start, "START"),
        (C::Time, "TIME"),
        (C::Cmd, "COMMAND"),
    ];
    let mut words = ps_args.split_whitespace();
    let mut chosen = None;
    while let Some(word) = words.next() {
        let bare = word.trim_start_matches('-');
        match bare {
            "ef" | "f" | "A" | "e" | "" => chosen = chosen.or_else(|| Some(full.clone())),
            "aux" | "auxw" | "auxww" | "u" => chosen = Some(bsd.clone()),
            "o" | "eo" | "ao" => {
                let list = words.next().ok_or_else(|| not_supported(ps_args))?;
                chosen = Some(named_columns(list, ps_args)?);
            }
            other => match other.strip_prefix("eo").or_else(|| other.strip_prefix('o')) {
                Some(list) if !list.is_empty() => chosen = Some(named_columns(list, ps_args)?),
                _ => return Err(not_supported(ps_args)),
            },
        }
    }
    Ok(chosen.unwrap_or(full))
}

fn named_columns(list: &str, ps_args: &str) -> Result<Vec<(Column, &'static str)>> {
    use Column as C;
    let one = |name: &str| {
        Ok(match name {
            "user" | "euser" | "uname" => (C::User, "USER"),
            "uid" | "euid" => (C::Uid, "UID"),
            "pid" => (C::Pid, "PID"),
            "ppid" => (C::Ppid, "PPID"),
            "c" => (C::C, "C"),
            "stime" | "start_time" => (C::Stime, "STIME"),
            "start" => (C::Start, "STARTED"),
            "etime" => (C::Elapsed, "ELAPSED"),
            "tty" | "tt" | "tname" => (C::Tty, "TT"),
            "time" | "cputime" => (C::Time, "TIME"),
            "cmd" | "args" | "command" => (C::Cmd, if name == "cmd" { "CMD" } else { "COMMAND" }),
            "comm" | "ucmd" => (C::Comm, "COMMAND"),
            "pcpu" | "%cpu" => (C::CpuPercent, "%CPU"),
            "pmem" | "%mem" => (C::MemoryPercent, "%MEM"),
            "vsz" | "vsize" => (C::Vsz, "VSZ"),
            "rss" | "rssize" => (C::Rss, "RSS"),
            "stat" | "s" | "state" => (C::State, "STAT"),
            "nlwp" | "thcount" => (C::Threads, "NLWP"),
            "ni" | "nice" => (C::Nice, "NI"),
            _ => return Err(not_supported(ps_args)),
        })
    };
    list.split(',').map(one).collect()
}

fn not_supported(ps_args: &str) -> EngineError {
    let shown: String = ps_args.chars().take(80).collect();
    EngineError::invalid(format!("ps arguments {shown:?} are not supported")).with_hint(
        "use -ef, aux, or -o with user uid pid ppid c stime start etime tty time cmd args comm pcpu pmem vsz rss stat nlwp ni",
    )
}

impl Engine {
    /// # Errors
    /// `FailedPrecondition` when it does not run, `InvalidArgument` for arguments of `ps` that are not known here.
    pub async fn top(&self, container_ref: &str, ps_args: &str) -> Result<Top> {
        let columns = columns(ps_args)?;
        let pids = match self.foreign(container_ref) {
            Some(foreign) => self.foreign_pids(&foreign).await?,
            None => self.live(&*self.find(container_ref)?).await?.task.pids().await?,
        };
        let memory_bytes = self.inner.facts.memory_bytes;
        self.blocking(move |_| {
            let host = HostView::read(memory_bytes);
            // A process that ends while we read is left out.
            let rows = pids
                .iter()
                .filter_map(|pid| Process::read(*pid))
                .map(|process| columns.iter().map(|(column, _)| process.show(*column, &host)).collect::<Vec<String>>());
            Ok(Top {
                processes: rows.collect(),
                titles: columns.iter().map(|(_, title)| (*title).to_owned()).collect(),
            })
        })
        .await
    }
}

/// What rows are shown against.
struct HostView {
    ticks_per_second: u64,
    booted_at: i64,
    uptime_seconds: u64,
    now: i64,
    memory_bytes: u64,
    users: HashMap<u32, String>,
}

impl HostView {
    fn read(memory_bytes: u64) -> Self {
        let now = Timestamp::now().unix_seconds();
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
        let seconds = uptime.split(['.', ' ']).next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        Self {
            ticks_per_second: rustix::param::clock_ticks_per_second().max(1),
            booted_at: now - i64::try_from(seconds).unwrap_or(0),
            uptime_seconds: seconds,
            now,
            memory_bytes,
            users: users(),
        }
    }
}

/// Names of the host's users; rows show host ids.
fn users() -> HashMap<u32, String> {
    use std::io::Read as _;
    let mut text = String::new();
    let read =
        std::fs::File::open("/etc/passwd").and_then(|file| file.take(PASSWD_BYTES_MAX).read_to_string(&mut text));
    if read.is_err() {
        return HashMap::new();
    }
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
    };
    text.lines().filter_map(entry).collect()
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Process {
    pid: u32,
    uid: u32,
    comm: String,
    cmd: String,
    state: String,
    ppid: u32,
    tty: i32,
    cpu_ticks: u64,
    nice: i64,
    threads: u64,
    start_ticks: u64,
    vsize_bytes: u64,
    rss_pages: u64,
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        use std::io::Read as _;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut process = Self::parse(&stat)?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        process.uid = uids.split_ascii_whitespace().nth(1)?.parse().ok()?;
        let mut line = Vec::new();
        let limit = u64::try_from(COMMAND_BYTES_MAX).unwrap_or(0);
        std::fs::File::open(format!("/proc/{pid}/cmdline")).ok()?.take(limit).read_to_end(&mut line).ok()?;
        process.cmd = command(&line, &process.comm);
        Some(process)
    }

    /// `pid (comm) state ppid …`; the name may contain anything, so it ends at the last parenthesis.
    fn parse(stat: &str) -> Option<Self> {
        let (head, rest) = stat.rsplit_once(')')?;
        let (pid, comm) = head.split_once('(')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index).and_then(|n| n.parse::<u64>().ok());
        Some(Self {
            pid: pid.trim().parse().ok()?,
            comm: comm.to_owned(),
            state: (*fields.first()?).to_owned(),
            ppid: fields.get(1)?.parse().ok()?,
            tty: fields.get(4)?.parse().ok()?,
            cpu_ticks: number(11)?.saturating_add(number(12)?),
            nice: fields.get(16)?.parse().ok()?,
            threads: number(17)?,
            start_ticks: number(19)?,
            vsize_bytes: number(20)?,
            rss_pages: number(21)?,
            ..Self::default()
        })
    }

    fn show(&self, column: Column, host: &HostView) -> String {
        let rss_bytes = self.rss_pages.saturating_mul(u64::try_from(rustix::param::page_size()).unwrap_or(4096));
        let start_seconds = self.start_ticks / host.ticks_per_second;
        let alive_seconds = host.uptime_seconds.saturating_sub(start_seconds);
        let cpu_seconds = self.cpu_ticks / host.ticks_per_second;
        // Tenths of a percent.
        let cpu = self.cpu_ticks.saturating_mul(1000) / host.ticks_per_second / alive_seconds.max(1);
        match column {
            Column::User => host.users.get(&self.uid).cloned().unwrap_or_else(|| self.uid.to_string()),
            Column::Uid => self.uid.to_string(),
            Column::Pid => self.pid.to_string(),
            Column::Ppid => self.ppid.to_string(),
            Column::C => (cpu / 10).min(99).to_string(),
            Column::Stime | Column::Start => {
                clock(host.booted_at.saturating_add(i64::try_from(start_seconds).unwrap_or(0)), host.now)
            }
            Column::Elapsed => elapsed(alive_seconds),
            Column::Tty => tty(self.tty),
            Column::Time => {
                format!("{:02}:{:02}:{:02}", cpu_seconds / 3600, cpu_seconds / 60 % 60, cpu_seconds % 60)
            }
            Column::Cmd => self.cmd.clone(),
            Column::Comm => self.comm.clone(),
            Column::CpuPercent => format!("{}.{}", cpu / 10, cpu % 10),
            Column::MemoryPercent => {
                let share = rss_bytes.saturating_mul(1000) / host.memory_bytes.max(1);
                format!("{}.{}", share / 10, share % 10)
            }
            Column::Vsz => (self.vsize_bytes / 1024).to_string(),
            Column::Rss => (rss_bytes / 1024).to_string(),
            Column::State => self.state.clone(),
            Column::Threads => self.threads.to_string(),
            Column::Nice => self.nice.to_string(),
        }
    }
}

fn command(line: &[u8], comm: &str) -> String {
    let end = line.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if end == 0 {
        return format!("[{comm}]");
    }
    let text = String::from_utf8_lossy(&line[..end]).replace('\0', " ");
    // Nothing a container writes may steer the terminal of the person who looks.
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// `HH:MM` (UTC) today, the day before that.
fn clock(at: i64, now: i64) -> String {
    const DAY: i64 = 86_400;
    if at.div_euclid(DAY) == now.div_euclid(DAY) {
        let seconds = at.rem_euclid(DAY);
        return format!("{:02}:{:02}", seconds / 3600, seconds / 60 % 60);
    }
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = Timestamp(at.saturating_mul(1_000_000_000)).to_string();
    let part = |range: std::ops::Range<usize>| text.get(range).and_then(|n| n.parse::<usize>().ok()).unwrap_or(1);
    let month = MONTHS.get(part(5..7).wrapping_sub(1)).copied().unwrap_or("Jan");
    format!("{month}{:02}", part(8..10))
}

fn elapsed(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes:02}:{:02}", seconds % 60),
        (0, _) => format!("{hours:02}:{minutes:02}:{:02}", seconds % 60),
        _ => format!("{days}-{hours:02}:{minutes:02}:{:02}", seconds % 60),
    }
}

/// The kernel's device number of a terminal, as `ps` names it.
fn tty(number: i32) -> String {
    let number = number.unsigned_abs();
    let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xf_ff00));
    match major {
        136..=143 => format!("pts/{}", minor + (major - 136) * 256),
        4 if minor < 64 => format!("tty{minor}"),
        5 if minor == 1 => "console".to_owned(),
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let titles = |args: &str| columns(args).map(|list| list.into_iter().map(|(_, t)| t).collect::<Vec<_>>());
        assert_eq!(titles("").unwrap(), ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
        assert_eq!(titles("-ef").unwrap().len(), 8);
        assert_eq!(titles("aux").unwrap()[2], "%CPU");
        assert_eq!(titles("-o pid,comm").unwrap(), ["PID", "COMMAND"]);
        assert_eq!(titles("-eo user,args").unwrap(), ["USER", "COMMAND"]);
        for bad in ["-o", "--help", "-o nonsense", "; rm", "-Z"] {
            assert_eq!(titles(bad).unwrap_err().class, berth_types::ErrorClass::InvalidArgument, "{bad}");
        }
    }

    #[test]
    fn stat_with_a_hostile_name() {
        let process =
            Process::parse("42 (a) S (b) R 7 42 42 34817 0 0 0 0 0 0 150 50 0 0 20 0 3 0 1000 8192 2 0").unwrap();
        assert_eq!((process.pid, process.comm.as_str(), process.state.as_str(), process.ppid), (42, "a) S (b", "R", 7));
        assert_eq!((process.cpu_ticks, process.threads, process.start_ticks), (200, 3, 1000));
        assert_eq!(tty(process.tty), "pts/1");
        assert_eq!((tty(0).as_str(), tty(0x0401).as_str()), ("?", "tty1"));
        assert_eq!(command(b"sh\0-c\0\x1b[2J\0", "sh"), "sh -c ?[2J");
        assert_eq!(command(b"", "kthread"), "[kthread]");
        assert!(Process::read(std::process::id()).is_some());
    }

    #[test]
    fn times() {
        assert_eq!(clock(3660, 7000), "01:01");
        assert_eq!(clock(0, 100 * 86_400), "Jan01");
        assert_eq!((elapsed(61).as_str(), elapsed(90_061).as_str()), ("01:01", "1-01:01:01"));
    }
}
