//! Shims of third parties: a toy of our own making that knows nothing of the engine, and stand-ins for Kata's and gVisor's invocation (S-135,
//! S-136, S-139…S-143).

mod third_party {
    mod secure;
    mod toy;

    use std::path::PathBuf;

    use berth_testkit::{Image, Instance};

    /// A directory with the toy under several shims' names, and a daemon that searches it.
    struct Shims {
        directory: PathBuf,
    }

    impl Shims {
        fn new(names: &[&str]) -> Self {
            static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
            let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let directory =
                berth_testkit::instance::test_root().join(format!("berth-toy-{}-{number}", std::process::id()));
            std::fs::create_dir_all(&directory).unwrap();
            for name in names {
                std::fs::copy(env!("CARGO_BIN_EXE_containerd-shim-toy-v1"), directory.join(name)).unwrap();
            }
            Self { directory }
        }

        fn instance(&self, extra: &[&str]) -> Instance {
            let instance = Instance::start_so(extra, &[&self.directory]);
            instance.load(&Image::busybox().docker_archive()).ok();
            instance
        }

        /// What the shims were called with, line by line.
        fn calls(&self) -> Vec<String> {
            let text = std::fs::read_to_string(self.directory.join("calls")).unwrap_or_default();
            text.lines().map(|line| line.trim_end().to_owned()).collect()
        }

        /// Living processes whose command begins with one of the shims' files.
        fn processes(&self, name: &str) -> Vec<String> {
            let wanted = self.directory.join(name).display().to_string();
            let mut found = Vec::new();
            for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                if line.starts_with(&wanted) {
                    found.push(line);
                }
            }
            found
        }
    }

    impl Drop for Shims {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("--- calls ---\n{}", self.calls().join("\n"));
            }
            std::fs::remove_dir_all(&self.directory).unwrap_or(());
        }
    }

    /// `ctr run` with options before the image.
    fn ctr_run(instance: &Instance, options: &[&str], id: &str, words: &[&str]) -> berth_testkit::Output {
        let fifos = instance.directory.join("fifo");
        std::fs::create_dir_all(&fifos).unwrap();
        let image = "docker.io/library/busybox:latest";
        let common = ["run", "--fifo-dir", fifos.to_str().unwrap()];
        instance.ctr(&[&common, options, &[image, id], words].concat())
    }
}
