//! The caller's steps while init is there, and its side of their talk.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{Creation, INIT_TIMEOUT, errno_of, failed, reported, write_oom_score};
use crate::channel::Message;
use crate::error::RuntimeError;
use crate::hooks;
use crate::id_map::write_proc;
use crate::meanwhile::Meanwhile;
use crate::net_devices::{Mover, NetDevice};
use crate::options::Rights;
use crate::plan::{Action, Stage, Step};

impl Creation<'_> {
    /// Serves init until it is ready.
    pub(super) fn attend(&mut self) -> Result<(), RuntimeError> {
        self.attend_to(|action| {
            use Action::{MapIds, OutsideHooks, TakeNetDevice, WriteClocks};
            !matches!(action, MapIds | WriteClocks(_) | TakeNetDevice(_) | OutsideHooks(_))
        })?;
        loop {
            match self.receive()? {
                Message::AwaitsMappings => {
                    self.attend_to(|action| matches!(action, Action::MapIds))?;
                    self.send_go()?;
                }
                Message::AwaitsDevices => {
                    self.attend_to(|action| matches!(action, Action::TakeNetDevice(_)))?;
                    self.send_go()?;
                }
                Message::AwaitsClocks => {
                    self.attend_to(|action| matches!(action, Action::WriteClocks(_)))?;
                    self.send_go()?;
                }
                Message::AwaitsIdMap { slot, mount } => {
                    self.map_ids_of(slot, &mount)?;
                    self.send_go()?;
                }
                Message::AwaitsHooks => {
                    self.attend_to(|action| matches!(action, Action::OutsideHooks(_)))?;
                    self.send_go()?;
                }
                Message::Console(master) => self.console = Some(master),
                Message::Warning(text) => self.warnings.push(text),
                Message::Failed(report) => return Err(reported(report)),
                Message::Ready => return Ok(()),
                Message::Go | Message::End | Message::Listener(_) | Message::Child(_) => {
                    return Err(RuntimeError::InitDied { step: self.times.current(&self.plan.steps) });
                }
            }
        }
    }

    pub(super) fn attend_to(&mut self, wanted: impl Fn(&Action) -> bool) -> Result<(), RuntimeError> {
        for index in self.plan.range(Stage::Attend) {
            if self.plan.steps.get(index).is_some_and(|step| wanted(&step.action)) {
                self.walk(index)?;
            }
        }
        Ok(())
    }

    pub(super) fn receive(&self) -> Result<Message, RuntimeError> {
        let kernel = |source| RuntimeError::Kernel { what: "hear from the container's init", source };
        let has_hooks = self.spec.hooks().is_some();
        let timeout = if has_hooks { INIT_TIMEOUT * 10 } else { INIT_TIMEOUT };
        // Hooks inside are init's to wait for.
        let meanwhile = if has_hooks { self.options.tuning.meanwhile } else { Meanwhile::default() };
        let received = self.channel.as_ref().map_or(Ok(Message::End), |channel| channel.receive_by(timeout, meanwhile));
        received.map_err(kernel)
    }

    pub(super) fn send_go(&self) -> Result<(), RuntimeError> {
        // If init is gone, the next message says so.
        match self.channel.as_ref().map_or(Ok(()), |channel| channel.send(&Message::Go)) {
            Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(source) => Err(RuntimeError::Kernel { what: "speak to the container's init", source }),
        }
    }

    /// Steps while init is there.
    pub(super) fn apply_attending(&mut self, step: &Step, action: &Action) -> Result<(), RuntimeError> {
        let pid = self.state.pid;
        match action {
            Action::MapIds if self.options.tuning.rights == Rights::Ordinary => {
                self.plan.id_maps.write_as_user(pid).map_err(|(errno, what)| failed(step, &what, errno))
            }
            Action::MapIds => self.plan.id_maps.write(pid).map_err(|(errno, file)| failed(step, file, errno)),
            Action::CompareMaps => self.plan.id_maps.compare(pid).map_err(|(errno, what)| failed(step, what, errno)),
            Action::WriteClocks(offsets) => {
                write_proc(pid, "timens_offsets", offsets.as_bytes()).map_err(|errno| failed(step, "", errno))
            }
            Action::JoinRdtGroup => {
                let joined = self.rdt.as_ref().map_or(Ok(()), |group| group.add(pid));
                joined.map_err(|error| failed(step, "", errno_of(&error)))
            }
            Action::TakeNetDevice(device) => self.take_net_device(step, device),
            Action::RaiseLimit(limit) => self.raise_limit(*limit),
            Action::SetOomScore(score) => self.set_oom_score(step, *score),
            Action::OutsideHooks(stage) => {
                self.has_begun_hooks = true;
                let meanwhile = self.options.tuning.meanwhile;
                hooks::run(*stage, self.spec.hooks().as_ref(), &self.state.to_json(), &[], meanwhile)
            }
            _ => Err(failed(step, "this step is not for the caller", Errno::INVAL)),
        }
    }

    pub(super) fn take_net_device(&mut self, step: &Step, device: &NetDevice) -> Result<(), RuntimeError> {
        let failed = |errno: Errno| {
            let detail = match errno {
                Errno::NODEV => "the host has no interface of this name",
                Errno::EXIST => "the container has an interface of this name already",
                _ => "",
            };
            failed(step, detail, errno)
        };
        if self.mover.is_none() {
            let net_ns = match self.net_ns.take() {
                Some(joined) => joined,
                None => {
                    let path = format!("/proc/{}/ns/net", self.state.pid);
                    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?
                }
            };
            self.mover = Some(Mover::new(net_ns).map_err(failed)?);
        }
        self.mover.as_mut().map_or(Ok(()), |mover| mover.take(device)).map_err(failed)
    }

    pub(super) fn raise_limit(&self, index: usize) -> Result<(), RuntimeError> {
        let Some(limit) = self.plan.process.limits.get(index) else { return Ok(()) };
        let pid = i32::try_from(self.state.pid).ok().and_then(rustix::process::Pid::from_raw);
        let now = rustix::process::getrlimit(limit.resource);
        if limit.hard <= now.maximum.unwrap_or(u64::MAX) {
            return Ok(());
        }
        let hard = (limit.hard != u64::MAX).then_some(limit.hard);
        let wanted = rustix::process::Rlimit { current: now.current, maximum: hard };
        // Not being allowed to is init's to report: it takes what it can get.
        match rustix::process::prlimit(pid, limit.resource, wanted) {
            Ok(_) | Err(Errno::PERM) => Ok(()),
            Err(source) => Err(RuntimeError::Kernel { what: "raise a limit of the container's init", source }),
        }
    }

    pub(super) fn set_oom_score(&mut self, step: &Step, score: i32) -> Result<(), RuntimeError> {
        match write_oom_score(self.state.pid, score) {
            Ok(warning) => {
                self.warnings.extend(warning);
                Ok(())
            }
            Err(errno) => Err(failed(step, "", errno)),
        }
    }
}
