//! The only unsafe code: system calls that rustix does not wrap, one typed wrapper per call.
//!
//! Raw descriptor numbers do not leave this crate; every descriptor is close-on-exec until the moment it must not be.

pub mod arena;
pub mod bpf;
pub mod btrfs;
pub mod capability;
pub mod clock;
pub mod clone;
pub mod detached;
pub mod device_mapper;
pub mod fs_identity;
pub mod inherited;
pub mod interface;
pub mod memory;
pub mod mount_attr;
pub mod namespace;
pub mod netlink;
pub mod process;
pub mod seccomp;
pub mod shared;
pub mod shim_process;
pub mod signal_fd;
pub mod signals;
pub mod tty;
