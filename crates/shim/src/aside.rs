//! Work of the runtime that waits for hooks: beside the event loop, and never at work at the same time.
//!
//! A process that clones without executing must have one thread at work, for its child would inherit what another one holds. So there is a second
//! thread for such a piece of work alone, and the two take turns; what either does outside of its turn is one system call that waits.
//!
//! ```text
//! event loop                  the other thread
//!                        <──  W  wants its turn, waits
//! stands still           ──>  G  works
//!                        <──  R  rests: waits for a hook
//! serves everybody
//!                        <──  W  wants its turn, waits
//! stands still           ──>  G  works
//! joins it               <──  E  has ended
//! ```

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use berth_runtime::Meanwhile;
use rustix::event::{PollFd, PollFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

const WANTS: u8 = b'W';
const GO: u8 = b'G';
const RESTS: u8 = b'R';
const ENDED: u8 = b'E';
/// As the event loop's own has it; only what is used is there.
const STACK_BYTES: usize = 8 << 20;

thread_local! {
    /// The other thread's end, in that thread.
    static TURNS: RefCell<Option<UnixStream>> = const { RefCell::new(None) };
}

/// For what may be done by [`aside`]: everybody else has a turn while a hook is waited for. In the event loop's own thread it waits there.
pub(crate) const MEANWHILE: Meanwhile = Meanwhile::by(rest);

fn rest(wait: &mut dyn FnMut()) {
    TURNS.with_borrow(|turns| match turns {
        Some(turns) => {
            say(turns, RESTS);
            wait();
            take_turn(turns);
        }
        None => wait(),
    });
}

/// Does it with hooks waited for beside the event loop. It is done to its end, also when nobody waits for that any more. Without the means for a
/// second thread it is done here.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let pair = UnixStream::pair().and_then(|(ours, theirs)| {
        ours.set_nonblocking(true)?;
        Ok((crate::io::watch(OwnedFd::from(ours), Interest::READABLE)?, theirs))
    });
    let Ok((ours, theirs)) = pair else { return work() };
    let work = Arc::new(Mutex::new(Some(work)));
    let given = Arc::clone(&work);
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        take_turn(&theirs);
        TURNS.set(Some(theirs));
        let _end = End;
        taken(&given).map(|work| work())
    });
    let Ok(thread) = thread else {
        return match taken(&work) {
            Some(work) => work(),
            None => std::future::pending().await,
        };
    };
    // Until it stands still, so that it begins nothing beside us.
    hear(&ours);
    match tokio::spawn(take_turns(ours, thread)).await {
        Ok(Some(done)) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The event loop ends, and this with it.
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

/// The event loop's part, once the other thread wants its first turn.
async fn take_turns<T>(ours: AsyncFd<OwnedFd>, thread: JoinHandle<Option<T>>) -> Option<T> {
    loop {
        rustix::io::write(ours.get_ref(), &[GO]).ok();
        if hear(&ours) != Some(RESTS) {
            break;
        }
        loop {
            let Ok(mut ready) = ours.readable().await else { return None };
            let mut byte = [0];
            match rustix::io::read(ours.get_ref(), &mut byte) {
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => ready.clear_ready(),
                _ => break,
            }
        }
    }
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The next word; this thread stands still until it comes.
fn hear(ours: &AsyncFd<OwnedFd>) -> Option<u8> {
    loop {
        let mut fds = [PollFd::new(ours.get_ref(), PollFlags::IN)];
        rustix::event::poll(&mut fds, None).ok();
        let mut byte = [0];
        match rustix::io::read(ours.get_ref(), &mut byte) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Ok(1) => return byte.first().copied(),
            _ => return None,
        }
    }
}

fn taken<T>(work: &Mutex<Option<T>>) -> Option<T> {
    work.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn say(mut turns: &UnixStream, word: u8) {
    turns.write_all(&[word]).ok();
}

fn take_turn(mut turns: &UnixStream) {
    say(turns, WANTS);
    let mut word = [0];
    if !matches!(turns.read_exact(&mut word), Ok(())) || word != [GO] {
        // The event loop is gone, and the process about to be: nothing may be begun any more.
        loop {
            std::thread::park();
        }
    }
}

/// Told however the work ends.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        if let Some(turns) = TURNS.take() {
            say(&turns, ENDED);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::*;

    /// While one rests the event loop goes on; while one works it stands still, as do the others.
    #[test]
    fn one_is_at_work_at_a_time() {
        static AT_WORK: AtomicBool = AtomicBool::new(false);
        static TURNS_TAKEN: AtomicU32 = AtomicU32::new(0);
        fn alone() {
            assert!(!AT_WORK.swap(true, Ordering::SeqCst), "somebody else is at work");
            TURNS_TAKEN.fetch_add(1, Ordering::SeqCst);
            std::thread::yield_now();
            AT_WORK.store(false, Ordering::SeqCst);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let pieces = (0..4).map(|number| {
                aside(move || {
                    for _ in 0..100 {
                        alone();
                        rest(&mut || std::thread::yield_now());
                    }
                    number
                })
            });
            let pieces: Vec<_> = pieces.map(tokio::spawn).collect();
            let turns = tokio::spawn(async {
                loop {
                    alone();
                    tokio::task::yield_now().await;
                }
            });
            for (number, piece) in pieces.into_iter().enumerate() {
                assert_eq!(piece.await.unwrap(), number);
            }
            turns.abort();
        });
        assert!(TURNS_TAKEN.load(Ordering::SeqCst) > 400);
    }

    /// What waits is waited for beside the loop.
    #[test]
    fn the_event_loop_goes_on_while_one_waits() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut go, wait) = UnixStream::pair().unwrap();
            let piece = tokio::spawn(aside(move || {
                let mut byte = [0];
                rest(&mut || (&wait).read_exact(&mut byte).unwrap());
                byte[0]
            }));
            // It waits for what only this job writes.
            tokio::task::yield_now().await;
            go.write_all(&[7]).unwrap();
            assert_eq!(piece.await.unwrap(), 7);
        });
    }

    #[test]
    fn nobody_need_wait_for_its_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut go, wait) = UnixStream::pair().unwrap();
            let (tell, told) = tokio::sync::oneshot::channel();
            let piece = tokio::spawn(aside(move || {
                rest(&mut || (&wait).read_exact(&mut [0]).unwrap());
                tell.send("done").unwrap();
            }));
            tokio::task::yield_now().await;
            piece.abort();
            assert!(piece.await.unwrap_err().is_cancelled());
            go.write_all(&[1]).unwrap();
            assert_eq!(told.await.unwrap(), "done");
        });
    }

    #[test]
    fn without_a_second_thread_it_waits_here() {
        let mut is_done = false;
        rest(&mut || is_done = true);
        assert!(is_done);
    }
}
