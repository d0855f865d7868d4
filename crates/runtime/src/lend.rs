//! Namespaces that a container's user namespace may have no right to join. Those of the host's user namespace (a network the engine made,
//! another container's IPC) refuse a process that has become somebody else's root; so the caller stands in them while it
//! clones, and the child is born inside.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::namespaces::Namespace;

/// Namespaces of the caller's own, to go back to.
#[derive(Debug, Default)]
pub(crate) struct Lent {
    own: Vec<(LinkNameSpaceType, OwnedFd)>,
}

/// The kinds a process can be born into by its parent's stay; PID has a way of its own, mount and user are never lent.
fn kind_of(kind: Namespace) -> Option<(LinkNameSpaceType, &'static str)> {
    match kind {
        Namespace::Uts => Some((LinkNameSpaceType::HostNameAndNISDomainName, "/proc/self/ns/uts")),
        Namespace::Ipc => Some((LinkNameSpaceType::InterProcessCommunication, "/proc/self/ns/ipc")),
        Namespace::Network => Some((LinkNameSpaceType::Network, "/proc/self/ns/net")),
        _ => None,
    }
}

impl Lent {
    /// Moves the calling process into those of `namespaces` that can be lent, and takes them out of the list.
    ///
    /// # Errors
    /// The kernel's; the caller is back where it was.
    pub(crate) fn enter(namespaces: &mut Vec<(Namespace, OwnedFd)>) -> Result<Self, Errno> {
        let mut lent = Self::default();
        let mut kept = Vec::new();
        for (kind, fd) in namespaces.drain(..) {
            let Some((link, own)) = kind_of(kind) else {
                kept.push((kind, fd));
                continue;
            };
            let entered = rustix::fs::open(own, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).and_then(|own| {
                move_into_link_name_space(fd.as_fd(), Some(link))?;
                Ok(own)
            });
            match entered {
                Ok(own) => lent.own.push((link, own)),
                // Not ours to enter; the container's own user namespace, once joined, may have the right.
                Err(Errno::PERM) => kept.push((kind, fd)),
                Err(errno) => {
                    lent.leave()?;
                    return Err(errno);
                }
            }
        }
        *namespaces = kept;
        Ok(lent)
    }

    /// Back to the caller's own.
    ///
    /// # Errors
    /// The kernel's: the caller is then in a foreign namespace and must end.
    pub(crate) fn leave(self) -> Result<(), Errno> {
        for (link, own) in self.own {
            move_into_link_name_space(own.as_fd(), Some(link))?;
        }
        Ok(())
    }
}
