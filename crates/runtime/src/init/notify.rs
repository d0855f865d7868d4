//! Loading a filter that notifies. From the moment it is loaded, any call of init may stop until the agent answers, and the agent
//! cannot answer before it has the listener. So another process without the filter, which shares init's descriptors, sends it.
//!
//! ```text
//! init                                    helper (same descriptor table, no filter)
//! clone helper
//! load filter, publish listener's number
//! spin (no system call)                   see the number, send the descriptor to the creator, await its word
//!                                         publish: handed over; exit
//! reap the helper
//! ```

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use berth_sys::clone::{CloneArgs, clone_child};
use berth_sys::shared::SharedNumbers;
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions};
use rustix::time::{ClockId, clock_gettime};

use super::{Failure, InitContext};
use crate::channel::{Channel, Message};

/// For the agent to be reached; whoever exceeds it holds up nobody but this container.
const TIMEOUT_S: i64 = 30;
const WAITING: u64 = 0;
const HANDED_OVER: u64 = u64::MAX;
const REFUSED: u64 = u64::MAX - 1;
/// Between two looks of the helper.
const PAUSE: Duration = Duration::from_micros(100);

impl InitContext<'_> {
    pub(super) fn load_seccomp(&self) -> Result<(), Failure> {
        let Some(filter) = self.filter.as_ref() else { return Ok(()) };
        if filter.agent().is_none() {
            return Ok(filter.load()?);
        }
        let page = SharedNumbers::new(1)?;
        let word = page.as_slice().first().ok_or_else(|| Failure::from(Errno::NOMEM))?;
        let channel = &self.channel;
        let args = CloneArgs { shares_descriptors: true, ..CloneArgs::default() };
        let helper = clone_child(&args, || hand_over(channel, word))?;
        let listener = match filter.load_with_listener() {
            Ok(listener) => listener,
            Err(errno) => {
                word.store(REFUSED, Ordering::Release);
                let _gone = reap(helper.pidfd.as_fd());
                return Err(errno.into());
            }
        };
        let number = u64::try_from(listener.as_raw_fd()).unwrap_or(WAITING);
        word.store(number, Ordering::Release);
        let outcome = spin_until(word, |value| value == HANDED_OVER || value == REFUSED);
        // From here on calls may be asked about, and there is somebody to ask.
        let reaped = reap(helper.pidfd.as_fd());
        drop(listener);
        match outcome {
            Some(HANDED_OVER) => Ok(reaped?),
            _ => Err(Failure::new("its listener could not be handed over", Errno::CONNREFUSED)),
        }
    }
}

fn reap(pidfd: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED)).map(drop)
}

fn seconds() -> i64 {
    clock_gettime(ClockId::Monotonic).tv_sec
}

/// Without a system call: the clock is read from the page the kernel shares (vdso(7)).
fn spin_until(word: &AtomicU64, is_done: impl Fn(u64) -> bool) -> Option<u64> {
    let deadline = seconds() + TIMEOUT_S;
    loop {
        let value = word.load(Ordering::Acquire);
        if is_done(value) {
            return Some(value);
        }
        if seconds() > deadline {
            return None;
        }
        std::hint::spin_loop();
    }
}

/// The helper's life. Nothing here may close a descriptor: they are init's.
fn hand_over(channel: &Channel, word: &AtomicU64) -> u8 {
    let pause = rustix::event::Timespec::try_from(PAUSE).unwrap_or(rustix::event::Timespec { tv_sec: 0, tv_nsec: 1 });
    let deadline = seconds() + TIMEOUT_S;
    let number = loop {
        match word.load(Ordering::Acquire) {
            WAITING if seconds() <= deadline => {
                let _interrupted = rustix::event::poll(&mut [], Some(&pause));
            }
            WAITING | REFUSED | HANDED_OVER => return 1,
            number => break number,
        }
    };
    let sent = i32::try_from(number).map_err(|_| Errno::BADF).and_then(|number| channel.send_listener(number));
    let answered = sent.and_then(|()| channel.receive(Some(Duration::from_secs(30))));
    let is_done = matches!(answered, Ok(Message::Go));
    word.store(if is_done { HANDED_OVER } else { REFUSED }, Ordering::Release);
    u8::from(!is_done)
}
