//! Checkpoint: criu (criu.org) writes a task's processes into a directory. What criu needs of minutes and of waiting happens in a process of
//! its own, so other tasks of the pod and everybody's output go on meanwhile.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_oci::runtime::Spec;
use berth_proto::protobuf::CodedInputStream;
use berth_proto::protobuf::rt::skip_field_for_tag;
use berth_proto::protobuf::well_known_types::any::Any;
use berth_runtime::{Checkpoint, CriuOptions, CriuSwitches};
use berth_shim_client::find_executable;
use berth_sys::clone::{CloneArgs, clone_child};
use berth_types::{Classify as _, ErrorClass};

use super::create::CONFIG_BYTES_MAX;
use super::machine::Machine;
use super::{Shim, read_bounded, runtime};
use crate::error::TaskError;
use crate::process::Status;
use crate::reaper;

const TYPE: &str = "containerd.runc.v1.CheckpointOptions";
const OPERATION: &str = "save";
const COMPLAINT_BYTES_MAX: u64 = 16 << 10;

/// What a client asks for, by `CheckpointOptions` of runc's shim.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct CheckpointOptions {
    pub(super) exits: bool,
    pub(super) open_tcp: bool,
    pub(super) external_unix_sockets: bool,
    pub(super) terminal: bool,
    pub(super) file_locks: bool,
    pub(super) work: Option<PathBuf>,
}

impl CheckpointOptions {
    /// # Errors
    /// `InvalidArgument` for options that cannot be read, `Unimplemented` for what would be ignored.
    fn from_wire(any: Option<&Any>) -> Result<Self, TaskError> {
        let Some(any) = any.filter(|any| !any.value.is_empty()) else { return Ok(Self::default()) };
        if any.type_url.rsplit('/').next() != Some(TYPE) {
            return Err(TaskError::Argument { what: "type of the checkpoint's options", value: any.type_url.clone() });
        }
        Self::parse(&any.value)
            .map_err(|error| TaskError::Argument { what: "checkpoint options", value: error.to_string() })?
    }

    /// As runc's command line has them.
    fn flags(&self) -> Vec<String> {
        let switches = [
            ("--leave-running", !self.exits),
            ("--tcp-established", self.open_tcp),
            ("--ext-unix-sk", self.external_unix_sockets),
            ("--shell-job", self.terminal),
            ("--file-locks", self.file_locks),
        ];
        let work = self.work.iter().flat_map(|path| ["--work-path".to_owned(), path.display().to_string()]);
        switches.into_iter().filter(|(_, is_on)| *is_on).map(|(flag, _)| flag.to_owned()).chain(work).collect()
    }

    /// By hand, as [`super::Options`].
    fn parse(value: &[u8]) -> berth_proto::protobuf::Result<Result<Self, TaskError>> {
        const EMPTY_NAMESPACES: u32 = 6 << 3 | 2;
        const CGROUPS_MODE: u32 = 7 << 3 | 2;
        const WORK_PATH: u32 = 9 << 3 | 2;
        let mut options = Self::default();
        let mut stream = CodedInputStream::from_bytes(value);
        while let Some(tag) = stream.read_raw_tag_or_eof()? {
            match tag {
                0x08 => options.exits = stream.read_bool()?,
                0x10 => options.open_tcp = stream.read_bool()?,
                0x18 => options.external_unix_sockets = stream.read_bool()?,
                0x20 => options.terminal = stream.read_bool()?,
                0x28 => options.file_locks = stream.read_bool()?,
                EMPTY_NAMESPACES => {
                    return Ok(Err(TaskError::Unimplemented { what: "a checkpoint with empty namespaces" }));
                }
                CGROUPS_MODE => match stream.read_string()?.as_str() {
                    // Cgroups are ours, and made again by us.
                    "" | "ignore" => {}
                    _ => return Ok(Err(TaskError::Unimplemented { what: "a checkpoint of cgroups (cgroups_mode)" })),
                },
                WORK_PATH => {
                    options.work = Some(stream.read_string()?.into()).filter(|path: &PathBuf| path.is_absolute())
                }
                other => skip_field_for_tag(other, &mut stream)?,
            }
        }
        Ok(Ok(options))
    }
}

impl Shim {
    /// Returns when the images are written; with `exits` the processes have ended by then.
    pub(crate) async fn checkpoint(
        self: &Arc<Self>,
        id: &str,
        images: &Path,
        wire: Option<Any>,
    ) -> Result<(), TaskError> {
        let images_named = !images.as_os_str().is_empty() && images.is_absolute();
        if !images_named {
            let value = images.display().to_string();
            return Err(TaskError::Argument { what: "directory of a checkpoint", value });
        }
        if let Some(relay) = self.relay(id)? {
            return relay.checkpoint(images, wire).await;
        }
        let options = CheckpointOptions::from_wire(wire.as_ref())?;
        let _turn = self.saving.lock().await;
        let bundle = self.bundle(id)?;
        self.expect_alive(id)?;
        let command = self.with(id, |task| Ok(task.machine.command()))?;
        if let Some(command) = command {
            let flags = options.flags();
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            let saved = command.checkpoint(images, &flags).await;
            return saved.map_err(|source| super::machine::command(OPERATION, source));
        }
        let json = read_bounded(&bundle.join("config.json"), CONFIG_BYTES_MAX)?;
        let spec = berth_oci::document::spec(&json)
            .map_err(|source| TaskError::Document { what: "config.json", source })?
            .document;
        let criu = CriuOptions {
            program: find_executable(Path::new("criu"), &self.surroundings.search)
                .ok_or_else(|| TaskError::NoCriu { search: self.surroundings.search.clone() })?,
            images: images.to_owned(),
            work: options.work.clone(),
            switches: CriuSwitches {
                tcp_established: options.open_tcp,
                ext_unix_sk: options.external_unix_sockets,
                shell_job: options.terminal,
                file_locks: options.file_locks,
                ..CriuSwitches::default()
            },
        };
        let kind = if options.exits { Checkpoint::Stop } else { Checkpoint::LeaveRunning };
        self.save(id, &spec, &criu, kind).await
    }

    fn expect_alive(&self, id: &str) -> Result<(), TaskError> {
        match self.process(id, "")?.status() {
            Status::Running => Ok(()),
            other => Err(TaskError::State { operation: OPERATION, state: other.name() }),
        }
    }

    /// In a child, which has the container's descriptors as we have; its words come back through a file in memory.
    async fn save(&self, id: &str, spec: &Spec, criu: &CriuOptions, kind: Checkpoint) -> Result<(), TaskError> {
        let failed = |errno: rustix::io::Errno| TaskError::Helper { operation: OPERATION, source: errno.into() };
        let _hold = self.holds.hold();
        let mut words: std::fs::File =
            rustix::fs::memfd_create("words", rustix::fs::MemfdFlags::CLOEXEC).map_err(failed)?.into();
        let child = self.with(id, |task| {
            let Machine::Own(container) = &task.machine else {
                return Err(TaskError::Unimplemented { what: "saving what another runtime made" });
            };
            let act = || match container.checkpoint(spec, criu, kind, None) {
                Ok(()) => 0,
                Err(error) => {
                    let code = if error.class() == ErrorClass::Unimplemented { UNABLE } else { FAILED };
                    let text = berth_types::report(&runtime(OPERATION, error));
                    rustix::io::write(&words, text.as_bytes()).map_or(FAILED, |_| code)
                }
            };
            clone_child(&CloneArgs::default(), act).map_err(failed)
        })?;

        let exited = reaper::follow(&child.pidfd).map_err(|source| TaskError::Watch { pid: child.pid, source })?;
        let code = exited.await.code;
        if code == 0 {
            return Ok(());
        }
        let mut text = String::new();
        let read =
            words.seek(SeekFrom::Start(0)).and_then(|_| words.take(COMPLAINT_BYTES_MAX).read_to_string(&mut text));
        if read.is_err() || text.is_empty() {
            text = format!("its helper ended with {code}");
        }
        let class = if code == u32::from(UNABLE) { ErrorClass::Unimplemented } else { ErrorClass::Internal };
        Err(TaskError::Checkpoint { class, text })
    }
}

/// How the child ends.
const FAILED: u8 = 1;
const UNABLE: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_obeyed_or_refused() {
        let parse = |value: &[u8]| CheckpointOptions::from_wire(Some(&berth_proto::pack_as(TYPE, value.to_vec())));
        let options =
            parse(&[8, 1, 0x10, 1, 0x3a, 6, b'i', b'g', b'n', b'o', b'r', b'e', 0x4a, 2, b'/', b'w']).unwrap();
        assert!(options.exits && options.open_tcp && !options.terminal);
        assert_eq!(options.work.as_deref(), Some(Path::new("/w")));
        assert_eq!(parse(&[]).unwrap(), CheckpointOptions::default());
        for refused in [&[0x32, 3, b'n', b'e', b't'][..], &[0x3a, 4, b's', b'o', b'f', b't']] {
            assert_eq!(parse(refused).unwrap_err().class(), ErrorClass::Unimplemented);
        }
        assert_eq!(parse(&[0x08]).unwrap_err().class(), ErrorClass::InvalidArgument);
        let other = berth_proto::pack_as("other.Options", vec![1]);
        assert!(CheckpointOptions::from_wire(Some(&other)).is_err());
    }
}
