//! The real shim binary with real containers, driven over its sockets as the daemon drives it. Needs root.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, also in its fixtures")]

mod support;

use std::io::Write;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};

use berth_shim_client::{AttachOptions, IoUris, ShimClient, TaskState};
use berth_types::{Classify, ErrorClass, ExecId, Signal};
use rustix::process::{PidfdFlags, Signal as RawSignal};
use support::{
    EventServer, Fixture, attach, attach_with, demultiplex, into_async, process, read_all, read_until, run, text,
    until, write,
};

fn exec_io() -> IoUris {
    IoUris { stdout: "attach://".to_owned(), stderr: "attach://".to_owned(), ..IoUris::default() }
}

/// S-153, S-154: Create makes the container up to its waiting init, Start lets it run; the status is kept until Delete.
#[test]
fn s153_s154_create_start_wait_delete() {
    run(async {
        let mut fixture = Fixture::new("life").sh("echo out; echo err >&2; exit 7");
        let log = fixture.log();
        let shim = fixture.start_shim().await;
        assert_eq!(shim.state(None).await.unwrap_err().class(), ErrorClass::NotFound);
        let pid = fixture.create(&shim).await;
        let state = shim.state(None).await.unwrap();
        assert_eq!((state.state, state.pid, state.exit), (TaskState::Created, pid, None));
        assert_eq!(shim.pids().await.unwrap(), [pid]);
        let client = attach(&shim, None, false).await;
        assert_eq!(shim.start_process(None).await.unwrap(), pid);
        let exit = shim.wait(None).await.unwrap();
        assert_eq!(exit.code, 7);
        let state = shim.state(None).await.unwrap();
        assert_eq!((state.state, state.exit), (TaskState::Stopped, Some(exit)));
        assert_eq!(demultiplex(&read_all(client).await).map(|bytes| text(&bytes)), ["out\n", "err\n"]);
        assert_eq!(shim.start_process(None).await.unwrap_err().class(), ErrorClass::FailedPrecondition);
        assert_eq!(shim.kill(None, Signal::KILL, false).await.unwrap_err().class(), ErrorClass::NotFound);
        assert_eq!(fixture.finish(shim).await, 7);
        let logged = std::fs::read_to_string(log).unwrap();
        assert_eq!(logged.lines().count(), 2);
    });
}

/// S-131, S-132: the shim is nobody's child, outlives its client, and keeps the status of a container that ended meanwhile.
#[test]
fn s131_s132_outlives_its_client() {
    run(async {
        let fixture = Fixture::new("outlive").sh("trap 'exit 42' USR1; echo ready; while :; do sleep 0.01; done");
        let shim = fixture.created().await;
        let client = into_async(attach(&shim, None, false).await);
        let pid = shim.start_process(None).await.unwrap();
        read_until(&client, "ready").await;
        drop(shim);
        let status = std::fs::read_to_string(format!("/proc/{}/status", fixture.shim_pid().as_raw_nonzero())).unwrap();
        assert!(!status.contains(&format!("PPid:\t{}\n", std::process::id())), "{status}");
        let init = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        rustix::process::kill_process(init, RawSignal::USR1).unwrap();
        until("init's end", || !std::path::Path::new(&format!("/proc/{pid}")).exists()).await;
        let shim = ShimClient::reconnect(&fixture.bundle()).await.unwrap();
        assert_eq!(shim.wait(None).await.unwrap().code, 42);
        assert_eq!(shim.state(None).await.unwrap().exit.unwrap().code, 42);
        assert_eq!(fixture.finish(shim).await, 42);
    });
}

/// S-160, S-161, S-163: an exec goes the same way to the same shim, and joins the container's namespaces and cgroup.
#[test]
fn s160_s161_s163_exec() {
    run(async {
        let fixture = Fixture::new("exec").sh("sleep 1000");
        let shim = fixture.created().await;
        shim.start_process(None).await.unwrap();
        let id: ExecId = "first".parse().unwrap();
        let script = "for n in mnt pid ipc uts net cgroup; do \
            a=$(readlink /proc/1/ns/$n); b=$(readlink /proc/self/ns/$n); [ $a = $b ] || echo $n $a $b; done; \
            diff /proc/1/cgroup /proc/self/cgroup; echo joined; exit 3";
        shim.exec(&id, process(&["/bin/sh", "-c", script]).to_string().as_bytes(), &exec_io()).await.unwrap();
        let again = shim.exec(&id, process(&["/bin/true"]).to_string().as_bytes(), &exec_io()).await.unwrap_err();
        assert_eq!(again.class(), ErrorClass::AlreadyExists);
        // Between Exec and Start: no output can be missed.
        let client = attach(&shim, Some(&id), false).await;
        let pid = shim.start_process(Some(&id)).await.unwrap();
        assert_ne!(pid, 0);
        assert_eq!(shim.wait(Some(&id)).await.unwrap().code, 3);
        assert_eq!(demultiplex(&read_all(client).await).map(|bytes| text(&bytes)), ["joined\n", ""]);
        assert_eq!(shim.delete(Some(&id)).await.unwrap().code, 3);
        assert_eq!(shim.wait(Some(&id)).await.unwrap_err().class(), ErrorClass::NotFound);
        assert_eq!(shim.delete(None).await.unwrap_err().class(), ErrorClass::FailedPrecondition);
        assert_eq!(shim.shutdown().await.unwrap_err().class(), ErrorClass::FailedPrecondition);
        shim.kill(None, Signal::KILL, false).await.unwrap();
        assert_eq!(shim.wait(None).await.unwrap().code, 137);
        fixture.finish(shim).await;
    });
}

/// Exit codes 127 and 126 of the field can be told from failures of ours, for init and for execs.
#[test]
fn programs_that_cannot_be_executed() {
    run(async {
        for (program, class) in [("/bin/missing", ErrorClass::NotFound), ("/bin/plain", ErrorClass::PermissionDenied)] {
            let mut fixture = Fixture::new("noexec");
            fixture.spec["process"]["args"] = serde_json::json!([program]);
            let shim = fixture.created().await;
            let client = attach(&shim, None, false).await;
            let error = shim.start_process(None).await.unwrap_err();
            assert!(error.is_exec_failure(), "{error}");
            assert!(error.to_string().starts_with("exec: ") && error.to_string().contains(program), "{error}");
            assert_eq!(error.class(), class);
            shim.wait(None).await.unwrap();
            assert!(read_all(client).await.is_empty());
            fixture.finish(shim).await;
        }
        let fixture = Fixture::new("noexec2").sh("sleep 1000");
        let shim = fixture.created().await;
        shim.start_process(None).await.unwrap();
        let id: ExecId = "x".parse().unwrap();
        shim.exec(&id, process(&["missing"]).to_string().as_bytes(), &exec_io()).await.unwrap();
        let client = attach(&shim, Some(&id), false).await;
        let error = shim.start_process(Some(&id)).await.unwrap_err();
        assert!(error.is_exec_failure() && error.class() == ErrorClass::NotFound, "{error}");
        assert!(read_all(client).await.is_empty());
        assert_eq!(shim.wait(Some(&id)).await.unwrap().code, 127);
        shim.delete(Some(&id)).await.unwrap();
        shim.kill(None, Signal::KILL, true).await.unwrap();
        shim.wait(None).await.unwrap();
        fixture.finish(shim).await;
    });
}

/// S-134: the process sees exactly the signal, real-time ones included.
#[test]
fn s134_signals() {
    run(async {
        let fixture = Fixture::new("signals")
            .sh("trap 'echo usr1' USR1; trap 'echo rt' 40; trap 'echo term; exit 5' TERM; echo ready; while :; do sleep 0.01; done");
        let shim = fixture.created().await;
        let client = into_async(attach(&shim, None, false).await);
        shim.start_process(None).await.unwrap();
        read_until(&client, "ready").await;
        for (signal, seen) in [(10, "usr1"), (40, "rt"), (10, "usr1")] {
            shim.kill(None, Signal::new(signal).unwrap(), false).await.unwrap();
            let got = read_until(&client, seen).await;
            assert!(!got.contains("term"), "{got}");
        }
        shim.kill(None, Signal::TERM, false).await.unwrap();
        read_until(&client, "term").await;
        assert_eq!(shim.wait(None).await.unwrap().code, 5);
        fixture.finish(shim).await;
    });
}

/// S-133: through a real container, 64 MiB each way, logged at the same time.
#[test]
fn s133_a_container_gets_and_gives_every_byte() {
    const MIB: usize = 64;
    run(async {
        let mut fixture = Fixture::new("bytes").sh("exec cat");
        let log = fixture.log();
        fixture.io.stdin = "attach://?once=1".to_owned();
        fixture.io.stdout.push_str("?max-size=4000000&max-file=2");
        fixture.io.stderr.clone_from(&fixture.io.stdout);
        let shim = fixture.created().await;
        let client = attach(&shim, None, true).await;
        shim.start_process(None).await.unwrap();
        // Lines of text, as logs are; arbitrary bytes are proven beside the I/O modules.
        let block: Vec<u8> =
            (0..1u32 << 16).flat_map(|n| format!("{:015x}\n", n.wrapping_mul(2_654_435_761)).into_bytes()).collect();
        let mut writer = client.try_clone().unwrap();
        let sent = block.clone();
        let sender = std::thread::spawn(move || {
            for _ in 0..MIB {
                writer.write_all(&sent).unwrap();
            }
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let receiver = std::thread::spawn(move || {
            let mut all = Vec::new();
            std::io::Read::read_to_end(&mut &client, &mut all).unwrap();
            all
        });
        assert_eq!(shim.wait(None).await.unwrap().code, 0);
        sender.join().unwrap();
        let [stdout, _] = demultiplex(&receiver.join().unwrap());
        assert_eq!(stdout.len(), MIB << 20);
        assert!(stdout.chunks(block.len()).all(|piece| piece == block));
        fixture.finish(shim).await;
        assert!(log.exists() && log.with_extension("log.1").exists());
    });
}

/// A terminal: its size, its echo, input, and detaching without ending the container.
#[test]
fn terminal_resize_and_detach() {
    run(async {
        let fixture = Fixture::new("tty").sh("stty size; read a; stty size; echo got $a; read b; exit 9").terminal();
        let shim = fixture.created().await;
        shim.resize_pty(None, 24, 80).await.unwrap();
        let options =
            AttachOptions { stdin: true, stdout: true, detach_keys: vec![16, 17], ..AttachOptions::default() };
        let client = into_async(attach_with(&shim, None, &options).await);
        shim.start_process(None).await.unwrap();
        read_until(&client, "24 80").await;
        shim.resize_pty(None, 50, 132).await.unwrap();
        write(&client, b"hello\n").await;
        let seen = read_until(&client, "got hello").await;
        assert!(seen.contains("50 132"), "{seen}");
        write(&client, b"\x10\x11").await;
        let rest = read_all(client.into_std().unwrap()).await;
        assert!(rest.is_empty() || text(&rest).trim().is_empty(), "{rest:?}");
        assert_eq!(shim.state(None).await.unwrap().state, TaskState::Running);
        let next = into_async(attach_with(&shim, None, &options).await);
        write(&next, b"bye\n").await;
        assert_eq!(shim.wait(None).await.unwrap().code, 9);
        fixture.finish(shim).await;
    });
}

#[test]
fn pause_and_resume() {
    run(async {
        let fixture = Fixture::new("pause").sh("while :; do echo tick; sleep 0.01; done");
        let shim = fixture.created().await;
        assert_eq!(shim.pause().await.unwrap_err().class(), ErrorClass::FailedPrecondition);
        shim.start_process(None).await.unwrap();
        shim.pause().await.unwrap();
        assert_eq!(shim.state(None).await.unwrap().state, TaskState::Paused);
        assert_eq!(shim.pause().await.unwrap_err().class(), ErrorClass::FailedPrecondition);
        shim.resume().await.unwrap();
        assert_eq!(shim.state(None).await.unwrap().state, TaskState::Running);
        let client = into_async(attach(&shim, None, false).await);
        read_until(&client, "tick").await;
        shim.kill(None, Signal::KILL, false).await.unwrap();
        assert_eq!(shim.wait(None).await.unwrap().code, 137);
        fixture.finish(shim).await;
    });
}

/// Children of an init that shares the host's pid namespace do not outlive it.
#[test]
fn a_shared_pid_namespace_is_emptied_at_the_end() {
    run(async {
        let mut fixture = Fixture::new("hostpid").sh("sleep 1000 & sleep 1000 & echo ready; read x </dev/null; exit 4");
        let namespaces = fixture.spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|ns| ns["type"] != "pid");
        let shim = fixture.created().await;
        let client = attach(&shim, None, false).await;
        shim.start_process(None).await.unwrap();
        assert_eq!(shim.wait(None).await.unwrap().code, 4);
        assert_eq!(demultiplex(&read_all(client).await)[0], b"ready\n");
        assert_eq!(shim.pids().await.unwrap(), Vec::<u32>::new());
        fixture.finish(shim).await;
    });
}

/// A shim that is killed leaves its container running; `delete` cleans up after it.
#[test]
fn delete_cleans_up_after_a_killed_shim() {
    run(async {
        let fixture = Fixture::new("dead").sh("sleep 1000");
        let shim = fixture.created().await;
        let pid = shim.start_process(None).await.unwrap();
        let waiting = shim.clone();
        let pidfd = rustix::process::pidfd_open(fixture.shim_pid(), PidfdFlags::empty()).unwrap();
        rustix::process::pidfd_send_signal(&pidfd, RawSignal::KILL).unwrap();
        assert_eq!(waiting.wait(None).await.unwrap_err().class(), ErrorClass::Unavailable);
        assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
        let exit = ShimClient::delete_dead(&fixture.options()).await.unwrap();
        assert_eq!(exit.code, 137);
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "{state}");
        fixture.assert_ended(&pidfd);
    });
}

/// As shims do: only Shutdown (or SIGKILL) ends it. What it starts does not inherit that.
#[test]
fn survives_signals_that_end_other_processes() {
    run(async {
        let mut fixture = Fixture::new("survive");
        fixture.spec["process"]["args"] =
            serde_json::json!(["/bin/grep", "-E", "Sig(Ign|Cgt|Blk)", "/proc/self/status"]);
        let shim = fixture.created().await;
        let pidfd = rustix::process::pidfd_open(fixture.shim_pid(), PidfdFlags::empty()).unwrap();
        for signal in [RawSignal::TERM, RawSignal::INT, RawSignal::HUP, RawSignal::QUIT, RawSignal::PIPE] {
            rustix::process::pidfd_send_signal(&pidfd, signal).unwrap();
        }
        let client = attach(&shim, None, false).await;
        shim.start_process(None).await.unwrap();
        assert_eq!(shim.wait(None).await.unwrap().code, 0);
        let [stdout, _] = demultiplex(&read_all(client).await);
        let none = "0000000000000000";
        assert_eq!(text(&stdout), format!("SigBlk:\t{none}\nSigIgn:\t{none}\nSigCgt:\t{none}\n"));
        fixture.finish(shim).await;
    });
}

/// CVE-2020-15257 and its kin: private sockets only, and a second shim for the same task is refused.
#[test]
fn sockets_are_private() {
    run(async {
        let fixture = Fixture::new("sockets");
        let shim = fixture.created().await;
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&fixture.path("s")), 0o700);
        assert_eq!(mode(&fixture.bundle().join("io.sock")), 0o600);
        for entry in std::fs::read_dir(fixture.path("s")).unwrap() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600);
        }
        let abstract_names = std::fs::read_to_string("/proc/net/unix").unwrap();
        assert!(!abstract_names.lines().any(|line| line.contains('@') && line.contains(&fixture.id)));
        let second = ShimClient::start(&fixture.options()).await.unwrap_err();
        assert!(second.to_string().contains("already listening"), "{second}");
        shim.kill(None, Signal::KILL, false).await.unwrap();
        shim.wait(None).await.unwrap();
        fixture.finish(shim).await;
    });
}

/// S-014, S-137: layers whose owners containerd's snapshotter has the mount map (2.0 and later), under our own runtime and under another's: the image's
/// files are the user namespace's root's, what is written has its host id in the upper directory.
#[test]
fn s137_layers_mapped_by_the_mount() {
    run(async {
        for (name, binary) in [("mapped-own", None), ("mapped-runc", Some("usr/sbin/runc"))] {
            let script = "test $(stat -c %u:%g /bin/busybox) = 0:0 && touch /made && test $(stat -c %u /made) = 0";
            let mut fixture = Fixture::new(name).sh(script);
            let map = |host: u32| serde_json::json!([{"containerID": 0, "hostID": host, "size": 65536}]);
            let namespaces = fixture.spec["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.push(serde_json::json!({"type": "user"}));
            fixture.spec["linux"]["uidMappings"] = map(100_000);
            fixture.spec["linux"]["gidMappings"] = map(200_000);
            let upper = fixture.path("pair").join("upper");
            std::os::unix::fs::chown(&upper, Some(100_000), Some(200_000)).unwrap();
            std::fs::set_permissions(&upper, PermissionsExt::from_mode(0o755)).unwrap();
            std::fs::write(fixture.bundle().join("config.json"), fixture.spec.to_string()).unwrap();
            let mut rootfs = fixture.rootfs();
            rootfs[0].options.extend(["uidmap=0:100000:65536".to_owned(), "gidmap=0:200000:65536".to_owned()]);
            let options = binary.map(|path| {
                let arguments = Vec::new();
                let choice = berth_proto::choice::RuntimeChoice::Command { binary: support::peer(path), arguments };
                (berth_proto::choice::TYPE_URL.to_owned(), serde_json::to_vec(&choice).unwrap())
            });
            let new = berth_shim_client::CreateTask { rootfs, io: fixture.io.clone(), options, ..Default::default() };
            let shim = fixture.start_shim().await;
            shim.create_task(&fixture.bundle(), &new).await.unwrap();
            shim.start_process(None).await.unwrap();
            assert_eq!(shim.wait(None).await.unwrap().code, 0, "{name}");
            assert_eq!(fixture.finish(shim).await, 0);
            let made = std::fs::metadata(upper.join("made")).unwrap();
            assert_eq!((made.uid(), made.gid()), (100_000, 200_000), "{name}");
        }
    });
}

/// S-138: `no_pivot_root` and `no_new_keyring` reach the runtime that the options name.
#[test]
fn s138_switches_reach_the_runtime() {
    run(async {
        let fixture = Fixture::new("switches").sh("exit 5");
        let (runtime, words) = (fixture.path("runtime"), fixture.path("words"));
        let runc = support::peer("usr/sbin/runc");
        let script = format!("#!/bin/sh\necho \" $* \" >> {}\nexec {} \"$@\"\n", words.display(), runc.display());
        std::fs::write(&runtime, script).unwrap();
        std::fs::set_permissions(&runtime, PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::write(fixture.bundle().join("config.json"), fixture.spec.to_string()).unwrap();
        let name = runtime.to_str().unwrap().as_bytes();
        let options = [&[0x08, 1, 0x10, 1, 0x32, u8::try_from(name.len()).unwrap()], name].concat();
        let options = Some(("containerd.runc.v1.Options".to_owned(), options));
        let (rootfs, io) = (fixture.rootfs(), fixture.io.clone());
        let new = berth_shim_client::CreateTask { rootfs, io, options, ..Default::default() };
        let shim = fixture.start_shim().await;
        shim.create_task(&fixture.bundle(), &new).await.unwrap();
        shim.start_process(None).await.unwrap();
        assert_eq!(shim.wait(None).await.unwrap().code, 5);
        assert_eq!(fixture.finish(shim).await, 5);
        let told = std::fs::read_to_string(&words).unwrap();
        let create = told.lines().find(|line| line.contains(" create ")).unwrap();
        assert!(create.contains(" --no-pivot ") && create.contains(" --no-new-keyring "), "{told}");
    });
}

/// S-138: `shim_cgroup`: the shim moves to the group it is told, which has to be there; the container has its own all the same.
#[test]
fn s138_the_shim_moves_to_the_group_it_is_told() {
    run(async {
        let fixture = Fixture::new("moved").sh("sleep 1000");
        std::fs::write(fixture.bundle().join("config.json"), fixture.spec.to_string()).unwrap();
        let group = "/berth-test/moved-shim";
        let options = [&[0x1a, u8::try_from(group.len()).unwrap()], group.as_bytes()].concat();
        let options = Some(("containerd.runc.v1.Options".to_owned(), options));
        let (rootfs, io) = (fixture.rootfs(), fixture.io.clone());
        let new = berth_shim_client::CreateTask { rootfs, io, options, ..Default::default() };
        let shim = fixture.start_shim().await;
        let missing = shim.create_task(&fixture.bundle(), &new).await.unwrap_err();
        assert_eq!(missing.class(), ErrorClass::NotFound);
        assert!(missing.to_string().contains(group), "{missing}");
        let made = berth_cgroup::Cgroup::create(&berth_cgroup::Layout::detect().unwrap(), group).unwrap();
        let pid = shim.create_task(&fixture.bundle(), &new).await.unwrap();
        let groups_of = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let of_shim = groups_of(fixture.shim_pid().as_raw_nonzero().get().unsigned_abs());
        assert!(of_shim.lines().any(|line| line.ends_with(group)), "{of_shim}");
        assert!(!groups_of(pid).contains(group));
        shim.start_process(None).await.unwrap();
        shim.kill(None, berth_types::Signal::KILL, false).await.unwrap();
        shim.wait(None).await.unwrap();
        assert_eq!(fixture.finish(shim).await, 137);
        made.delete(std::time::Duration::from_secs(10)).unwrap();
    });
}

/// S-132: a task whose deletion fails is still there, and is deleted by another try.
#[test]
fn s132_a_deletion_that_fails_can_be_tried_again() {
    run(async {
        let fixture = Fixture::new("redelete").sh("exit 5");
        let (runtime, refuse) = (fixture.path("runtime"), fixture.path("refuse"));
        let runc = support::peer("usr/sbin/runc");
        let script = format!(
            "#!/bin/sh\nfor word; do test \"$word\" = delete && test -e {} && {{ echo not now >&2; exit 1; }}; done\nexec {} \"$@\"\n",
            refuse.display(),
            runc.display()
        );
        std::fs::write(&runtime, script).unwrap();
        std::fs::set_permissions(&runtime, PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::write(fixture.bundle().join("config.json"), fixture.spec.to_string()).unwrap();
        let choice = berth_proto::choice::RuntimeChoice::Command { binary: runtime, arguments: Vec::new() };
        let options = (berth_proto::choice::TYPE_URL.to_owned(), serde_json::to_vec(&choice).unwrap());
        let (rootfs, io) = (fixture.rootfs(), fixture.io.clone());
        let new = berth_shim_client::CreateTask { rootfs, io, options: Some(options), ..Default::default() };
        let shim = fixture.start_shim().await;
        let pid = shim.create_task(&fixture.bundle(), &new).await.unwrap();
        shim.start_process(None).await.unwrap();
        assert_eq!(shim.wait(None).await.unwrap().code, 5);
        std::fs::write(&refuse, "").unwrap();
        for _ in 0..2 {
            let error = shim.delete(None).await.unwrap_err();
            assert!(error.to_string().contains("not now"), "{error}");
            let state = shim.state(None).await.unwrap();
            assert_eq!((state.state, state.pid), (TaskState::Stopped, pid));
            assert_eq!(shim.shutdown().await.unwrap_err().class(), ErrorClass::FailedPrecondition);
        }
        std::fs::remove_file(&refuse).unwrap();
        assert_eq!(fixture.finish(shim).await, 5);
    });
}

/// A create that fails is undone and says which step, object and errno; the shim can be ended.
#[test]
fn a_failed_create_leaves_nothing() {
    run(async {
        let mut fixture = Fixture::new("badcreate");
        fixture.spec["mounts"].as_array_mut().unwrap().push(
            serde_json::json!({"destination": "/mnt", "type": "bind", "source": "/does/not/exist", "options": ["bind"]}),
        );
        let shim = fixture.start_shim().await;
        let error = fixture.try_create(&shim).await.unwrap_err();
        assert!(error.to_string().contains("/does/not/exist"), "{error}");
        assert!(!error.is_exec_failure());
        assert_eq!(shim.state(None).await.unwrap_err().class(), ErrorClass::NotFound);
        assert_eq!(fixture.cgroups(), Vec::<std::path::PathBuf>::new());
        let pidfd = rustix::process::pidfd_open(fixture.shim_pid(), PidfdFlags::empty()).unwrap();
        shim.shutdown().await.unwrap();
        fixture.assert_ended(&pidfd);
    });
}

/// S-150: the spans of all parties in the shim, when asked for.
#[test]
fn s150_trace() {
    run(async {
        let mut fixture = Fixture::new("trace");
        fixture.spec["annotations"] = serde_json::json!({"dev.berth.trace": "true"});
        let shim = fixture.created().await;
        shim.start_process(None).await.unwrap();
        shim.wait(None).await.unwrap();
        let trace = std::fs::read(fixture.bundle().join("trace.json")).unwrap();
        let spans: Vec<berth_types::Span> = serde_json::from_slice(&trace).unwrap();
        let own: Vec<&str> =
            spans.iter().filter(|span| span.party == berth_types::Party::Shim).map(|span| span.name.as_str()).collect();
        assert_eq!(own, ["task.create", "task.start"]);
        assert!(spans.iter().any(|span| span.party == berth_types::Party::Runtime));
        fixture.finish(shim).await;
    });
}

/// Shim v2: create < start < exit < delete and exec-added < exec-started < exit, each once, to the engine's event service.
#[test]
fn events_come_in_order() {
    run(async {
        let mut fixture = Fixture::new("events").sh("sleep 1000");
        // Under another name it is started as other engines' shims are: with the bootstrap message, and all events.
        let renamed = fixture.path("shim");
        let sockets = fixture.path("s");
        let script =
            format!("#!/bin/sh\nBERTH_SOCKET_DIR={} exec {} \"$@\"\n", sockets.display(), fixture.binary.display());
        std::fs::write(&renamed, script).unwrap();
        std::fs::set_permissions(&renamed, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        fixture.binary = renamed;
        let mut events = EventServer::start(&fixture.events_address).await;
        let shim = fixture.created().await;
        shim.start_process(None).await.unwrap();
        let id: ExecId = "x".parse().unwrap();
        shim.exec(&id, process(&["/bin/true"]).to_string().as_bytes(), &exec_io()).await.unwrap();
        shim.start_process(Some(&id)).await.unwrap();
        shim.wait(Some(&id)).await.unwrap();
        shim.delete(Some(&id)).await.unwrap();
        shim.pause().await.unwrap();
        shim.resume().await.unwrap();
        shim.kill(None, Signal::KILL, false).await.unwrap();
        shim.wait(None).await.unwrap();
        fixture.finish(shim).await;
        let expected =
            ["create", "start", "exec-added", "exec-started", "exit", "delete", "paused", "resumed", "exit", "delete"];
        for topic in expected {
            assert_eq!(events.next().await, ("default".to_owned(), format!("/tasks/{topic}")));
        }
    });
}

/// S-058: a kill for lack of memory is reported, to our own daemon too, which gets no other event.
#[test]
fn out_of_memory_is_reported() {
    run(async {
        let mut fixture = Fixture::new("oom").sh("x=a; while :; do x=$x$x; done");
        fixture.spec["linux"]["resources"] = serde_json::json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}});
        let mut events = EventServer::start(&fixture.events_address).await;
        let shim = fixture.created().await;
        shim.start_process(None).await.unwrap();
        assert_eq!(shim.wait(None).await.unwrap().code, 137);
        assert_eq!(events.next().await, ("default".to_owned(), "/tasks/oom".to_owned()));
        fixture.finish(shim).await;
    });
}

/// What an idle shim costs, over `BERTH_SHIM_COUNT` of them: run it with the static build.
#[test]
#[ignore = "measures; give the static binary by BERTH_SHIM"]
fn idle_memory() {
    let binary = std::env::var_os("BERTH_SHIM").map(std::path::PathBuf::from).unwrap();
    let count = std::env::var_os("BERTH_SHIM_COUNT").map_or(20, |text| text.to_str().unwrap().parse().unwrap());
    run(async {
        let mut fixtures = Vec::new();
        for number in 0..count {
            let mut fixture = Fixture::new(&format!("idle{number}")).sh("sleep 1000");
            fixture.log();
            fixture.binary = std::path::PathBuf::from(format!("/proc/self/fd/{}", support::sealed_copy(&binary)));
            let shim = fixture.created().await;
            shim.start_process(None).await.unwrap();
            fixtures.push((fixture, shim));
        }
        let mut sums = std::collections::BTreeMap::new();
        for (fixture, _) in &fixtures {
            let path = format!("/proc/{}/smaps_rollup", fixture.shim_pid().as_raw_nonzero());
            for line in std::fs::read_to_string(path).unwrap().lines() {
                let words: Vec<&str> = line.split_whitespace().collect();
                if let [name, kib, "kB"] = words[..] {
                    *sums.entry(name.to_owned()).or_insert(0) += kib.parse::<u64>().unwrap();
                }
            }
        }
        for name in ["Rss:", "Pss:", "Pss_Anon:", "Private_Dirty:", "Private_Clean:"] {
            println!("{name} {} KiB each", sums[name] / count);
        }
        for (fixture, shim) in fixtures {
            shim.kill(None, Signal::KILL, false).await.unwrap();
            shim.wait(None).await.unwrap();
            fixture.finish(shim).await;
        }
    });
}
