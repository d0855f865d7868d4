//! Whole command lines against the body they become.

use std::path::Path;

use clap::{Args as _, FromArgMatches as _};
use serde_json::json;

use super::*;
use crate::context::Environment;
use crate::failure::Outcome;

fn request(words: &[&str], is_detached: bool) -> Outcome<CreateRequest> {
    let command =
        ContainerOptions::augment_args(clap::Command::new("run").no_binary_name(true).disable_help_flag(true));
    let matches = command.try_get_matches_from(words).unwrap();
    let options = ContainerOptions::from_arg_matches(&matches).unwrap();
    create_request(&options, is_detached, Path::new("/w"), &Environment::default())
}

fn body(words: &[&str]) -> serde_json::Value {
    request(words, false).unwrap().body
}

#[track_caller]
fn refused(words: &[&str], message: &str) {
    assert_eq!(request(words, false).unwrap_err().message, message);
}

#[test]
fn the_least() {
    assert_eq!(
        body(&["busybox"]),
        json!({
            "Image": "busybox", "Env": [], "Labels": {}, "Tty": false, "OpenStdin": false, "StdinOnce": false,
            "AttachStdin": false, "AttachStdout": true, "AttachStderr": true, "HostConfig": {"NetworkMode": "default"},
        })
    );
}

#[test]
fn process() {
    let body = body(&[
        "-it",
        "-e",
        "A=1",
        "-u",
        "1000:5",
        "-w",
        "/x",
        "--entrypoint",
        "",
        "--stop-signal",
        "HUP",
        "--stop-timeout",
        "-1",
        "--init",
        "--group-add",
        "5",
        "-l",
        "a=b",
        "-h",
        "me",
        "--no-healthcheck",
        "img",
        "sh",
        "-c",
        "true",
    ]);
    assert_eq!(body["Cmd"], json!(["sh", "-c", "true"]));
    assert_eq!(body["Entrypoint"], json!([""]));
    assert_eq!(body["User"], "1000:5");
    assert_eq!(body["StopTimeout"], -1);
    assert_eq!(body["StdinOnce"], true);
    assert_eq!(body["Labels"], json!({"a": "b"}));
    assert_eq!(body["Hostname"], "me");
    assert_eq!(body["Healthcheck"], json!({"Test": ["NONE"]}));
    assert_eq!(body["HostConfig"], json!({"NetworkMode": "default", "Init": true, "GroupAdd": ["5"]}));
}

#[test]
fn host() {
    let body = body(&[
        "-m",
        "64m",
        "--memory-swap",
        "-1",
        "--cpus",
        "1.5",
        "--pids-limit",
        "10",
        "--blkio-weight",
        "100",
        "--device-read-bps",
        "/dev/sda:1m",
        "-v",
        "/a:/b:ro",
        "-v",
        "/anon",
        "--tmpfs",
        "/run:size=1m",
        "--read-only",
        "--shm-size",
        "1m",
        "--cap-add",
        "NET_ADMIN",
        "--cap-drop",
        "ALL",
        "--privileged",
        "--security-opt",
        "systempaths=unconfined",
        "--pid",
        "host",
        "--cgroupns",
        "private",
        "--sysctl",
        "a.b=1",
        "--ulimit",
        "nofile=5",
        "--restart",
        "on-failure:2",
        "--network",
        "none",
        "--dns",
        "1.1.1.1",
        "--add-host",
        "a=1.2.3.4",
        "--log-driver",
        "none",
        "--oom-score-adj",
        "-5",
        "--memory-swappiness",
        "-1",
        "img",
    ]);
    assert_eq!(body["Volumes"], json!({"/anon": {}}));
    assert_eq!(
        body["HostConfig"],
        json!({
            "Memory": 67_108_864, "MemorySwap": -1, "NanoCpus": 1_500_000_000, "PidsLimit": 10, "BlkioWeight": 100,
            "BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 1_048_576}], "Binds": ["/a:/b:ro"],
            "Tmpfs": {"/run": "size=1m"}, "ReadonlyRootfs": true, "ShmSize": 1_048_576, "CapAdd": ["NET_ADMIN"],
            "CapDrop": ["ALL"], "Privileged": true, "MaskedPaths": [], "ReadonlyPaths": [], "PidMode": "host",
            "CgroupnsMode": "private", "Sysctls": {"a.b": "1"}, "Ulimits": [{"Name": "nofile", "Soft": 5, "Hard": 5}],
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}, "NetworkMode": "none", "Dns": ["1.1.1.1"],
            "ExtraHosts": ["a:1.2.3.4"], "LogConfig": {"Type": "none"}, "OomScoreAdj": -5,
        })
    );
}

#[test]
fn ports_and_trace() {
    let body = body(&["-p", "8080:80", "--expose", "7", "-P", "--trace", "img"]);
    assert_eq!(body["ExposedPorts"], json!({"80/tcp": {}, "7/tcp": {}}));
    assert_eq!(body["HostConfig"]["PortBindings"], json!({"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}));
    assert_eq!(body["HostConfig"]["PublishAllPorts"], true);
    assert_eq!(body["BerthTrace"], true);
    let warned = request(&["--network", "host", "-p", "1:1", "img"], false).unwrap();
    assert_eq!(warned.warnings, ["published ports are discarded with --network host"]);
}

#[test]
fn streams() {
    let streams = |words: &[&str], is_detached| {
        let streams = request(words, is_detached).unwrap().streams;
        (streams.stdin, streams.stdout, streams.stderr)
    };
    assert_eq!(streams(&["-i", "img"], true), (false, false, false));
    assert_eq!(streams(&["-i", "img"], false), (true, true, true));
    assert_eq!(streams(&["-a", "STDERR", "-i", "img"], false), (false, false, true));
    refused(&["-a", "std", "img"], "invalid --attach \"std\"");
}

#[test]
fn refusals() {
    refused(&["--rm", "--restart", "always", "img"], "--rm and --restart exclude each other");
    refused(&["--pull", "sometimes", "img"], "invalid --pull \"sometimes\"");
    refused(&["--memory-swap", "1g", "img"], "--memory-swap needs --memory");
    refused(&["--cpus", "1", "--cpu-quota", "5", "img"], "--cpus excludes --cpu-period and --cpu-quota");
    refused(
        &["--network", "a", "--network", "b", "img"],
        "not yet: more than one --network: user-defined networks are not supported",
    );
    refused(&["--stop-signal", "SIGNOPE", "img"], "invalid --stop-signal \"SIGNOPE\"");
    refused(&["--oom-score-adj", "1001", "img"], "invalid --oom-score-adj 1001: it is -1000 to 1000");
    refused(&["--memory-swappiness", "101", "img"], "invalid --memory-swappiness 101: it is 0 to 100");
    refused(&["--sysctl", "x", "img"], "invalid --sysctl \"x\"");
    refused(&["--blkio-weight", "5", "img"], "invalid --blkio-weight: it is 10 to 1000, or 0");
    refused(&["--add-host", "x", "img"], "invalid --add-host \"x\"");
    refused(
        &["--trace=xml", "img"],
        "invalid --trace: the form is text, json, chrome or otlp, with :FILE after it if it shall go there, or otlp:http://HOST:PORT",
    );
    refused(&[""], "no image is named");
}
