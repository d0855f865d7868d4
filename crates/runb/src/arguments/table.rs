//! The commands and their flags, as data: the parser and the help pages both read these.

use super::flag::{Flag, list, switch, value};

/// One command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CommandRow {
    pub(crate) name: &'static str,
    pub(crate) words: &'static str,
    pub(crate) about: &'static str,
    pub(crate) flags: &'static [Flag],
}

const fn row(name: &'static str, words: &'static str, about: &'static str, flags: &'static [Flag]) -> CommandRow {
    CommandRow { name, words, about, flags }
}

pub(crate) const GLOBAL: &[Flag] = &[
    switch("debug", "log what is done, too"),
    value("log", "append log lines to this file instead of writing them to stderr"),
    value("log-format", "text (default) or json"),
    value("root", "directory of container states, on a tmpfs; by default /run/runb, for users $XDG_RUNTIME_DIR/runb"),
    value("criu", "the criu program for checkpoint and restore; by default criu of $PATH"),
    switch("systemd-cgroup", "let systemd make the cgroup; cgroupsPath is then \"slice:prefix:name\""),
    value("rootless", "go on without a cgroup that may not be made: true, false or auto (default)"),
    switch("version", "print the version").or('v'),
];

const BUNDLE: Flag = value("bundle", "directory with config.json; the working directory if not given").or('b');
const CONSOLE: Flag = value("console-socket", "Unix socket to which the terminal's master is sent");
const PIDFD: Flag = value("pidfd-socket", "Unix socket to which a pidfd of the process is sent");
const PID_FILE: Flag = value("pid-file", "file for the process id");
const NO_PIVOT: Flag = switch("no-pivot", "chroot instead of pivot_root, for a root file system in a ramdisk");
const NO_KEYRING: Flag = switch("no-new-keyring", "stay in the session keyring of the caller");
const PRESERVE: Flag = value("preserve-fds", "pass this many further descriptors, after those of $LISTEN_FDS");
const DETACH: Flag = switch("detach", "leave the process running in the background").or('d');
const KEEP: Flag = switch("keep", "do not delete the container when it ends");
const NO_SUBREAPER: Flag = switch("no-subreaper", "accepted for compatibility: runb never becomes a subreaper");
const FORMAT: Flag = value("format", "table (default) or json").or('f');
const IMAGE: Flag = value("image-path", "directory of the criu images; ./checkpoint if not given");
const WORK: Flag = value("work-path", "directory of criu's working files and logs");
const TCP: Flag = switch("tcp-established", "allow open TCP connections");
const UNIX: Flag = switch("ext-unix-sk", "allow Unix sockets connected to the outside");
const SHELL_JOB: Flag = switch("shell-job", "allow a terminal from outside");
const LAZY: Flag = switch("lazy-pages", "restore memory on demand with userfaultfd");
const LOCKS: Flag = switch("file-locks", "handle file locks");
const CGROUPS: Flag = value("manage-cgroups-mode", "soft (default), full, strict or ignore");
const EMPTY_NS: Flag = list("empty-ns", "make this namespace, but do not fill it: network");
const DEDUP: Flag = switch("auto-dedup", "deduplicate memory images");

pub(crate) const COMMANDS: &[CommandRow] = &[
    row(
        "checkpoint",
        "<container-id>",
        "save the processes of a running container with criu",
        &[
            IMAGE,
            WORK,
            value("parent-path", "images of the pre-dump before this one, relative to the image directory"),
            switch("leave-running", "leave the container running afterwards"),
            TCP,
            switch("tcp-skip-in-flight", "skip TCP connections that are being made"),
            switch("link-remap", "remap deleted files that are still open"),
            UNIX,
            SHELL_JOB,
            LAZY,
            value("status-fd", "descriptor on which criu writes \\0 when lazy pages are served"),
            value("page-server", "ADDRESS:PORT of a page server"),
            LOCKS,
            switch("pre-dump", "save memory only and leave the container running"),
            CGROUPS,
            EMPTY_NS,
            DEDUP,
        ],
    ),
    row(
        "create",
        "<container-id>",
        "create a container, its program waiting for start",
        &[BUNDLE, CONSOLE, PIDFD, PID_FILE, NO_PIVOT, NO_KEYRING, PRESERVE],
    ),
    row(
        "delete",
        "<container-id>",
        "remove a container that is created or stopped",
        &[switch("force", "kill it first if it runs").or('f')],
    ),
    row(
        "events",
        "<container-id>",
        "print resource use and out-of-memory events as JSON lines",
        &[value("interval", "time between lines, such as 5s (default)"), switch("stats", "once, and end")],
    ),
    row(
        "exec",
        "<container-id> <command> [arguments]  ||  -p process.json <container-id>",
        "run a further program in a running container",
        &[
            CONSOLE,
            PIDFD,
            value("cwd", "working directory in the container"),
            list("env", "NAME=VALUE to set").or('e'),
            switch("tty", "give it a terminal").or('t'),
            value("user", "UID[:GID]").or('u'),
            list("additional-gids", "supplementary group by number").or('g'),
            value("process", "process.json to use instead of the other flags").or('p'),
            DETACH,
            PID_FILE,
            value("process-label", "SELinux label"),
            value("apparmor", "AppArmor profile"),
            switch("no-new-privs", "set no_new_privs"),
            list("cap", "capability to add").or('c'),
            PRESERVE,
            list("cgroup", "existing sub-cgroup to live in: [CONTROLLER[,CONTROLLER]:]PATH"),
            switch("ignore-paused", "join a paused container, too, and wait until it is resumed"),
        ],
    ),
    row("features", "", "print what this runtime can do", &[]),
    row(
        "kill",
        "<container-id> [signal]",
        "send a signal (TERM) to the container's first process",
        &[switch("all", "to every process of the container; one that has ended is no error").or('a')],
    ),
    row("list", "", "list the containers of the root directory", &[FORMAT, switch("quiet", "ids only").or('q')]),
    row("pause", "<container-id>", "freeze all processes of a container", &[]),
    row("ps", "<container-id> [ps options]", "show the processes of a container", &[FORMAT]),
    row(
        "restore",
        "<container-id>",
        "make a container of saved processes with criu",
        &[
            CONSOLE,
            IMAGE,
            WORK,
            TCP,
            UNIX,
            SHELL_JOB,
            LOCKS,
            CGROUPS,
            BUNDLE,
            DETACH,
            PID_FILE,
            KEEP,
            NO_SUBREAPER,
            NO_PIVOT,
            EMPTY_NS,
            DEDUP,
            LAZY,
            value("lsm-profile", "TYPE:NAME of the security profile to restore under"),
            value("lsm-mount-context", "security context of the mounts"),
        ],
    ),
    row("resume", "<container-id>", "let a paused container go on", &[]),
    row(
        "run",
        "<container-id>",
        "create and start a container, and wait for its end unless detached",
        &[BUNDLE, CONSOLE, PIDFD, DETACH, KEEP, PID_FILE, NO_SUBREAPER, NO_PIVOT, NO_KEYRING, PRESERVE],
    ),
    row(
        "spec",
        "",
        "write a config.json to start from",
        &[BUNDLE, switch("rootless", "for a container of an ordinary user")],
    ),
    row("start", "<container-id>", "start the program of a created container", &[]),
    row("state", "<container-id>", "print the state of a container", &[]),
    row(
        "update",
        "<container-id>",
        "change the limits of a container",
        &[
            value(
                "resources",
                "file with the specification's resources as JSON, - for stdin; other flags are then unused",
            )
            .or('r'),
            value("blkio-weight", "10 to 1000"),
            value("cpu-period", "microseconds"),
            value("cpu-quota", "microseconds per period; -1 for unlimited"),
            value("cpu-burst", "microseconds"),
            value("cpu-share", "relative weight"),
            value("cpu-shares", "the same"),
            value("cpu-rt-period", "microseconds"),
            value("cpu-rt-runtime", "microseconds"),
            value("cpu-idle", "0 or 1"),
            value("cpuset-cpus", "processors, such as 0-2,4"),
            value("cpuset-mems", "memory nodes"),
            value("kernel-memory", "refused: the kernel has no such limit any more"),
            value("kernel-memory-tcp", "refused: likewise"),
            value("memory", "bytes, with a suffix k, m, g; -1 for unlimited"),
            value("memory-reservation", "soft limit, likewise"),
            value("memory-swap", "memory and swap together, likewise"),
            value("pids-limit", "most processes and threads"),
            value("l3-cache-schema", "Intel RDT cache allocation"),
            value("mem-bw-schema", "Intel RDT memory bandwidth"),
        ],
    ),
];
