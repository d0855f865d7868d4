//! The kernel: its version, the calls that are tried, what is read from its own lists.

use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, OpenTreeFlags};
use rustix::process::PidfdFlags;

use super::{Check, line, number};

const AREA: &str = "kernel";
/// `mount_setattr`, without which no root file system is mounted safely.
const FLOOR: (u32, u32) = (5, 12);
/// Seconds since 1970 in 2024: a clock before it fails every certificate.
const SANE_CLOCK: i64 = 1_704_067_200;

pub(super) fn checks() -> Vec<Check> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let version = version(&release);
    let mut checks = vec![
        Check::when(
            version >= FLOOR,
            Check::bad,
            AREA,
            "version",
            release,
            "Linux 5.12 or newer is needed: it has mount_setattr",
        ),
        capabilities(&std::fs::read_to_string("/proc/self/status").unwrap_or_default()),
    ];
    checks.extend(calls());
    checks.push(since(
        version,
        (5, 7),
        "clone3 into a cgroup",
        "processes join their cgroup after the clone, a little slower",
    ));
    checks.push(since(version, (5, 14), "cgroup.kill", "killing freezes and signals instead, which is slower"));
    checks.push(since(
        version,
        (5, 19),
        "overlay on idmapped layers",
        "--userns auto and map cannot show layers with shifted owners",
    ));
    checks.push(since(
        version,
        (6, 5),
        "overlay lowerdir+",
        "an image may have fewer layers: all their paths must fit into one page",
    ));
    checks.push(erofs(version, &std::fs::read_to_string("/proc/filesystems").unwrap_or_default()));
    checks.extend(overlay());
    checks.extend(namespaces());
    checks.push(seccomp(&line("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default()));
    checks.extend(network());
    checks.push(security_modules(&line("/sys/kernel/security/lsm").unwrap_or_default()));
    checks.push(randomness());
    checks
}

/// Major and minor.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(['.', '-', '+']).map_while(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn since(version: (u32, u32), needed: (u32, u32), name: &'static str, advice: &str) -> Check {
    let found = if version >= needed { "yes" } else { "no" };
    Check::when(
        version >= needed,
        Check::warn,
        AREA,
        name,
        found,
        &format!("{advice}; Linux {}.{} has it", needed.0, needed.1),
    )
}

/// What the daemon must be allowed.
fn capabilities(status: &str) -> Check {
    const NEEDED: [(u32, &str); 8] = [
        (21, "SYS_ADMIN"),
        (12, "NET_ADMIN"),
        (7, "SETUID"),
        (6, "SETGID"),
        (8, "SETPCAP"),
        (27, "MKNOD"),
        (24, "SYS_RESOURCE"),
        (1, "DAC_OVERRIDE"),
    ];
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let missing: Vec<&str> = NEEDED.iter().filter(|(bit, _)| mask >> bit & 1 == 0).map(|(_, name)| *name).collect();
    if missing.is_empty() {
        return Check::good(AREA, "privileges", "all that the daemon needs");
    }
    let found = format!("without {}", missing.join(" "));
    if missing == ["SYS_RESOURCE"] {
        return Check::warn(
            AREA,
            "privileges",
            found,
            "limits above the daemon's own (--ulimit, --oom-score-adj below its own) fail: give it CAP_SYS_RESOURCE",
        );
    }
    Check::warn(
        AREA,
        "privileges",
        found,
        "this is what you have, not the daemon: run doctor as root to see what it can do",
    )
}

/// Calls that are tried; nothing is changed by them.
fn calls() -> Vec<Check> {
    let openat2 =
        rustix::fs::openat2(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT).map(drop);
    let tree = rustix::mount::open_tree(CWD, "/", OpenTreeFlags::OPEN_TREE_CLOEXEC).map(drop);
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map(drop);
    let pidfd = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).map(drop);
    vec![
        call("openat2", openat2, "paths below a container's root cannot be resolved safely"),
        call("open_tree", tree, "mounts of a container cannot be prepared outside of the host's table"),
        call("fsopen", context, "root file systems cannot be mounted detached"),
        call("pidfd_open", pidfd, "processes cannot be named without a race"),
    ]
}

/// A refusal for lack of rights says that the call is there.
fn call(name: &'static str, tried: Result<(), Errno>, consequence: &str) -> Check {
    match tried {
        Ok(()) => Check::good(AREA, name, "yes"),
        Err(Errno::PERM | Errno::ACCESS) => Check::good(AREA, name, "yes (not for this user)"),
        Err(errno) => Check::bad(
            AREA,
            name,
            format!("no: {errno}"),
            format!("{consequence}; a seccomp filter around this process, or an old kernel, refuses the call"),
        ),
    }
}

fn has_filesystem(list: &str, name: &str) -> bool {
    list.lines().any(|line| line.split_whitespace().last() == Some(name)) || module_exists(name)
}

/// A module that is loaded when it is needed.
fn module_exists(name: &str) -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let index = std::fs::read_to_string(format!("/lib/modules/{release}/modules.dep")).unwrap_or_default();
    index.lines().any(|line| line.split(':').next().is_some_and(|path| path.contains(&format!("/{name}.ko"))))
}

fn erofs(version: (u32, u32), filesystems: &str) -> Check {
    let has = has_filesystem(filesystems, "erofs") && version >= (6, 12);
    let found = if has { "yes" } else { "no" };
    Check::when(
        has,
        Check::warn,
        AREA,
        "erofs from a file",
        found,
        "layers are kept as directories; Linux 6.12 with erofs could mount them as files",
    )
}

fn overlay() -> Vec<Check> {
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let has = has_filesystem(&filesystems, "overlay");
    let mut checks = vec![Check::when(
        has,
        Check::bad,
        AREA,
        "overlay",
        if has { "yes" } else { "no" },
        "containers have no root file system: modprobe overlay, or build it in",
    )];
    let on = |name: &str| line(&format!("/sys/module/overlay/parameters/{name}")).is_some_and(|value| value == "Y");
    if Path::new("/sys/module/overlay/parameters").exists() {
        let set: Vec<&str> =
            ["metacopy", "redirect_dir", "index", "xino_auto"].into_iter().filter(|name| on(name)).collect();
        let found = if set.is_empty() { "none".to_owned() } else { set.join(", ") };
        // With either of them a layer's files may be stubs that only this mount understands.
        let is_safe = !set.contains(&"metacopy");
        checks.push(Check::when(
            is_safe,
            Check::warn,
            AREA,
            "overlay options on by default",
            found,
            "commit and diff may see stubs: echo N > /sys/module/overlay/parameters/metacopy",
        ));
    }
    checks
}

fn namespaces() -> Vec<Check> {
    const KINDS: [&str; 8] = ["mnt", "pid", "net", "ipc", "uts", "user", "cgroup", "time"];
    let missing: Vec<&str> =
        KINDS.into_iter().filter(|kind| !Path::new(&format!("/proc/self/ns/{kind}")).exists()).collect();
    let needed = |kind: &&&str| !matches!(**kind, "user" | "time" | "cgroup");
    let mut checks = vec![match missing.iter().filter(needed).count() {
        0 if missing.is_empty() => Check::good(AREA, "namespaces", "all eight"),
        0 => Check::warn(
            AREA,
            "namespaces",
            format!("without {}", missing.join(", ")),
            "flags for these fail; build the kernel with CONFIG_USER_NS, CONFIG_TIME_NS",
        ),
        _ => Check::bad(
            AREA,
            "namespaces",
            format!("without {}", missing.join(", ")),
            "containers cannot be isolated: build the kernel with CONFIG_NAMESPACES and all below it",
        ),
    }];
    let zero: Vec<&str> =
        KINDS.into_iter().filter(|kind| number(&format!("/proc/sys/user/max_{kind}_namespaces")) == Some(0)).collect();
    if !zero.is_empty() {
        checks.push(Check::bad(
            AREA,
            "namespaces allowed",
            format!("none of {}", zero.join(", ")),
            "raise user.max_*_namespaces with sysctl",
        ));
    }
    checks
}

fn seccomp(actions: &str) -> Check {
    let has = actions.split_whitespace().any(|action| action == "errno");
    let found = if has { actions.to_owned() } else { "no".to_owned() };
    Check::when(
        has,
        Check::bad,
        AREA,
        "seccomp",
        found,
        "containers run only with --security-opt seccomp=unconfined: build the kernel with CONFIG_SECCOMP_FILTER",
    )
}

fn network() -> Vec<Check> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netlink, socket_with};
    let netfilter =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER));
    // Built in, it is in neither place, but its symbols are in the kernel.
    let is_built_in = || std::fs::read_to_string("/proc/kallsyms").is_ok_and(|text| text.contains(" nft_do_chain"));
    let has_tables = Path::new("/sys/module/nf_tables").exists() || module_exists("nf_tables") || is_built_in();
    let has_nft = netfilter.is_ok() && has_tables;
    let forwarding = line("/proc/sys/net/ipv4/ip_forward").unwrap_or_default();
    let bridge_calls = line("/proc/sys/net/bridge/bridge-nf-call-iptables");
    let mut checks = vec![
        Check::when(
            has_nft,
            Check::bad,
            AREA,
            "nftables",
            if has_nft { "yes" } else { "no" },
            "no bridge network and no published ports; use --network host or none, or load nf_tables",
        ),
        Check::good(
            AREA,
            "ip_forward",
            if forwarding == "1" { "on" } else { "off; the daemon switches it on with its bridge" },
        ),
    ];
    if bridge_calls.as_deref() == Some("1") {
        checks.push(Check::warn(AREA, "bridged traffic", "goes through iptables", "a FORWARD policy of DROP there (Docker sets one) stops traffic between containers: sysctl net.bridge.bridge-nf-call-iptables=0"));
    }
    checks
}

fn security_modules(list: &str) -> Check {
    Check::good(AREA, "security modules", if list.is_empty() { "none are listed" } else { list })
}

fn randomness() -> Check {
    let mut bytes = [0_u8; 1];
    let is_ready = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::NONBLOCK).is_ok();
    let now = berth_types::Timestamp::now().unix_seconds();
    if !is_ready {
        return Check::bad(
            AREA,
            "randomness",
            "not ready",
            "names and keys wait for it: give the machine a hardware source, or virtio-rng",
        );
    }
    Check::when(
        now > SANE_CLOCK,
        Check::warn,
        AREA,
        "randomness and clock",
        if now > SANE_CLOCK { "ready, set" } else { "ready, the clock is years behind" },
        "certificates and time stamps are wrong: set the clock",
    )
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(version("6.18.44-cloud+"), (6, 18));
        assert_eq!(version("5.12"), (5, 12));
        assert_eq!(version("nonsense"), (0, 0));
        assert_eq!(since((5, 6), (5, 7), "x", "slower").state, State::Warn);
    }

    #[test]
    fn privileges() {
        let of = |mask: u64| capabilities(&format!("CapInh:\t0\nCapEff:\t{mask:016x}\n"));
        assert_eq!(of(u64::MAX).state, State::Good);
        assert_eq!(of(0).state, State::Warn);
        assert_eq!(of(!(1 << 24)).found, "without SYS_RESOURCE");
    }

    #[test]
    fn answers_of_calls() {
        assert_eq!(call("x", Err(Errno::NOSYS), "no").state, State::Bad);
        assert_eq!(call("x", Err(Errno::PERM), "no").state, State::Good);
        assert_eq!(seccomp("kill_process errno allow").state, State::Good);
        assert_eq!(seccomp("").state, State::Bad);
        assert!(has_filesystem("nodev\toverlay\n\text4\n", "overlay") && has_filesystem("\text4\n", "ext4"));
    }
}
