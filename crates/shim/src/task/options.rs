//! The options engines send along with create: those of runc's shim, of which ours obeys what concerns a container, and our own engine's
//! choice of a runtime.

use std::path::PathBuf;

use berth_proto::choice::{self, RuntimeChoice};
use berth_proto::protobuf::CodedInputStream;
use berth_proto::protobuf::well_known_types::any::Any;

use crate::error::TaskError;
use crate::io::Owner;

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) systemd_cgroup: bool,
    /// `MS_MOVE` in place of `pivot_root`.
    pub(crate) no_pivot_root: bool,
    /// The container's processes keep the shim's session keyring.
    pub(crate) no_new_keyring: bool,
    /// Whose the pipes of its processes are, on the host: root of a user namespace can then open `/proc/self/fd/1`.
    pub(crate) io_owner: Owner,
    /// A cgroup, which exists, that the shim moves to.
    pub(crate) shim_cgroup: Option<String>,
    /// `None`: our own runtime.
    pub(crate) choice: Option<RuntimeChoice>,
    /// Where another runtime keeps its state; `None`: in the bundle.
    pub(crate) root: Option<PathBuf>,
    /// Where criu puts its log when it restores, made when it is missing; `None`: beside the images. These, whose place containerd tells as the
    /// checkpoint of the request, need no option.
    pub(crate) criu_work: Option<PathBuf>,
}

const TYPE: &str = "containerd.runc.v1.Options";

impl Options {
    /// Options of other types are not meant for us.
    pub(crate) fn from_wire(any: Option<&Any>) -> Result<Self, TaskError> {
        let Some(any) = any else { return Ok(Self::default()) };
        if any.type_url == choice::TYPE_URL {
            let choice = serde_json::from_slice(&any.value);
            let choice = choice.map_err(|source| TaskError::Document { what: "the runtime's choice", source })?;
            return Ok(Self { choice: Some(choice), ..Self::default() });
        }
        match any.type_url.rsplit('/').next() {
            Some(TYPE) => {
                let options = Self::from_runc(&any.value)
                    .map_err(|error| TaskError::Argument { what: "runtime options", value: error.to_string() })?;
                match &options.criu_work {
                    Some(path) if !path.is_absolute() => {
                        Err(TaskError::Argument { what: "criu_work_path", value: path.display().to_string() })
                    }
                    _ => Ok(options),
                }
            }
            _ => Ok(Self::default()),
        }
    }

    /// By hand: the generated code would link the descriptors of every message into the shim.
    fn from_runc(value: &[u8]) -> berth_proto::protobuf::Result<Self> {
        const NO_PIVOT_ROOT: u32 = 1 << 3;
        const NO_NEW_KEYRING: u32 = 2 << 3;
        const SHIM_CGROUP: u32 = 3 << 3 | 2;
        const IO_UID: u32 = 4 << 3;
        const IO_GID: u32 = 5 << 3;
        const BINARY_NAME: u32 = 6 << 3 | 2;
        const ROOT: u32 = 7 << 3 | 2;
        const SYSTEMD_CGROUP: u32 = 9 << 3;
        const CRIU_WORK_PATH: u32 = 11 << 3 | 2;
        let mut options = Self::default();
        let mut stream = CodedInputStream::from_bytes(value);
        while let Some(tag) = stream.read_raw_tag_or_eof()? {
            match tag {
                NO_PIVOT_ROOT => options.no_pivot_root = stream.read_bool()?,
                NO_NEW_KEYRING => options.no_new_keyring = stream.read_bool()?,
                SHIM_CGROUP => options.shim_cgroup = Some(stream.read_string()?).filter(|path| !path.is_empty()),
                IO_UID => options.io_owner.uid = stream.read_uint32()?,
                IO_GID => options.io_owner.gid = stream.read_uint32()?,
                BINARY_NAME => {
                    let binary = PathBuf::from(stream.read_string()?);
                    options.choice = Some(RuntimeChoice::Command { binary, arguments: Vec::new() });
                }
                ROOT => options.root = Some(PathBuf::from(stream.read_string()?)),
                CRIU_WORK_PATH => options.criu_work = Some(PathBuf::from(stream.read_string()?)),
                SYSTEMD_CGROUP => options.systemd_cgroup = stream.read_bool()?,
                other => berth_proto::protobuf::rt::skip_field_for_tag(other, &mut stream)?,
            }
        }
        Ok(options)
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

    /// S-138: what runc's shim is told by its options.
    #[test]
    fn s138_options_of_runcs_shim() {
        let value =
            [&[0x08, 1, 0x10, 1, 0x1a, 2][..], b"/s", &[0x20, 0xa0, 0x8d, 6, 0x28, 7], &[0x5a, 2], b"/w"].concat();
        let options = Options::from_wire(Some(&berth_proto::pack_as(TYPE, value))).unwrap();
        assert!(options.no_pivot_root && options.no_new_keyring);
        assert_eq!((options.shim_cgroup.as_deref(), options.io_owner), (Some("/s"), Owner { uid: 100_000, gid: 7 }));
        assert_eq!(options.criu_work, Some("/w".into()));
        assert!(Options::from_wire(Some(&berth_proto::pack_as(TYPE, vec![0x5a, 1, b'w']))).is_err(), "not absolute");
    }

    /// S-137: another runtime is named by runc's options, and by our own engine's.
    #[test]
    fn s137_choice_of_a_runtime() {
        let command = RuntimeChoice::Command { binary: "crun".into(), arguments: Vec::new() };
        let runc = berth_proto::pack_as(TYPE, [&[0x32, 4][..], b"crun", &[0x3a, 2], b"/r"].concat());
        let options = Options::from_wire(Some(&runc)).unwrap();
        assert_eq!((options.choice, options.root), (Some(command.clone()), Some("/r".into())));
        let own = berth_proto::pack_as(choice::TYPE_URL, serde_json::to_vec(&command).unwrap());
        assert_eq!(Options::from_wire(Some(&own)).unwrap().choice, Some(command));
        assert!(Options::from_wire(Some(&berth_proto::pack_as(choice::TYPE_URL, b"{".to_vec()))).is_err());
    }
}
