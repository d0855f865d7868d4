//! What a shim prints after `start`: an address (containerd 1.x), JSON (2.0 and 2.1), or a protobuf `BootstrapResult` (2.3).

use std::path::PathBuf;

use berth_proto::bootstrap::BootstrapResult;
use berth_proto::protobuf::Message;
use berth_proto::task::TaskApi;

use crate::ShimError;

/// Where a shim listens, and under which service name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) socket: PathBuf,
    pub(crate) api: TaskApi,
}

#[derive(serde::Deserialize)]
struct JsonAnswer {
    version: i32,
    address: String,
    protocol: String,
}

/// # Errors
/// `Answer` when it is none of the three forms, or asks for a protocol or version we do not speak.
pub(crate) fn parse(answer: &[u8]) -> Result<Endpoint, ShimError> {
    let unclear =
        || ShimError::Answer { answer: String::from_utf8_lossy(answer.get(..200).unwrap_or(answer)).into_owned() };
    let endpoint = |version: i32, address: &str, protocol: &str| {
        let api = TaskApi::from_version(version).filter(|_| protocol == "ttrpc")?;
        let path = address.strip_prefix("unix://").unwrap_or(address);
        path.starts_with('/').then(|| Endpoint { socket: PathBuf::from(path), api })
    };
    if let Ok(json) = serde_json::from_slice::<JsonAnswer>(answer) {
        return endpoint(json.version, &json.address, &json.protocol).ok_or_else(unclear);
    }
    match std::str::from_utf8(answer).map(str::trim) {
        Ok(text) if text.starts_with("unix:///") || text.starts_with('/') => {
            endpoint(2, text, "ttrpc").ok_or_else(unclear)
        }
        _ => {
            let result = BootstrapResult::parse_from_bytes(answer).map_err(|_| unclear())?;
            endpoint(result.version, &result.address, &result.protocol).ok_or_else(unclear)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S-138: the three forms of the answer.
    #[test]
    fn s138_answers() {
        let at = |api| Endpoint { socket: PathBuf::from("/run/x.sock"), api };
        assert_eq!(parse(b"unix:///run/x.sock\n").unwrap(), at(TaskApi::V2));
        let json = br#"{"version":3,"address":"unix:///run/x.sock","protocol":"ttrpc"}"#;
        assert_eq!(parse(json).unwrap(), at(TaskApi::V3));
        let result = BootstrapResult {
            version: 3,
            address: "unix:///run/x.sock".to_owned(),
            protocol: "ttrpc".to_owned(),
            ..Default::default()
        };
        assert_eq!(parse(&result.write_to_bytes().unwrap()).unwrap(), at(TaskApi::V3));
    }

    #[test]
    fn refusals() {
        for bad in [
            &b""[..],
            b"tcp://1.2.3.4:5",
            br#"{"version":3,"address":"unix:///x","protocol":"grpc"}"#,
            br#"{"version":9,"address":"unix:///x","protocol":"ttrpc"}"#,
            b"\xff\xff",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
