//! The start conversation in its three forms: which one the caller speaks, and the answer it understands.
//!
//! containerd 2.3 writes `BootstrapParams` to stdin and reads `BootstrapResult`. Older ones write nothing, or their runtime
//! options as `Any`, whose first two fields can be taken for a name pair: so the message counts only when it names the same
//! id and namespace as the flags.

use std::io::{self, Read};
use std::os::fd::AsFd;

use berth_proto::bootstrap::{BootstrapParams, BootstrapResult};
use berth_proto::introspection::{RuntimeInfo, RuntimeVersion};
use berth_proto::protobuf::{Message, MessageField};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::FileType;

use crate::{Invocation, ShimError};

const INPUT_BYTES_MAX: usize = 1 << 20;
/// The writer is the process that executes us; it writes at once or never.
const INPUT_TIMEOUT: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// The form of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `unix:///path`
    Address,
    /// `{"version":N,"address":..,"protocol":"ttrpc"}`
    Json { version: u8 },
    /// `BootstrapResult`
    Message,
}

/// What the caller told us beyond the flags.
#[derive(Debug, Default)]
pub(crate) struct Params {
    pub(crate) is_message: bool,
    pub(crate) events_address: Option<String>,
    pub(crate) socket_dir: Option<String>,
}

/// Reads stdin if something can come from there. A terminal or a device (`/dev/null`) is left alone.
pub(crate) fn read_params(invocation: &Invocation, stdin: impl AsFd + Read) -> Result<Params, ShimError> {
    let bytes = read_bounded(stdin).map_err(|source| ShimError::Bootstrap { source })?;
    Ok(parse_params(&bytes, invocation))
}

fn parse_params(bytes: &[u8], invocation: &Invocation) -> Params {
    match BootstrapParams::parse_from_bytes(bytes) {
        Ok(params) if params.instance_id == invocation.id && params.namespace == invocation.namespace => Params {
            is_message: true,
            events_address: Some(params.containerd_ttrpc_address).filter(|address| !address.is_empty()),
            socket_dir: params.socket_dir.filter(|dir| !dir.is_empty()),
        },
        _ => Params::default(),
    }
}

fn read_bounded(mut stdin: impl AsFd + Read) -> io::Result<Vec<u8>> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(stdin.as_fd())?.st_mode);
    if !matches!(kind, FileType::Fifo | FileType::Socket | FileType::RegularFile) {
        return Ok(Vec::new());
    }
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if rustix::event::poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&INPUT_TIMEOUT))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let read = stdin.read(&mut piece)?;
        if read == 0 {
            return Ok(bytes);
        }
        bytes.extend_from_slice(piece.get(..read).unwrap_or_default());
        if bytes.len() > INPUT_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
}

/// The newest form that the caller understands.
pub(crate) fn form(params: &Params, shim_version_max: Option<&str>) -> Form {
    match shim_version_max.and_then(|text| text.parse::<u8>().ok()) {
        _ if params.is_message => Form::Message,
        Some(version @ 3..) => Form::Json { version: version.min(3) },
        Some(2) => Form::Json { version: 2 },
        _ => Form::Address,
    }
}

pub(crate) fn answer(form: Form, socket: &str) -> Vec<u8> {
    let address = format!("unix://{socket}");
    match form {
        Form::Address => address.into_bytes(),
        // A socket path of ours holds nothing that JSON escapes.
        Form::Json { version } => {
            format!(r#"{{"version":{version},"address":"{address}","protocol":"ttrpc"}}"#).into_bytes()
        }
        Form::Message => {
            let result = BootstrapResult { version: 3, address, protocol: "ttrpc".to_owned(), ..Default::default() };
            result.write_to_bytes().unwrap_or_default()
        }
    }
}

/// `RuntimeInfo` for `-info`.
pub(crate) fn info() -> Vec<u8> {
    let version = RuntimeVersion { version: env!("CARGO_PKG_VERSION").to_owned(), ..Default::default() };
    let info = RuntimeInfo {
        name: berth_shim_client::OWN_RUNTIME.to_owned(),
        version: MessageField::some(version),
        ..Default::default()
    };
    info.write_to_bytes().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Environment;

    fn invocation() -> Invocation {
        let line = "-namespace default -id abc start".split(' ').map(str::to_owned);
        Invocation::parse(line, Environment::default()).unwrap()
    }

    /// S-138: the three forms are told apart, a stray `Any` on stdin included.
    #[test]
    fn s138_forms() {
        let message = BootstrapParams {
            instance_id: "abc".to_owned(),
            namespace: "default".to_owned(),
            containerd_ttrpc_address: "/run/c.ttrpc".to_owned(),
            ..Default::default()
        };
        let params = parse_params(&message.write_to_bytes().unwrap(), &invocation());
        assert_eq!(params.events_address.as_deref(), Some("/run/c.ttrpc"));
        assert_eq!(form(&params, Some("3")), Form::Message);
        let any = berth_proto::pack_as("containerd.runc.v1.Options", b"x".to_vec()).write_to_bytes().unwrap();
        let params = parse_params(&any, &invocation());
        assert_eq!(form(&params, Some("3")), Form::Json { version: 3 });
        assert_eq!(form(&params, Some("2")), Form::Json { version: 2 });
        assert_eq!(form(&params, None), Form::Address);
    }

    #[test]
    fn stdin_is_read_to_its_end_or_left_alone() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        io::Write::write_all(&mut writer, b"abc").unwrap();
        drop(writer);
        assert_eq!(read_bounded(reader).unwrap(), b"abc");
        assert_eq!(read_bounded(std::fs::File::open("/dev/null").unwrap()).unwrap(), b"");
    }

    #[test]
    fn answers() {
        assert_eq!(answer(Form::Address, "/s"), b"unix:///s");
        let json: serde_json::Value = serde_json::from_slice(&answer(Form::Json { version: 3 }, "/s")).unwrap();
        assert_eq!(json, serde_json::json!({"version": 3, "address": "unix:///s", "protocol": "ttrpc"}));
    }
}
