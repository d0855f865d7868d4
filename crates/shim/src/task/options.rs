//! The options engines send along with create: those of runc's shim, of which ours obeys what concerns a container.

use berth_proto::protobuf::CodedInputStream;
use berth_proto::protobuf::well_known_types::any::Any;

use crate::error::TaskError;

/// `containerd.runc.v1.Options`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Field 9, `systemd_cgroup`.
    pub(crate) systemd_cgroup: bool,
}

const TYPE: &str = "containerd.runc.v1.Options";

impl Options {
    /// Options of other types are not meant for us.
    pub(crate) fn from_wire(any: Option<&Any>) -> Result<Self, TaskError> {
        const SYSTEMD_CGROUP: u32 = 9 << 3;
        let mut options = Self::default();
        let Some(any) = any.filter(|any| any.type_url.rsplit('/').next() == Some(TYPE)) else { return Ok(options) };
        let mut stream = CodedInputStream::from_bytes(&any.value);
        let mut parse = || {
            while let Some(tag) = stream.read_raw_tag_or_eof()? {
                match tag {
                    SYSTEMD_CGROUP => options.systemd_cgroup = stream.read_bool()?,
                    other => berth_proto::protobuf::rt::skip_field_for_tag(other, &mut stream)?,
                }
            }
            Ok::<_, berth_proto::protobuf::Error>(())
        };
        match parse() {
            Ok(()) => Ok(options),
            Err(error) => Err(TaskError::Argument { what: "runtime options", value: error.to_string() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_is_read_past_the_other_fields() {
        let any = |kind: &str, value: &[u8]| berth_proto::pack_as(kind, value.to_vec());
        let check = |kind: &str, value: &[u8]| Options::from_wire(Some(&any(kind, value)));
        // no_pivot_root, root = "x", systemd_cgroup
        let value = [0x08, 1, 0x3a, 1, b'x', 0x48, 1];
        assert!(check(TYPE, &value).unwrap().systemd_cgroup);
        assert!(check("type.googleapis.com/containerd.runc.v1.Options", &value).unwrap().systemd_cgroup);
        assert_eq!(check(TYPE, &[0x48, 0]).unwrap(), Options::default());
        assert_eq!(check("other.Options", &value).unwrap(), Options::default());
        assert_eq!(Options::from_wire(None).unwrap(), Options::default());
        assert!(matches!(check(TYPE, &[0x3a, 9]), Err(TaskError::Argument { .. })));
    }
}
