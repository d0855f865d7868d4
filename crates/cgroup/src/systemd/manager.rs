//! systemd's manager over D-Bus: the few calls we need, and waiting for what they start.
//!
//! ```text
//! StartTransientUnit(name, mode, properties, []) -> job      signal JobRemoved(id, job, unit, result)
//! SetUnitProperties(name, runtime, properties)
//! StopUnit(name, mode) -> job                                 signal JobRemoved(…)
//! ```
//!
//! # Spec
//! org.freedesktop.systemd1(5).

use std::fmt::Write as _;
use std::time::Duration;

use crate::dbus::{Call, Connection, DbusError, Message};
use crate::error::CgroupError;

use super::Instance;
use super::property::Property;

const SERVICE: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PATH: &str = "/org/freedesktop/systemd1";
pub(super) const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
pub(super) const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const JOB_REMOVED: &str = "JobRemoved";
const RULE: &str =
    "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

#[derive(Debug)]
pub(crate) struct Manager {
    connection: Connection,
}

impl Manager {
    /// systemd's own socket where we are let in, else the bus. All that is asked of it shares one timeout.
    pub(crate) fn connect(instance: &Instance, timeout: Duration) -> Result<Self, DbusError> {
        if let Ok(connection) = Connection::direct(&instance.own_socket(), JOB_REMOVED, timeout) {
            return Ok(Self { connection });
        }
        let mut connection = Connection::bus(&instance.bus_socket(), JOB_REMOVED, timeout)?;
        connection.add_match(RULE)?;
        let mut this = Self { connection };
        // systemd sends signals to a bus only while somebody there has asked for them.
        this.call("Subscribe", "", |_| ())?;
        Ok(this)
    }

    /// systemd's version: 257 of `257.13-1~deb13u1`.
    pub(crate) fn version(&mut self) -> Result<u32, DbusError> {
        let text = self.property(PATH, MANAGER, "Version")?;
        let digits: String = text.trim_start_matches('v').chars().take_while(char::is_ascii_digit).collect();
        digits.parse().map_err(|_| self.connection.malformed("its version is not a number"))
    }

    /// Starts a transient unit and waits until it is there.
    pub(crate) fn start(&mut self, name: &str, properties: &[Property]) -> Result<(), CgroupError> {
        let fail = |source| CgroupError::Systemd { what: "start", unit: name.to_owned(), source };
        let started = self.call("StartTransientUnit", "ssa(sv)a(sa(sv))", |body| {
            body.text(name);
            body.text("replace");
            body.properties(properties);
            body.array(8, &[(); 0], |_, ()| ());
        });
        self.finish("start", name, &started.map_err(fail)?)
    }

    /// Changes properties until the unit ends.
    pub(crate) fn set(&mut self, name: &str, properties: &[Property]) -> Result<(), CgroupError> {
        self.call("SetUnitProperties", "sba(sv)", |body| {
            body.text(name);
            body.bool(true);
            body.properties(properties);
        })
        .map(drop)
        .map_err(|source| CgroupError::Systemd { what: "change", unit: name.to_owned(), source })
    }

    /// Stops a unit and waits until it is gone; one that is not there is fine.
    pub(crate) fn stop(&mut self, name: &str) -> Result<(), CgroupError> {
        let stopped = self.call("StopUnit", "ss", |body| {
            body.text(name);
            body.text("replace");
        });
        match stopped {
            Ok(job) => self.finish("stop", name, &job),
            Err(error) if error.is(NO_SUCH_UNIT) => Ok(()),
            Err(source) => Err(CgroupError::Systemd { what: "stop", unit: name.to_owned(), source }),
        }
    }

    /// Lets systemd forget a unit that failed earlier.
    pub(crate) fn reset_failed(&mut self, name: &str) -> Result<(), DbusError> {
        self.call("ResetFailedUnit", "s", |body| body.text(name)).map(drop)
    }

    /// Moves a process into a running scope, for callers that may not do it themselves (rootless).
    pub(crate) fn attach(&mut self, name: &str, pid: u32) -> Result<(), DbusError> {
        self.call("AttachProcessesToUnit", "ssau", |body| {
            body.text(name);
            body.text("");
            body.array(4, &[pid], |body, pid| body.u32(*pid));
        })
        .map(drop)
    }

    /// Where the unit's processes are, from the root of the hierarchy.
    pub(crate) fn control_group(&mut self, name: &str) -> Result<String, CgroupError> {
        let fail = |source| CgroupError::Systemd { what: "find", unit: name.to_owned(), source };
        let path = format!("{PATH}/unit/{}", label(name));
        let found = self.property(&path, "org.freedesktop.systemd1.Scope", "ControlGroup").map_err(fail)?;
        if found.starts_with('/') && found.ends_with(name) {
            return Ok(found);
        }
        Err(CgroupError::Job { what: "start", unit: name.to_owned(), result: "no control group".to_owned() })
    }

    fn property(&mut self, path: &str, interface: &str, name: &str) -> Result<String, DbusError> {
        let call = Call {
            destination: SERVICE,
            path,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
            signature: "ss",
        };
        let reply = self.connection.call(&call, |body| {
            body.text(interface);
            body.text(name);
        })?;
        let mut body = reply.body();
        let text = body.signature().filter(|kind| *kind == "s").and_then(|_| body.text()).map(str::to_owned);
        text.ok_or_else(|| self.connection.malformed("a property is not a text"))
    }

    fn call(
        &mut self,
        member: &'static str,
        signature: &'static str,
        body: impl FnOnce(&mut crate::dbus::Encoder),
    ) -> Result<Message, DbusError> {
        self.connection.call(&Call { destination: SERVICE, path: PATH, interface: MANAGER, member, signature }, body)
    }

    /// Waits for the end of the job in a reply.
    fn finish(&mut self, what: &'static str, unit: &str, reply: &Message) -> Result<(), CgroupError> {
        let fail = |source| CgroupError::Systemd { what, unit: unit.to_owned(), source };
        let job = reply.body().text().ok_or_else(|| fail(self.connection.malformed("a job has no path")))?.to_owned();
        let awaited = format!("its job to {what} {unit}");
        loop {
            let signal = self.connection.next_signal(&awaited).map_err(fail)?;
            let mut body = signal.body();
            let (_id, removed, _unit, result) = (body.u32(), body.text(), body.text(), body.text());
            if removed != Some(job.as_str()) {
                continue;
            }
            return match result {
                Some("done" | "skipped") => Ok(()),
                result => {
                    let result = result.unwrap_or("unknown").to_owned();
                    Err(CgroupError::Job { what, unit: unit.to_owned(), result })
                }
            };
        }
    }
}

/// A name as one label of an object path: all but letters and digits as `_xx`, also a digit in front.
pub(super) fn label(name: &str) -> String {
    name.bytes().enumerate().fold(String::new(), |mut label, (at, byte)| {
        if byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit()) {
            label.push(char::from(byte));
        } else {
            write!(label, "_{byte:02x}").expect("a String takes everything");
        }
        label
    })
}
