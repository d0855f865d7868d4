//! Events between the one log and containerd's messages.
//!
//! What came in containerd's terms goes out as it came. What the engine recorded in Docker's terms is translated here:
//!
//! ```text
//! container create   /containers/create              container exec_create   /tasks/exec-added
//! container start    /tasks/create, /tasks/start     container exec_start    /tasks/exec-started
//! container die      /tasks/exit, /tasks/delete      container exec_die      /tasks/exit (id: the exec's)
//! container destroy  /containers/delete              container pause, unpause, oom   /tasks/paused, resumed, oom
//! image load, tag    /images/create                  image untag             /images/delete
//! ```

mod collected;
mod fields;
mod publish;
mod translate;

pub(crate) use fields::EnvelopeFields;
pub(crate) use publish::Docker;
pub(crate) use translate::envelopes;
