//! Everything that touches paths below a container's root: descriptor-relative, resolved by the kernel inside the root
//! (`openat2`, `RESOLVE_IN_ROOT`), never by joined strings. Mounts are detached mounts on descriptors (new mount API).

pub mod copy_up;
pub mod devices;
pub mod mask;
pub mod mounts;
pub mod options;
pub mod overlay;
pub mod removal;
pub mod root_dir;

pub use overlay::{OverlayError, OverlayOptions, OverlayRootfs};
pub use removal::{Overflow, remove_tree};
pub use root_dir::{RootDir, RootError};
