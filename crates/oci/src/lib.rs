//! Documents of the Open Container Initiative: runtime-spec and image-spec types, and the annotations of our own.

pub mod document;
pub mod runtime;

pub use oci_spec::image;

/// Annotations that Berth's engine gives to Berth's own runtime; other runtimes ignore them.
pub mod annotation {
    /// Path of a compiled seccomp program (`berth-seccomp` format) that replaces `linux.seccomp`.
    pub const SECCOMP_PROGRAM: &str = "dev.berth.seccomp-program";
    /// Supplementary groups by name or number, comma separated, resolved inside the root file system.
    pub const GROUP_ADD: &str = "dev.berth.group-add";
    /// `true`: the shim writes the spans of create, start and exec to `<bundle>/trace.json`.
    pub const TRACE: &str = "dev.berth.trace";
    /// `systemd`: the container's cgroup is a scope of the machine's systemd, as `SystemdCgroup` of runc's options says it.
    pub const CGROUP_DRIVER: &str = "dev.berth.cgroup-driver";
}
