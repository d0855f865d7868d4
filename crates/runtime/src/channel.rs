//! The socket between init and whoever waits for it. One packet is one message, kind first:
//!
//! ```text
//! init -> creator   M              waiting for its user namespace's mappings
//!                   H              mounts are ready: run the hooks that belong outside
//!                   T (+ fd)       master of the pseudo-terminal
//!                   K              in a new time namespace whose clocks somebody else must set
//!                   I slot (+ fd)  a mount whose ids shall be mapped
//!                   D              waiting for interfaces of the host
//!                   L (+ fd)       the seccomp listener; the answer comes when the agent has it
//!                   P (+ fd)       init's pidfd, from the process that cloned it in a joined user namespace
//!                   W text         something could not be done as asked, and init went on
//!                   R              ready; now waiting for start
//!                   E errno step \0 object \0 detail
//! creator -> init   G              go on
//! (end of file)                    init has exec'd (the socket is close-on-exec) or is gone
//! ```

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};

use crate::meanwhile::Meanwhile;

/// Longest packet; texts are cut to fit.
const PACKET_MAX: usize = 4096;

/// A failure as init reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) step: String,
    pub(crate) object: String,
    pub(crate) detail: String,
    pub(crate) errno: Errno,
}

#[derive(Debug)]
pub(crate) enum Message {
    AwaitsMappings,
    AwaitsHooks,
    AwaitsClocks,
    AwaitsDevices,
    /// A detached mount, and which of the plan's `inside` it is for.
    AwaitsIdMap {
        slot: u32,
        mount: OwnedFd,
    },
    Listener(OwnedFd),
    Child(OwnedFd),
    Console(OwnedFd),
    Warning(String),
    Ready,
    Failed(Report),
    Go,
    /// The other side closed.
    End,
}

/// One end.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

impl Channel {
    pub(crate) fn pair() -> Result<(Self, Self), Errno> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(ours), Self(theirs)))
    }

    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.0
    }

    pub(crate) fn send(&self, message: &Message) -> Result<(), Errno> {
        let mut packet = Vec::with_capacity(64);
        let mut fd = None;
        match message {
            Message::AwaitsMappings => packet.push(b'M'),
            Message::AwaitsHooks => packet.push(b'H'),
            Message::AwaitsClocks => packet.push(b'K'),
            Message::AwaitsDevices => packet.push(b'D'),
            Message::AwaitsIdMap { slot, mount } => {
                packet.push(b'I');
                packet.extend(slot.to_le_bytes());
                fd = Some(mount.as_fd());
            }
            Message::Listener(listener) => {
                packet.push(b'L');
                fd = Some(listener.as_fd());
            }
            Message::Child(pidfd) => {
                packet.push(b'P');
                fd = Some(pidfd.as_fd());
            }
            Message::Console(master) => {
                packet.push(b'T');
                fd = Some(master.as_fd());
            }
            Message::Warning(text) => {
                packet.push(b'W');
                packet.extend(text.bytes());
            }
            Message::Ready => packet.push(b'R'),
            Message::Failed(report) => encode(report, &mut packet),
            Message::Go => packet.push(b'G'),
            Message::End => return Ok(()),
        }
        packet.truncate(PACKET_MAX);
        self.send_packet(&packet, fd)
    }

    /// The listener by its number in the table that the sender shares with init (see `init::notify`), and does not own.
    pub(crate) fn send_listener(&self, number: i32) -> Result<(), Errno> {
        berth_sys::inherited::with_borrowed(number, |listener| self.send_packet(b"L", Some(listener)))?
    }

    fn send_packet(&self, packet: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(Errno::NOBUFS);
        }
        let slices = [IoSlice::new(packet)];
        rustix::io::retry_on_intr(|| rustix::net::sendmsg(&self.0, &slices, &mut control, SendFlags::NOSIGNAL))?;
        Ok(())
    }

    /// Waits for a message until the deadline, and something else is done while there is none.
    pub(crate) fn receive_by(&self, timeout: Duration, meanwhile: Meanwhile) -> Result<Message, Errno> {
        meanwhile.wait(|| wait_readable(self.0.as_fd(), timeout))?;
        self.receive(None)
    }

    /// Waits for a message until the deadline, or for ever (init, which is killed when nobody wants it any more).
    pub(crate) fn receive(&self, timeout: Option<Duration>) -> Result<Message, Errno> {
        if let Some(timeout) = timeout {
            wait_readable(self.0.as_fd(), timeout)?;
        }
        let mut packet = [0_u8; PACKET_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut packet)];
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(&self.0, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)
        });
        let length = match received {
            Ok(received) => received.bytes,
            Err(Errno::CONNRESET) => 0,
            Err(errno) => return Err(errno),
        };
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        decode(packet.get(..length).unwrap_or_default(), fd)
    }
}

/// Polls until readable; `ETIMEDOUT` when it is not in time.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, timeout: Duration) -> Result<(), Errno> {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let timeout = Timespec::try_from(timeout).map_err(|_| Errno::INVAL)?;
    match rustix::io::retry_on_intr(|| poll(&mut fds, Some(&timeout)))? {
        0 => Err(Errno::TIMEDOUT),
        _ => Ok(()),
    }
}

fn encode(report: &Report, packet: &mut Vec<u8>) {
    packet.push(b'E');
    packet.extend(report.errno.raw_os_error().to_le_bytes());
    for (text, limit) in [(&report.step, 64), (&report.object, 1024), (&report.detail, 2048)] {
        packet.extend(text.bytes().filter(|b| *b != 0).take(limit));
        packet.push(0);
    }
}

fn decode(packet: &[u8], fd: Option<OwnedFd>) -> Result<Message, Errno> {
    let Some((kind, rest)) = packet.split_first() else { return Ok(Message::End) };
    Ok(match kind {
        b'M' => Message::AwaitsMappings,
        b'H' => Message::AwaitsHooks,
        b'K' => Message::AwaitsClocks,
        b'D' => Message::AwaitsDevices,
        b'I' => {
            let slot = *rest.first_chunk::<4>().ok_or(Errno::BADMSG)?;
            Message::AwaitsIdMap { slot: u32::from_le_bytes(slot), mount: fd.ok_or(Errno::BADMSG)? }
        }
        b'L' => Message::Listener(fd.ok_or(Errno::BADMSG)?),
        b'P' => Message::Child(fd.ok_or(Errno::BADMSG)?),
        b'T' => Message::Console(fd.ok_or(Errno::BADMSG)?),
        b'W' => Message::Warning(String::from_utf8_lossy(rest).into_owned()),
        b'R' => Message::Ready,
        b'G' => Message::Go,
        b'E' => {
            let (errno, texts) = rest.split_first_chunk::<4>().ok_or(Errno::BADMSG)?;
            let mut texts = texts.split(|b| *b == 0).map(|text| String::from_utf8_lossy(text).into_owned());
            let mut next = || texts.next().unwrap_or_default();
            let (step, object, detail) = (next(), next(), next());
            Message::Failed(Report {
                step,
                object,
                detail,
                errno: Errno::from_raw_os_error(i32::from_le_bytes(*errno)),
            })
        }
        _ => return Err(Errno::BADMSG),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_survive_the_wire() {
        let (a, b) = Channel::pair().unwrap();
        let report = Report {
            step: "mount".to_owned(),
            object: "/proc".to_owned(),
            detail: "cannot attach".to_owned(),
            errno: Errno::PERM,
        };
        a.send(&Message::Failed(report.clone())).unwrap();
        match b.receive(Some(Duration::from_secs(1))).unwrap() {
            Message::Failed(received) => assert_eq!(received, report),
            other => panic!("{other:?}"),
        }
        drop(a);
        assert!(matches!(b.receive(Some(Duration::from_secs(1))).unwrap(), Message::End));
    }
}
