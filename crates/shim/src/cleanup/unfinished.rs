//! The cgroup of a container whose shim died while it was making it: there is no record yet, which would cost every start a file. The document
//! says where the group is; it is ours to remove when nobody lives in it, or only what that shim cloned. Such a process has never executed
//! anything, so its command line is its shim's. Whoever else is there was there before (groups can be shared), and keeps it.

use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use berth_cgroup::{Cgroup, CgroupError, Layout};
use berth_oci::annotation;
use berth_oci::runtime::Spec;
use berth_runtime::{CgroupDriver, SystemdInstance};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::{KILL_TIMEOUT, failed};
use crate::ShimError;
use crate::task::{CONFIG_BYTES_MAX, read_bounded};

const CMDLINE_BYTES_MAX: u64 = 64 << 10;
/// For killed processes to leave the group; an init whose shim is dead ends by itself.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(5);

/// `shim_id`: what the shim was started for.
pub(super) fn remove(bundle: &Path, id: &str, shim_id: &str) -> Result<(), ShimError> {
    // A document that cannot be understood was refused before anything was made.
    let Some(path) = group_path(bundle, id) else { return Ok(()) };
    let layout = Layout::detect().map_err(failed("find the cgroup of"))?;
    let group = match Cgroup::open(&layout, &path) {
        Err(CgroupError::NotFound { .. }) => return Ok(()),
        other => other.map_err(failed("open the cgroup of"))?,
    };
    let begun = Instant::now();
    loop {
        let pids = group.pids().map_err(failed("list the processes of"))?;
        if pids.is_empty() {
            return group.delete(KILL_TIMEOUT).map_err(failed("remove the cgroup of"));
        }
        if begun.elapsed() > LEAVE_TIMEOUT {
            crate::log::warn(&format!("cgroup {path} has processes that are not of this task, and stays"));
            return Ok(());
        }
        for pid in pids {
            kill_clone(pid, shim_id);
        }
        let _slept =
            rustix::thread::nanosleep(&rustix::time::Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK.subsec_nanos()) });
    }
}

fn group_path(bundle: &Path, id: &str) -> Option<String> {
    let json = read_bounded(&bundle.join("config.json"), CONFIG_BYTES_MAX).ok()?;
    let spec = berth_oci::document::spec(&json).ok()?.document;
    driver(&spec).path_of(&spec, id).ok()
}

/// The annotation is our engine's; others say it in the options of a Create that is gone, but also by the form of the path.
fn driver(spec: &Spec) -> CgroupDriver {
    let by_annotation =
        spec.annotations().as_ref().and_then(|all| all.get(annotation::CGROUP_DRIVER)).is_some_and(|d| d == "systemd");
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_ref()).and_then(|path| path.to_str());
    let by_form = path.is_some_and(|path| !path.starts_with('/') && path.split(':').count() == 3);
    if by_annotation || by_form { CgroupDriver::Systemd(SystemdInstance::System) } else { CgroupDriver::Cgroupfs }
}

/// By a descriptor that is opened before it is looked at: what is killed is what was looked at.
fn kill_clone(pid: Pid, shim_id: &str) {
    let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return };
    let mut line = Vec::new();
    let read = std::fs::File::open(format!("/proc/{}/cmdline", pid.as_raw_nonzero()))
        .and_then(|file| file.take(CMDLINE_BYTES_MAX).read_to_end(&mut line));
    if read.is_ok() && is_shim_of(&line, shim_id) {
        rustix::process::pidfd_send_signal(&pidfd, Signal::KILL).ok();
    }
}

/// `-id ID` or `-id=ID`, with one dash or two, and the verb.
fn is_shim_of(line: &[u8], shim_id: &str) -> bool {
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).filter(|word| !word.is_empty()).collect();
    let flag = |word: &[u8]| word.strip_prefix(b"-").map(|word| word.strip_prefix(b"-").unwrap_or(word).to_vec());
    let names_it = words.iter().enumerate().any(|(index, word)| match flag(word).as_deref() {
        Some(b"id") => words.get(index + 1) == Some(&shim_id.as_bytes()),
        Some(other) => other.strip_prefix(b"id=") == Some(shim_id.as_bytes()),
        None => false,
    });
    names_it && words.last() == Some(&&b"start"[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_of_the_shim_is_known_by_its_words() {
        let check =
            |line: &str, is_it| assert_eq!(is_shim_of(line.replace(' ', "\0").as_bytes(), "c1"), is_it, "{line}");
        check("/x/shim -namespace n -id c1 -address a start ", true);
        check("/x/shim --namespace=n --id=c1 start", true);
        check("/x/shim -namespace n -id c2 start", false);
        check("/x/shim -namespace c1 -id c2 start", false);
        check("/x/shim -id c1 delete", false);
        check("sleep 1000", false);
        check("", false);
    }

    #[test]
    fn the_group_is_where_the_runtime_makes_it() {
        let dir = tempfile::tempdir().unwrap();
        let check = |json: &str, expected: Option<&str>| {
            std::fs::write(dir.path().join("config.json"), json).unwrap();
            assert_eq!(group_path(dir.path(), "c1").as_deref(), expected, "{json}");
        };
        check(r#"{"ociVersion":"1.0.0","linux":{"cgroupsPath":"/a/c1"}}"#, Some("/a/c1"));
        check(r#"{"ociVersion":"1.0.0","linux":{}}"#, Some("/berth/c1"));
        check(r#"{"ociVersion":"1.0.0","linux":{"cgroupsPath":"a.slice:b:c1"}}"#, Some("a.slice:b:c1"));
        check("{", None);
        std::fs::remove_file(dir.path().join("config.json")).unwrap();
        assert_eq!(group_path(dir.path(), "c1"), None);
    }
}
