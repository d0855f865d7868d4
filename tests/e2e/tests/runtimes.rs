//! Runtimes of others under our engine, each with the same life of a container (S-122, S-137, S-139).

mod runtimes {
    mod choice;
    mod held;
    mod life;

    use std::path::{Path, PathBuf};
    use std::sync::OnceLock;

    use berth_testkit::{Image, Instance, peers};

    /// A daemon that finds Debian's runc, crun and shims, and busybox.
    fn instance(extra: &[&str]) -> Instance {
        let bin = peers::peer("usr/bin/runc").parent().unwrap().to_owned();
        let instance = Instance::start_so(extra, &[wrappers(), &bin]);
        instance.load(&Image::busybox().docker_archive()).ok();
        instance
    }

    /// Peers that need libraries of their own; made once, beside the build's other products.
    fn wrappers() -> &'static Path {
        static MADE: OnceLock<PathBuf> = OnceLock::new();
        MADE.get_or_init(|| {
            let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wrappers");
            std::fs::create_dir_all(&directory).unwrap();
            peers::wrapped("usr/bin/crun", &directory);
            directory
        })
    }
}
