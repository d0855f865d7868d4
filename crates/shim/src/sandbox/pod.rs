//! What of Kubernetes' `PodSandboxConfig` (`runtime.v1`, CRI api.proto) concerns the namespaces of a pod. Its name, labels and files are the caller's.

use std::collections::BTreeMap;

use berth_proto::protobuf::rt::skip_field_for_tag;
use berth_proto::protobuf::{CodedInputStream, Result};

/// `NamespaceMode` NODE: the host's.
const NODE: i32 = 2;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PodConfig {
    pub(super) hostname: String,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) cgroup_parent: String,
    pub(super) sysctls: BTreeMap<String, String>,
    pub(super) host_network: bool,
    pub(super) host_pid: bool,
    pub(super) host_ipc: bool,
    /// A user namespace of its own is asked for.
    pub(super) wants_user_ns: bool,
}

const fn message(field: u32) -> u32 {
    field << 3 | 2
}

const fn number(field: u32) -> u32 {
    field << 3
}

/// Walks one message; `take` tells whether a field was its.
fn fields(bytes: &[u8], mut take: impl FnMut(u32, &mut CodedInputStream<'_>) -> Result<bool>) -> Result<()> {
    let mut stream = CodedInputStream::from_bytes(bytes);
    while let Some(tag) = stream.read_raw_tag_or_eof()? {
        if !take(tag, &mut stream)? {
            skip_field_for_tag(tag, &mut stream)?;
        }
    }
    Ok(())
}

impl PodConfig {
    /// By hand: the generated code of the CRI would double the shim.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let mut pod = Self::default();
        fields(bytes, |tag, stream| {
            match tag {
                _ if tag == message(2) => pod.hostname = stream.read_string()?,
                _ if tag == message(7) => pod.annotations.extend(entry(&stream.read_bytes()?)?),
                _ if tag == message(8) => pod.parse_linux(&stream.read_bytes()?)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(pod)
    }

    fn parse_linux(&mut self, bytes: &[u8]) -> Result<()> {
        fields(bytes, |tag, stream| {
            match tag {
                _ if tag == message(1) => self.cgroup_parent = stream.read_string()?,
                _ if tag == message(2) => self.parse_security(&stream.read_bytes()?)?,
                _ if tag == message(3) => self.sysctls.extend(entry(&stream.read_bytes()?)?),
                _ => return Ok(false),
            }
            Ok(true)
        })
    }

    fn parse_security(&mut self, bytes: &[u8]) -> Result<()> {
        fields(bytes, |tag, stream| {
            if tag != message(1) {
                return Ok(false);
            }
            self.parse_namespaces(&stream.read_bytes()?)?;
            Ok(true)
        })
    }

    fn parse_namespaces(&mut self, bytes: &[u8]) -> Result<()> {
        fields(bytes, |tag, stream| {
            match tag {
                _ if tag == number(1) => self.host_network = stream.read_int32()? == NODE,
                _ if tag == number(2) => self.host_pid = stream.read_int32()? == NODE,
                _ if tag == number(3) => self.host_ipc = stream.read_int32()? == NODE,
                _ if tag == message(5) => self.wants_user_ns = mode(&stream.read_bytes()?)? != NODE,
                _ => return Ok(false),
            }
            Ok(true)
        })
    }
}

fn mode(bytes: &[u8]) -> Result<i32> {
    let mut mode = 0;
    fields(bytes, |tag, stream| {
        if tag != number(1) {
            return Ok(false);
        }
        mode = stream.read_int32()?;
        Ok(true)
    })?;
    Ok(mode)
}

/// One of a map.
fn entry(bytes: &[u8]) -> Result<Option<(String, String)>> {
    let (mut key, mut value) = (String::new(), String::new());
    fields(bytes, |tag, stream| {
        match tag {
            _ if tag == message(1) => key = stream.read_string()?,
            _ if tag == message(2) => value = stream.read_string()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Some((key, value)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A field that holds bytes.
    pub(in super::super) fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    fn pair(key: &str, value: &str) -> Vec<u8> {
        [field(1, key.as_bytes()), field(2, value.as_bytes())].concat()
    }

    /// As CRI encodes it, fields that do not concern us among them.
    #[test]
    fn what_concerns_namespaces() {
        let namespaces = [&[8, 2, 16, 1, 24, 2][..], &field(5, &[8, 0])].concat();
        let security = [field(2, b"ignored"), field(1, &namespaces)].concat();
        let linux = [field(1, b"/pods"), field(2, &security), field(3, &pair("net.core.somaxconn", "9"))].concat();
        let config = [field(1, b""), field(2, b"web-0"), field(7, &pair("a", "b")), field(8, &linux)].concat();
        let pod = PodConfig::parse(&config).unwrap();
        assert_eq!((pod.hostname.as_str(), pod.cgroup_parent.as_str()), ("web-0", "/pods"));
        assert_eq!((pod.host_network, pod.host_pid, pod.host_ipc, pod.wants_user_ns), (true, false, true, true));
        assert_eq!((pod.annotations["a"].as_str(), pod.sysctls["net.core.somaxconn"].as_str()), ("b", "9"));
        assert_eq!(PodConfig::parse(&[]).unwrap(), PodConfig::default());
        assert!(PodConfig::parse(&[0x12, 9]).is_err());
    }
}
