//! From words to [`Arguments`].

use std::path::PathBuf;

use berth_types::timestamp::parse_duration;

use super::flag::Given;
use super::table::{COMMANDS, CommandRow, GLOBAL};
use super::{
    Arguments, CheckpointArguments, Command, CreateArguments, CriuArguments, CriuSwitches, ExecArguments, Global,
    LogFormat, OutputFormat, RestoreArguments, RunArguments, UpdateArguments, help,
};

/// What the words ask for.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// Text for standard output, and that was it.
    Print(String),
    Run(Box<Arguments>),
}

/// `words` is without the program's name.
///
/// # Errors
/// For the user, with where it was written.
pub(crate) fn parse(words: impl IntoIterator<Item = String>) -> Result<Parsed, String> {
    let global = Given::parse(words, GLOBAL, false)?;
    if global.is_on("version") {
        return Ok(Parsed::Print(version()));
    }
    let Some((name, words)) = global.words.split_first().filter(|_| !global.wants_help) else {
        return Ok(Parsed::Print(help::overview()));
    };
    if name == "help" || name == "h" {
        let found = words.first().and_then(|name| row(name));
        return Ok(Parsed::Print(found.map_or_else(help::overview, help::page)));
    }
    let unknown = || format!("no such command: {name} (No help topic for '{name}'); runb --help lists them");
    let row = row(name).ok_or_else(unknown)?;
    let in_command = |problem: String| format!("{name}: {problem}; see runb {name} --help");
    // What follows the id is the program's, or ps(1)'s.
    let interspersed = !matches!(row.name, "exec" | "ps");
    let given = Given::parse(words.iter().cloned(), row.flags, interspersed).map_err(in_command)?;
    if given.wants_help {
        return Ok(Parsed::Print(help::page(row)));
    }
    let global = self::global(&global)?;
    let command = command(row, given).map_err(in_command)?;
    Ok(Parsed::Run(Box::new(Arguments { global, command })))
}

fn row(name: &str) -> Option<&'static CommandRow> {
    COMMANDS.iter().find(|row| row.name == name)
}

/// As tools of the field read it: a line with the version, a line with the specification's.
fn version() -> String {
    format!("runb version {}\nspec: {}\n", env!("CARGO_PKG_VERSION"), berth_runtime::OCI_VERSION)
}

fn global(given: &Given) -> Result<Global, String> {
    let log_format = match given.last("log-format").unwrap_or_default() {
        "" | "text" => LogFormat::Text,
        "json" => LogFormat::Json,
        other => return Err(format!("invalid log-format: {other}")),
    };
    let rootless = match given.last("rootless").unwrap_or_default() {
        "" | "auto" => None,
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        other => return Err(format!("invalid value {other:?} for flag -rootless: true, false or auto")),
    };
    Ok(Global {
        root: path(given, "root"),
        log: path(given, "log"),
        log_format,
        debug: given.is_on("debug"),
        systemd_cgroup: given.is_on("systemd-cgroup"),
        rootless,
        criu: path(given, "criu").unwrap_or_else(|| PathBuf::from("criu")),
    })
}

fn command(row: &CommandRow, mut given: Given) -> Result<Command, String> {
    let words = std::mem::take(&mut given.words);
    let rest = || words.get(1..).unwrap_or_default().to_vec();
    let count = match row.name {
        "features" | "list" | "spec" => 0..=0,
        "exec" | "ps" => 1..=usize::MAX,
        "kill" => 1..=2,
        _ => 1..=1,
    };
    if !count.contains(&words.len()) {
        return Err(format!("expected {}, got {} argument(s)", wanted(row), words.len()));
    }
    let id = words.first().cloned().unwrap_or_default();
    if *count.start() > 0 && id.is_empty() {
        return Err("container id cannot be empty".to_owned());
    }
    Ok(match row.name {
        "checkpoint" => Command::Checkpoint(Box::new(checkpoint(id, &given)?)),
        "create" => Command::Create(create(id, &given)?),
        "delete" => Command::Delete { id, force: given.is_on("force") },
        "events" => Command::Events { id, stats: given.is_on("stats"), interval: interval(&given)? },
        "exec" => Command::Exec(Box::new(exec(id, rest(), &given)?)),
        "features" => Command::Features,
        "kill" => {
            let signal = words.get(1).filter(|signal| !signal.is_empty()).map_or("SIGTERM", String::as_str).to_owned();
            Command::Kill { id, signal, all: given.is_on("all") }
        }
        "list" => Command::List { format: format(&given)?, quiet: given.is_on("quiet") },
        "pause" => Command::Pause { id },
        "ps" => Command::Ps { id, format: format(&given)?, options: rest() },
        "restore" => Command::Restore(Box::new(restore(id, &given)?)),
        "resume" => Command::Resume { id },
        "run" => {
            let (detach, keep) = (given.is_on("detach"), given.is_on("keep"));
            Command::Run(RunArguments { detach, keep, create: create(id, &given)? })
        }
        "spec" => Command::Spec { bundle: path(&given, "bundle"), rootless: given.is_on("rootless") },
        "start" => Command::Start { id },
        "state" => Command::State { id },
        _ => Command::Update(Box::new(UpdateArguments { id, resources: path(&given, "resources"), given })),
    })
}

fn wanted(row: &CommandRow) -> &'static str {
    if row.words.is_empty() { "no arguments" } else { row.words }
}

fn path(given: &Given, long: &str) -> Option<PathBuf> {
    given.last(long).filter(|text| !text.is_empty()).map(PathBuf::from)
}

fn text(given: &Given, long: &str) -> Option<String> {
    given.last(long).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn format(given: &Given) -> Result<OutputFormat, String> {
    match given.last("format").unwrap_or("table") {
        "table" => Ok(OutputFormat::Table),
        "json" => Ok(OutputFormat::Json),
        _ => Err("invalid format option: table or json".to_owned()),
    }
}

fn interval(given: &Given) -> Result<std::time::Duration, String> {
    let interval = parse_duration(given.last("interval").unwrap_or("5s"));
    let interval = interval.ok_or("--interval is not a duration such as 5s")?;
    if interval.is_zero() { Err("duration interval must be greater than 0".to_owned()) } else { Ok(interval) }
}

fn create(id: String, given: &Given) -> Result<CreateArguments, String> {
    Ok(CreateArguments {
        id,
        bundle: path(given, "bundle"),
        console_socket: path(given, "console-socket"),
        pidfd_socket: path(given, "pidfd-socket"),
        pid_file: path(given, "pid-file"),
        no_pivot: given.is_on("no-pivot"),
        no_new_keyring: given.is_on("no-new-keyring"),
        preserve_fds: given.parsed("preserve-fds")?.unwrap_or(0),
    })
}

fn exec(id: String, program: Vec<String>, given: &Given) -> Result<ExecArguments, String> {
    Ok(ExecArguments {
        id,
        program,
        console_socket: path(given, "console-socket"),
        pidfd_socket: path(given, "pidfd-socket"),
        pid_file: path(given, "pid-file"),
        cwd: text(given, "cwd"),
        environment: given.all("env"),
        tty: given.is_on("tty"),
        user: text(given, "user"),
        additional_gids: given.all("additional-gids"),
        process: path(given, "process"),
        detach: given.is_on("detach"),
        process_label: text(given, "process-label"),
        apparmor: text(given, "apparmor"),
        no_new_privs: given.is_on("no-new-privs"),
        capabilities: given.all("cap"),
        preserve_fds: given.parsed("preserve-fds")?.unwrap_or(0),
        cgroups: given.all("cgroup"),
        ignore_paused: given.is_on("ignore-paused"),
    })
}

fn criu(given: &Given) -> CriuArguments {
    CriuArguments {
        image_path: path(given, "image-path"),
        work_path: path(given, "work-path"),
        switches: CriuSwitches {
            tcp_established: given.is_on("tcp-established"),
            tcp_skip_in_flight: given.is_on("tcp-skip-in-flight"),
            link_remap: given.is_on("link-remap"),
            ext_unix_sk: given.is_on("ext-unix-sk"),
            shell_job: given.is_on("shell-job"),
            lazy_pages: given.is_on("lazy-pages"),
            file_locks: given.is_on("file-locks"),
            auto_dedup: given.is_on("auto-dedup"),
        },
        manage_cgroups: text(given, "manage-cgroups-mode"),
        empty_namespaces: given.all("empty-ns"),
    }
}

fn checkpoint(id: String, given: &Given) -> Result<CheckpointArguments, String> {
    Ok(CheckpointArguments {
        id,
        common: criu(given),
        parent_path: path(given, "parent-path"),
        leave_running: given.is_on("leave-running"),
        pre_dump: given.is_on("pre-dump"),
        page_server: text(given, "page-server"),
        status_fd: given.parsed::<i64>("status-fd")?.and_then(|number| u32::try_from(number).ok()),
    })
}

fn restore(id: String, given: &Given) -> Result<RestoreArguments, String> {
    Ok(RestoreArguments {
        create: create(id, given)?,
        common: criu(given),
        detach: given.is_on("detach"),
        keep: given.is_on("keep"),
        lsm_profile: text(given, "lsm-profile"),
        lsm_mount_context: text(given, "lsm-mount-context"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Arguments {
        match parse(text.split(' ').map(str::to_owned)).unwrap() {
            Parsed::Run(arguments) => *arguments,
            Parsed::Print(page) => panic!("{page}"),
        }
    }

    #[test]
    fn globals_come_before_and_flags_behind_the_command() {
        let arguments = run("--root /x --log-format json -systemd-cgroup create -b /b --no-pivot --preserve-fds 2 id");
        let global = arguments.global;
        assert_eq!((global.root, global.log_format), (Some(PathBuf::from("/x")), LogFormat::Json));
        assert!(global.systemd_cgroup && global.rootless.is_none());
        let Command::Create(create) = arguments.command else { panic!("{:?}", arguments.command) };
        assert_eq!((create.id.as_str(), create.preserve_fds, create.no_pivot), ("id", 2, true));
    }

    #[test]
    fn what_follows_the_id_belongs_to_the_program() {
        let Command::Exec(exec) = run("exec -u 1:2 -e A=1 -e B=2 id ls -l --user").command else { panic!() };
        assert_eq!(exec.program, ["ls", "-l", "--user"]);
        assert_eq!((exec.user.as_deref(), exec.environment.len()), (Some("1:2"), 2));
        let Command::Ps { options, format, .. } = run("ps -f json id -e -f x").command else { panic!() };
        assert_eq!((options.len(), format), (3, OutputFormat::Json));
    }

    #[test]
    fn wrong_counts_and_names_are_refused() {
        let refused = |text: &str, part: &str| {
            let problem = parse(text.split(' ').map(str::to_owned)).unwrap_err();
            assert!(problem.contains(part), "{problem}");
        };
        refused("state", "expected <container-id>, got 0");
        refused("state a b", "got 2");
        refused("list a", "expected no arguments");
        refused("frobnicate a", "no such command: frobnicate");
        refused("--log-format xml list", "invalid log-format: xml");
        refused("events --interval 0s a", "must be greater than 0");
        refused("list -f yaml", "invalid format option");
    }

    #[test]
    fn help_names_every_flag() {
        let page = |text: &str| match parse(text.split(' ').map(str::to_owned)).unwrap() {
            Parsed::Print(page) => page,
            Parsed::Run(arguments) => panic!("{arguments:?}"),
        };
        assert!(COMMANDS.iter().all(|row| page("--help").contains(row.name)));
        for row in COMMANDS {
            let page = page(&format!("{} --help", row.name));
            assert!(row.flags.iter().all(|flag| page.contains(&format!("--{}", flag.long))), "{page}");
        }
        assert!(page("-v").starts_with("runb version "));
    }
}
