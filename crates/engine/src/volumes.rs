//! Volumes: directories that outlive containers. Named ones are a person's; anonymous ones belong to a container's `VOLUME` or `-v /path`.
//!
//! `store` keeps them, `bind` gives them to a container at its create, `verbs` is what faces ask for.
//!
//! Crashes: a volume made by a create carries that container's id until somebody else uses it or the container is removed without `-v`. The
//! next daemon removes those whose container it does not know: the create, or the removal, was cut short.

mod bind;
mod store;
mod verbs;

pub(crate) use bind::{BoundVolume, Holds};
pub(crate) use store::VolumeStore;
pub(crate) use verbs::{check_driver, check_name, check_options};
