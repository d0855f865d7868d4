//! Our shim under Debian's containerd, and with Debian's dockerd on top: nothing of either changed (S-131, S-138, S-139).

mod foreign_containerd {
    mod calls;
    mod pods;
    mod tasks;

    use std::path::PathBuf;

    use berth_testkit::containerd::Containerd;
    use berth_testkit::peers;

    const SHIM: &str = "containerd-shim-berth-v1";
    const RUNTIME: &str = "io.containerd.berth.v1";

    fn with_our_shim() -> Containerd {
        Containerd::with_busybox(&peers::binaries())
    }

    fn shim() -> PathBuf {
        peers::binaries().join(SHIM)
    }
}
