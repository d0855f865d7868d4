//! What the caller does while a program of somebody else's, a hook, is waited for. Without an answer to that it waits itself.

use rustix::io::Errno;

/// Called in place of a wait with what waits (one blocking system call, nothing else); it must call that once, in the same thread.
///
/// Who calls it may let another thread go on for as long, provided that nothing of that thread's is under way when `wait` has returned: the
/// callers of create, start and exec have one thread at work (see the crate's invariants).
pub type Wait = fn(wait: &mut dyn FnMut());

/// The caller's choice; by default nothing else happens.
#[derive(Debug, Clone, Copy, Default)]
pub struct Meanwhile(Option<Wait>);

impl Meanwhile {
    pub const fn by(wait: Wait) -> Self {
        Self(Some(wait))
    }

    pub(crate) fn wait<T>(self, mut blocking: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
        let Some(wait) = self.0 else { return blocking() };
        let mut result = Err(Errno::CANCELED);
        wait(&mut || result = blocking());
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_given_to_the_caller() {
        assert_eq!(Meanwhile::default().wait(|| Ok(1)), Ok(1));
        assert_eq!(Meanwhile::by(|wait| wait()).wait(|| Ok(2)), Ok(2));
        assert_eq!(Meanwhile::by(|wait| wait()).wait(|| Err::<(), _>(Errno::IO)), Err(Errno::IO));
        assert_eq!(Meanwhile::by(|_| ()).wait(|| Ok(3)), Err(Errno::CANCELED));
    }
}
