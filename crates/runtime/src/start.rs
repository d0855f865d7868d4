//! Start: lets init go on to exec and hears how that went.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use berth_oci::runtime::Hooks;
use berth_types::{Party, Signal, Span};
use rustix::io::Errno;

use crate::channel::{Channel, Message};
use crate::container::{Container, Waiting};
use crate::create::reported;
use crate::error::RuntimeError;
use crate::hooks::{self, HookStage};
use crate::meanwhile::Meanwhile;
use crate::plan::{EXECUTE, Stage, range};
use crate::seccomp::Filter;
use crate::state::{ContainerState, StateDir, Status};
use crate::trace::now_ns;

/// From go to exec: a few calls, and the hooks inside, which have their own limits.
const START_TIMEOUT: Duration = Duration::from_secs(1200);

/// A start under way, apart from its container: hooks may take their time, and the container is asked about meanwhile.
#[derive(Debug)]
pub struct Starting {
    waiting: Waiting,
    state: ContainerState,
    hooks: Option<Hooks>,
    filter: Option<Filter>,
    state_dir: Option<StateDir>,
    meanwhile: Meanwhile,
    warnings: Vec<String>,
    result: Result<(), RuntimeError>,
    /// It runs, and a hook was against it.
    is_unwanted: bool,
}

impl Container {
    /// Lets init exec the user's program. Returns once exec has succeeded or failed.
    ///
    /// # Errors
    /// `FailedPrecondition` when it was started before or has ended; what init reported, see [`RuntimeError::exec_failure`].
    pub fn start(&mut self, spans: &mut Vec<Span>) -> Result<(), RuntimeError> {
        let starting = self.begin_start()?.run(spans);
        self.finish_start(starting)
    }

    /// The first part of [`Container::start`]: from here on it cannot be started again.
    ///
    /// # Errors
    /// `FailedPrecondition` when it was started before or has ended.
    pub fn begin_start(&mut self) -> Result<Starting, RuntimeError> {
        if self.status() == Status::Paused {
            return Err(RuntimeError::State { state: "paused", wanted: "resume it before it is started" });
        }
        let Some(waiting) = self.waiting.take() else {
            return Err(RuntimeError::State {
                state: self.status().text(),
                wanted: "only a created one can be started",
            });
        };
        Ok(Starting {
            waiting,
            state: self.state.clone(),
            hooks: self.hooks.clone(),
            filter: self.filter.clone(),
            state_dir: self.state_dir.clone(),
            meanwhile: if self.hooks.is_some() { self.meanwhile } else { Meanwhile::default() },
            warnings: Vec::new(),
            result: Ok(()),
            is_unwanted: false,
        })
    }

    /// The last part of [`Container::start`].
    ///
    /// # Errors
    /// What init reported, see [`RuntimeError::exec_failure`]; a hook's.
    pub fn finish_start(&mut self, starting: Starting) -> Result<(), RuntimeError> {
        self.warnings.extend(starting.warnings);
        if starting.is_unwanted {
            // runtime-spec runtime, "Lifecycle" 9: the container is stopped; what is left is for delete.
            let _gone_already = self.kill_all(Signal::KILL);
        }
        starting.result
    }
}

impl Starting {
    /// The part that waits: for the exec, and for hooks.
    #[must_use]
    pub fn run(mut self, spans: &mut Vec<Span>) -> Self {
        let begun = now_ns();
        let released = self.release();
        if let Some(directory) = &self.state_dir {
            directory.forget_start();
        }
        match &self.waiting.times {
            Some(times) => times.spans(&self.waiting.steps, range(&self.waiting.steps, Stage::Release), spans),
            None => spans.push(Span {
                party: Party::Runtime,
                name: "start".to_owned(),
                object: String::new(),
                start_ns: begun,
                duration_ns: now_ns().saturating_sub(begun),
            }),
        }
        self.result = released.and_then(|()| {
            let mut state = self.state.clone();
            state.status = Status::Running;
            let hooked = hooks::run(HookStage::Poststart, self.hooks.as_ref(), &state.to_json(), &[], self.meanwhile);
            self.is_unwanted = hooked.is_err();
            hooked
        });
        self
    }

    fn release(&mut self) -> Result<(), RuntimeError> {
        let connected;
        let channel = match (&self.waiting.channel, &self.state_dir) {
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
        await_exec(channel, &self.waiting, self.meanwhile, hand_over, &mut self.warnings)
    }
}

/// Sends go and reads until the channel closes: by exec, or by death.
pub(crate) fn await_exec(
    channel: &Channel,
    waiting: &Waiting,
    meanwhile: Meanwhile,
    hand_over: impl Fn(OwnedFd) -> Result<(), RuntimeError>,
    warnings: &mut Vec<String>,
) -> Result<(), RuntimeError> {
    match channel.send(&Message::Go) {
        Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => {}
        Err(source) => return Err(RuntimeError::Kernel { what: "speak to the container's init", source }),
    }
    loop {
        let kernel = |source| RuntimeError::Kernel { what: "hear from the container's init", source };
        match channel.receive_by(START_TIMEOUT, meanwhile).map_err(kernel)? {
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
