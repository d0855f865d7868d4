//! Start: lets init go on to exec and hears how that went.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use berth_types::{Party, Signal, Span};
use rustix::io::Errno;

use crate::channel::{Channel, Message};
use crate::container::{Container, Waiting};
use crate::create::reported;
use crate::error::RuntimeError;
use crate::hooks::{self, HookStage};
use crate::plan::{EXECUTE, Stage, range};
use crate::seccomp::Filter;
use crate::state::Status;
use crate::trace::now_ns;

/// From go to exec: a few calls, and the hooks inside, which have their own limits.
const START_TIMEOUT: Duration = Duration::from_secs(1200);

impl Container {
    /// Lets init exec the user's program. Returns once exec has succeeded or failed.
    ///
    /// # Errors
    /// `FailedPrecondition` when it was started before or has ended; what init reported, see [`RuntimeError::exec_failure`].
    pub fn start(&mut self, spans: &mut Vec<Span>) -> Result<(), RuntimeError> {
        if self.status() == Status::Paused {
            return Err(RuntimeError::State { state: "paused", wanted: "resume it before it is started" });
        }
        let Some(waiting) = self.waiting.take() else {
            return Err(RuntimeError::State {
                state: self.status().text(),
                wanted: "only a created one can be started",
            });
        };
        let begun = now_ns();
        let result = self.release(&waiting);
        if let Some(directory) = &self.state_dir {
            directory.forget_start();
        }
        match &waiting.times {
            Some(times) => times.spans(&waiting.steps, range(&waiting.steps, Stage::Release), spans),
            None => spans.push(Span {
                party: Party::Runtime,
                name: "start".to_owned(),
                object: String::new(),
                start_ns: begun,
                duration_ns: now_ns().saturating_sub(begun),
            }),
        }
        result?;
        let mut state = self.state.clone();
        state.status = Status::Running;
        let hooked = hooks::run(HookStage::Poststart, self.hooks.as_ref(), &state.to_json());
        if hooked.is_err() {
            // runtime-spec runtime, "Lifecycle" 9: the container is stopped; what is left is for delete.
            let _gone_already = self.kill_all(Signal::KILL);
        }
        hooked
    }

    fn release(&mut self, waiting: &Waiting) -> Result<(), RuntimeError> {
        let connected;
        let channel = match (&waiting.channel, &self.state_dir) {
            // Init left this channel for the socket of its state directory, where one was given.
            (_, Some(directory)) => {
                let kernel = |source| RuntimeError::Kernel { what: "reach the waiting init", source };
                connected = Channel::from_fd(directory.connect().map_err(kernel)?);
                &connected
            }
            (Some(channel), None) => channel,
            (None, None) => return Err(RuntimeError::InitDied { step: "wait".to_owned() }),
        };
        let mut state = self.state.clone();
        state.status = Status::Created;
        let hand_over = |listener: OwnedFd| {
            let filter = match (&self.filter, &self.state_dir) {
                (None, Some(directory)) => directory.load_filter()?,
                (filter, _) => filter.clone(),
            };
            match filter.as_ref().and_then(Filter::agent) {
                Some(agent) => agent.hand_over(listener.as_fd(), state.pid, &state),
                None => Ok(()),
            }
        };
        await_exec(channel, waiting, hand_over, &mut self.warnings)
    }
}

/// Sends go and reads until the channel closes: by exec, or by death.
pub(crate) fn await_exec(
    channel: &Channel,
    waiting: &Waiting,
    hand_over: impl Fn(OwnedFd) -> Result<(), RuntimeError>,
    warnings: &mut Vec<String>,
) -> Result<(), RuntimeError> {
    match channel.send(&Message::Go) {
        Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => {}
        Err(source) => return Err(RuntimeError::Kernel { what: "speak to the container's init", source }),
    }
    loop {
        let kernel = |source| RuntimeError::Kernel { what: "hear from the container's init", source };
        match channel.receive(Some(START_TIMEOUT)).map_err(kernel)? {
            Message::Warning(text) => warnings.push(text),
            Message::Listener(listener) => {
                hand_over(listener)?;
                // If init is gone, the next message says so.
                let _gone = channel.send(&Message::Go);
            }
            Message::Failed(report) => return Err(reported(report)),
            Message::End => break,
            _ => {}
        }
    }
    // The socket also closes when init is killed on the way: then its last step is not the execution.
    match &waiting.times {
        Some(times) if !times.has_begun(&waiting.steps, EXECUTE) => {
            Err(RuntimeError::InitDied { step: times.current(&waiting.steps) })
        }
        _ => Ok(()),
    }
}
