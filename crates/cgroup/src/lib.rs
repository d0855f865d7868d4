//! Control groups by the cgroupfs driver: v1, v2 and the hybrid layout. STUB: see the owner's work.

#[derive(Debug)]
pub struct Cgroup;
