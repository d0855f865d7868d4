//! Compiled filters in the real kernel. A filter holds for the thread that loads it and what it starts, so each test loads its own
//! in a thread of its own. Needs root (or loads with `no_new_privs`, which these tests set anyway).

use std::process::Command;

use berth_seccomp::{Action, ArgTest, Comparison, Filter, Flags, Rule, default_profile};
use berth_sys::seccomp::{FilterFlags, load_filter, load_filter_with_listener};
use rustix::io::Errno;

/// Runs `body` in a thread that has the filter loaded.
fn with_filter<T: Send + 'static>(filter: &Filter, body: impl FnOnce() -> T + Send + 'static) -> T {
    let program = filter.compile().expect("it compiles").to_bytes();
    let confined = move || {
        rustix::thread::set_no_new_privs(true).expect("prctl");
        load_filter(&program, FilterFlags::default()).expect("the kernel takes it");
        body()
    };
    std::thread::spawn(confined).join().expect("no panic")
}

fn default_filter(capabilities: &[&str]) -> Filter {
    default_profile().resolve(capabilities, (6, 18)).expect("it resolves")
}

fn rule(names: &[&str], action: Action, args: &[ArgTest]) -> Rule {
    Rule { names: names.iter().map(|name| (*name).to_owned()).collect(), action, args: args.to_vec() }
}

fn allow_all_but(rules: Vec<Rule>) -> Filter {
    Filter { default_action: Action::Allow, arches: Vec::new(), rules, flags: Flags::default() }
}

/// The errno of a call by number, made by another program below the filter; 0 when it worked.
fn errno_of(call: &str) -> i32 {
    let script = format!("my $r = syscall({call}); print $r == -1 ? $! + 0 : 0");
    let output = Command::new("perl").args(["-e", &script]).output().expect("perl");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).parse().expect("a number")
}

#[test]
fn a_refused_call_fails_with_the_errno_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made");
    let filter = allow_all_but(vec![rule(&["mkdir", "mkdirat"], Action::Errno(1), &[])]);
    let outcome = with_filter(&filter, move || rustix::fs::mkdir(&path, rustix::fs::Mode::RWXU));
    assert_eq!(outcome, Err(Errno::PERM));
    assert!(!dir.path().join("made").exists());
    // The rest of this process goes on unconfined.
    rustix::fs::mkdir(dir.path().join("made"), rustix::fs::Mode::RWXU).unwrap();
}

#[test]
fn arguments_decide() {
    let five = ArgTest { index: 1, comparison: Comparison::Equal, value: 5 };
    let filter = allow_all_but(vec![rule(&["dup2", "dup3"], Action::Errno(77), &[five])]);
    let errnos = with_filter(&filter, || {
        use std::os::fd::AsRawFd;
        let file = std::fs::File::open("/dev/null").unwrap();
        let number = if cfg!(target_arch = "x86_64") { 33 } else { 24 };
        let from = file.as_raw_fd();
        (errno_of(&format!("{number}, {from}, 5, 0")), errno_of(&format!("{number}, 0, 6, 0")))
    });
    assert_eq!(errnos.0, 77);
    assert_ne!(errnos.1, 77);
}

/// S-053's neighbour: what an ordinary container cannot call, and that it still works as a whole.
#[test]
fn the_default_profile_confines_and_lets_work() {
    let (refused, worked) = with_filter(&default_filter(&["CAP_SYS_CHROOT"]), || {
        let mkdir = tempfile::tempdir().is_ok();
        let shell = Command::new("sh").args(["-c", "ls / | wc -l; echo $((1+1)); sleep 0 & wait"]).output().unwrap();
        let unshare = rustix::mount::mount_change("/", rustix::mount::MountPropagationFlags::PRIVATE);
        // io_uring_setup, io_uring_enter, keyctl, userfaultfd, a call newer than all we know, clone3.
        let numbers =
            if cfg!(target_arch = "x86_64") { [425, 426, 250, 323, 600, 435] } else { [425, 426, 219, 282, 600, 435] };
        let errnos = numbers.map(|number| errno_of(&format!("{number}, 0, 0, 0, 0, 0")));
        ((unshare, errnos), mkdir && shell.status.success())
    });
    assert!(worked);
    assert_eq!(refused.0, Err(Errno::PERM));
    assert_eq!(refused.1, [1, 1, 1, 1, 38, 38]);
}

#[test]
fn namespaces_need_cap_sys_admin_in_the_profile() {
    let unshare = if cfg!(target_arch = "x86_64") { 272 } else { 97 };
    // CLONE_NEWUTS, in a child that ends at once.
    let call = format!("{unshare}, 0x04000000");
    let own = call.clone();
    assert_eq!(with_filter(&default_filter(&[]), move || errno_of(&own)), 1);
    assert_eq!(with_filter(&default_filter(&["CAP_SYS_ADMIN"]), move || errno_of(&call)), 0);
}

#[test]
fn a_notifying_filter_gives_a_listener() {
    let filter = allow_all_but(vec![rule(&["swapon"], Action::Notify, &[])]);
    let program = filter.compile().unwrap().to_bytes();
    let flags = std::thread::spawn(move || {
        rustix::thread::set_no_new_privs(true).unwrap();
        let listener = load_filter_with_listener(&program, FilterFlags::default()).unwrap();
        rustix::io::fcntl_getfd(&listener).unwrap()
    });
    assert_eq!(flags.join().unwrap(), rustix::io::FdFlags::CLOEXEC);
}

#[test]
fn the_kernel_takes_every_flag_and_refuses_nonsense() {
    let program = allow_all_but(Vec::new()).compile().unwrap().to_bytes();
    std::thread::spawn(move || {
        rustix::thread::set_no_new_privs(true).unwrap();
        let flags = FilterFlags { log: true, spec_allow: true, ..FilterFlags::default() };
        load_filter(&program, flags).unwrap();
        assert_eq!(load_filter(&[], FilterFlags::default()), Err(Errno::INVAL));
        assert_eq!(load_filter(&[0; 9], FilterFlags::default()), Err(Errno::INVAL));
        // A jump out of the program.
        let out: Vec<u8> = [5_u16.to_ne_bytes().as_slice(), &[0, 0], &9_u32.to_ne_bytes()].concat();
        assert_eq!(load_filter(&out, FilterFlags::default()), Err(Errno::INVAL));
    })
    .join()
    .unwrap();
}
