//! What tests share: images built on the spot, a private daemon with its clients, and the picture of what is left behind.

pub mod archive;
pub mod bombs;
pub mod containerd;
pub mod deadline;
pub mod dice;
pub mod disk;
pub mod foreign;
pub mod growth;
pub mod instance;
pub mod leak;
pub mod peers;
pub mod proxy;
pub mod registry;
pub mod stream;
pub mod traces;

pub use archive::{Image, LayerFile};
pub use deadline::wait_until;
pub use foreign::Containerd;
pub use instance::{Instance, Output};
pub use traces::Traces;
