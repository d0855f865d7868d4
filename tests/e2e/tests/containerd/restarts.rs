//! The restart monitor, by the labels with which containerd's clients ask for it.

use berth_containerd_api::containerd::services::tasks::v1::CreateTaskRequest;
use berth_testkit::{Instance, wait_until};

use super::checkpoint::Task;
use super::client::{Client, block_on};
use super::tasks::task;
use super::{ctr_run, rows};

const RUNNING: &str = "containerd.io/restart.status=running";

fn label(instance: &Instance, id: &str, name: &str) -> Option<String> {
    let listed = instance.ctr(&["containers", "info", id]);
    let info: serde_json::Value = serde_json::from_str(listed.ok()).unwrap();
    info["Labels"][format!("containerd.io/restart.{name}")].as_str().map(str::to_owned)
}

/// S-110, S-112: clients find the monitor by introspection, and what it can do.
#[test]
fn s112_restart_plugin() {
    let instance = Instance::start();
    let listed = instance.ctr(&["plugins", "ls", "id==restart"]);
    let found = rows(listed.ok());
    assert_eq!(
        (found.len(), found[0][0], found[0][1]),
        (1, "io.containerd.monitor.container.v1", "restart"),
        "{listed:?}"
    );
    let detailed = instance.ctr(&["plugins", "ls", "-d", "id==restart"]);
    for policy in ["no", "always", "on-failure", "unless-stopped"] {
        assert!(detailed.ok().contains(policy), "{detailed:?}");
    }
}

/// S-110: a failed task is started again as often as its policy says, with its output where the label says; counted; a task that ended
/// well, one that nobody watches, and one that a client stopped are left alone. Each in a second; one container once in ten.
#[test]
fn s110_restart_policies() {
    let instance = Instance::with_busybox();
    let out = instance.directory.join("out");
    let log = format!("containerd.io/restart.loguri=file://{}", out.display());
    let policy = |policy: &str| format!("containerd.io/restart.policy={policy}");
    let run = |id: &str, labels: &[&str], words: &[&str]| {
        let options: Vec<&str> = labels.iter().flat_map(|label| ["--label", *label]).collect();
        ctr_run(&instance, &[&["-d"], options.as_slice()].concat(), id, words).ok();
    };
    run("fails", &[RUNNING, &policy("on-failure:1"), &log], &["sh", "-c", "echo again; exit 4"]);
    run("plain", &[&policy("always")], &["true"]);
    run("ends", &[RUNNING, &policy("on-failure")], &["true"]);
    let stopped = "containerd.io/restart.explicitly-stopped=true";
    run("stopped", &[RUNNING, &policy("unless-stopped"), stopped], &["true"]);
    run("killed", &[RUNNING, &policy("unless-stopped")], &["sleep", "1000"]);
    let first = task(&instance, "killed").unwrap();
    instance.ctr(&["tasks", "kill", "--signal", "9", "killed"]).ok();
    wait_until("the killed task runs again", || {
        task(&instance, "killed").filter(|(pid, status)| *pid != first.0 && status == "RUNNING")
    });
    // What is printed before the first restart goes to ctr's FIFO.
    wait_until("the failed task ran again", || std::fs::read_to_string(&out).ok().filter(|text| text == "again\n"));
    wait_until("it has ended again", || task(&instance, "fails").filter(|(_, status)| status == "STOPPED"));
    assert_eq!(label(&instance, "fails", "count").as_deref(), Some("1"));
    assert_eq!(label(&instance, "killed", "count").as_deref(), Some("1"));
    for id in ["plain", "ends", "stopped"] {
        assert_eq!((task(&instance, id).unwrap().1.as_str(), label(&instance, id, "count")), ("STOPPED", None), "{id}");
    }
    // Wanted stopped: the monitor ends it. A label without a value is one taken away.
    instance.ctr(&["containers", "label", "killed", "containerd.io/restart.status=stopped"]).ok();
    wait_until("the monitor ends what is to be stopped", || task(&instance, "killed").is_none().then_some(()));
    instance.ctr(&["containers", "label", "killed", "containerd.io/restart.status="]).ok();
    assert_eq!(label(&instance, "killed", "status"), None);
}

/// S-110: a deleted task's id is free at once: another task is made under it before the first one's shim has ended.
#[test]
fn s110_ids_are_free_after_a_deletion() {
    let instance = Instance::with_busybox();
    ctr_run(&instance, &["-d"], "again", &["true"]).ok();
    block_on(async {
        let client = Client::connect(&instance, "default").await;
        let task = Task { client: &client, id: "again" };
        for _ in 0..20 {
            assert_eq!(task.wait().await, 0);
            task.delete().await;
            let made = task.create(CreateTaskRequest::default()).await;
            made.unwrap_or_else(|error| panic!("{error:?}"));
            task.start().await.unwrap();
        }
    });
}
