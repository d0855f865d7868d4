//! A netlink socket of ours: one batch out, all answers in, errors named after the step that failed.
//!
//! The kernel works inside `sendmsg`, so when it returns every acknowledgement is already queued: reading never waits.
//! A socket belongs for ever to the network namespace in which it was opened, whoever uses it later.

use std::os::fd::{AsFd, OwnedFd};

use berth_sys::netlink::{NetlinkOption, enable};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

use super::message::{self, Answer, AttributeReader, Attributes, Batch, DUMP, Step, answers};
use crate::error::NetworkError;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_MIN_TYPE: u16 = 16;
/// The answer repeats only the header of the request.
const CAPPED: u16 = 0x100;
/// The answer carries attributes that explain it.
const EXTENDED: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

const RECEIVE_BYTES: usize = 64 << 10;
const SEND_BYTES: usize = 4 << 20;
/// More answers than any host of ours has links, addresses or routes.
const DUMP_MESSAGES_MAX: usize = 100_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Route,
    Netfilter,
}

#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// What the kernel answered to one message.
struct Verdict {
    sequence: u32,
    errno: Option<Errno>,
    message: Option<String>,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    pub(crate) fn open(family: Family) -> Result<Self, NetworkError> {
        let protocol = match family {
            Family::Route => None,
            Family::Netfilter => Some(netlink::NETFILTER),
        };
        let failed = |source| NetworkError::Kernel {
            action: "open",
            object: "netlink socket".to_owned(),
            message: None,
            source,
        };
        let fd = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
            .map_err(failed)?;
        enable(fd.as_fd(), NetlinkOption::ExtendedAck).map_err(failed)?;
        enable(fd.as_fd(), NetlinkOption::CapAck).map_err(failed)?;
        if family == Family::Netfilter {
            // Thousands of published ports go out as one transaction. The kernel clamps it to net.core.wmem_max; what
            // does not fit then fails with EMSGSIZE, which is reported.
            net::sockopt::set_socket_send_buffer_size(&fd, SEND_BYTES).map_err(failed)?;
        }
        Ok(Self { fd, sequence: 1, buffer: Vec::new() })
    }

    /// Sends rtnetlink requests; each is acknowledged, and the first refusal is the error. Requests after a refused one
    /// have been carried out all the same: the caller undoes.
    pub(crate) fn execute(&mut self, mut batch: Batch) -> Result<(), NetworkError> {
        let first = self.send(&mut batch)?;
        self.settle(&batch, first, batch.len().saturating_sub(1))
    }

    /// Sends an nf_tables transaction, already framed by its begin and end: all of it happens, or nothing. The message
    /// before the end is the one that asks for an acknowledgement.
    pub(crate) fn transact(&mut self, mut batch: Batch) -> Result<(), NetworkError> {
        let first = self.send(&mut batch)?;
        self.settle(&batch, first, batch.len().saturating_sub(2))
    }

    /// Asks for one object; `None` when the kernel says that there is none.
    pub(crate) fn get(&mut self, mut batch: Batch) -> Result<Option<Vec<u8>>, NetworkError> {
        let first = self.send(&mut batch)?;
        let mut found = None;
        let mut refused = None;
        self.receive(|answer| {
            if answer.sequence != first {
            } else if let Some(verdict) = verdict(answer) {
                refused = verdict.errno.map(|errno| (errno, verdict.message));
            } else if answer.kind >= NLMSG_MIN_TYPE {
                found = Some(answer.body.to_vec());
            }
        })
        .map_err(|source| broken(&batch, source))?;
        match refused {
            None => Ok(found),
            Some((Errno::NODEV | Errno::NOENT, _)) => Ok(None),
            Some((errno, message)) => Err(failure(batch.step(0), errno, message)),
        }
    }

    /// Lists objects: `visit` gets the body (family header and attributes) of each.
    pub(crate) fn dump(
        &mut self,
        step: Step,
        kind: u16,
        family_header: &[u8],
        visit: impl FnMut(&[u8]),
    ) -> Result<(), NetworkError> {
        self.dump_some(step, kind, family_header, |_| {}, visit)
    }

    /// Lists the objects that the attributes written by `filter` describe.
    pub(crate) fn dump_some(
        &mut self,
        step: Step,
        kind: u16,
        family_header: &[u8],
        filter: impl FnOnce(&mut Attributes<'_>),
        mut visit: impl FnMut(&[u8]),
    ) -> Result<(), NetworkError> {
        let mut batch = Batch::default();
        batch.push(step, kind, DUMP, family_header, filter);
        self.send(&mut batch)?;
        let mut done = false;
        let mut refused = None;
        let mut count = 0;
        while !done && count < DUMP_MESSAGES_MAX {
            let received = self.receive_one(|answer| {
                count += 1;
                if let Some(verdict) = verdict(answer) {
                    refused = verdict.errno.map(|errno| (errno, verdict.message));
                    done = true;
                } else if answer.kind == NLMSG_DONE {
                    done = true;
                } else if answer.kind >= NLMSG_MIN_TYPE {
                    visit(answer.body);
                }
            });
            match received {
                Ok(true) => {}
                Ok(false) => done = true,
                Err(source) => return Err(broken(&batch, source)),
            }
        }
        match refused {
            None => Ok(()),
            Some((errno, message)) => Err(failure(batch.step(0), errno, message)),
        }
    }

    fn send(&mut self, batch: &mut Batch) -> Result<u32, NetworkError> {
        let first = self.sequence;
        self.sequence = first.wrapping_add(u32::try_from(batch.len()).unwrap_or(u32::MAX));
        batch.number(first);
        net::send(&self.fd, batch.bytes(), SendFlags::empty()).map_err(|source| broken(batch, source))?;
        Ok(first)
    }

    /// Reads the acknowledgements of a batch; of several refusals the earliest in the batch is the error.
    fn settle(&mut self, batch: &Batch, first: u32, last: usize) -> Result<(), NetworkError> {
        let mut refused: Option<(usize, Errno, Option<String>)> = None;
        let mut acknowledged = false;
        self.receive(|answer| {
            let Some(verdict) = verdict(answer) else { return };
            let Ok(index) = usize::try_from(verdict.sequence.wrapping_sub(first)) else { return };
            acknowledged |= index == last;
            if let Some(errno) = verdict.errno
                && index < batch.len()
                && refused.as_ref().is_none_or(|(earlier, ..)| index < *earlier)
            {
                refused = Some((index, errno, verdict.message));
            }
        })
        .map_err(|source| broken(batch, source))?;
        match refused {
            Some((index, errno, message)) => Err(failure(batch.step(index), errno, message)),
            None if acknowledged => Ok(()),
            None => Err(broken(batch, Errno::PROTO)),
        }
    }

    fn receive(&mut self, mut visit: impl FnMut(Answer<'_>)) -> Result<(), Errno> {
        while self.receive_one(&mut visit)? {}
        Ok(())
    }

    /// One datagram; `false` when none is queued.
    fn receive_one(&mut self, visit: impl FnMut(Answer<'_>)) -> Result<bool, Errno> {
        self.buffer.resize(RECEIVE_BYTES, 0);
        let received = loop {
            match net::recv(&self.fd, &mut self.buffer[..], RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                other => break other?.1,
            }
        };
        let datagram = self.buffer.get(..received).ok_or(Errno::MSGSIZE)?;
        answers(datagram).for_each(visit);
        Ok(true)
    }
}

/// The conversation itself failed, not one of its requests.
fn broken(batch: &Batch, source: Errno) -> NetworkError {
    failure(batch.step(0), source, None)
}

fn failure(step: Option<&Step>, source: Errno, message: Option<String>) -> NetworkError {
    let (action, object) =
        step.map_or(("speak to", "the kernel".to_owned()), |step| (step.action, step.object.clone()));
    NetworkError::Kernel { action, object, message, source }
}

/// Reads `nlmsgerr { error i32, nlmsghdr of the request } [request] [attributes]`.
fn verdict(answer: Answer<'_>) -> Option<Verdict> {
    if answer.kind != NLMSG_ERROR {
        return None;
    }
    let code = i32::from_ne_bytes(*answer.body.first_chunk()?);
    let request_len = u32::from_ne_bytes(*answer.body.get(4..)?.first_chunk()?);
    let echoed = if answer.flags & CAPPED == 0 { usize::try_from(request_len).ok()? } else { message::HEADER_LEN };
    let message = (answer.flags & EXTENDED != 0)
        .then(|| AttributeReader::after(answer.body, 4 + echoed).string(NLMSGERR_ATTR_MSG))
        .flatten();
    let errno = (code != 0).then(|| Errno::from_raw_os_error(code.saturating_neg()));
    Some(Verdict { sequence: answer.sequence, errno, message })
}
