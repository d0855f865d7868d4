//! containerd's API with containerd's own client: Debian's `ctr` against a daemon of ours, nothing of either changed.

mod containerd {
    mod both;
    mod calls;
    mod checkpoint;
    mod client;
    mod events;
    mod fsck;
    mod images;
    mod metadata;
    mod options;
    mod pods;
    mod restarts;
    mod sandbox;
    mod shims;
    mod streams;
    mod tasks;
    mod transfer;

    use berth_testkit::{Instance, Output};

    const BUSYBOX: &str = "docker.io/library/busybox:latest";

    /// `ctr run` with options before the image; FIFOs lie in the instance's own directory.
    fn ctr_run(instance: &Instance, options: &[&str], id: &str, words: &[&str]) -> Output {
        let fifos = fifo_dir(instance);
        let cgroup = cgroup(instance, id);
        instance.ctr(&[&["run", "--fifo-dir", &fifos, "--cgroup", &cgroup], options, &[BUSYBOX, id], words].concat())
    }

    fn ctr_exec(instance: &Instance, id: &str, exec_id: &str, words: &[&str]) -> Output {
        let fifos = fifo_dir(instance);
        instance.ctr(&[&["tasks", "exec", "--fifo-dir", &fifos, "--exec-id", exec_id, id], words].concat())
    }

    /// Tests at the same time use the same ids: each instance has its own groups.
    fn cgroup(instance: &Instance, id: &str) -> String {
        format!("{}/{id}", instance.cgroup_parent())
    }

    fn fifo_dir(instance: &Instance) -> String {
        let dir = instance.directory.join("fifo");
        std::fs::create_dir_all(&dir).unwrap();
        dir.to_str().unwrap().to_owned()
    }

    /// The lines of a table without its head, each cut at white space.
    fn rows(table: &str) -> Vec<Vec<&str>> {
        table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect()
    }
}
