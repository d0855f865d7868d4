//! `-v source:target[:options]`, `--mount type=...,...` and `--tmpfs path[:options]`.

use std::path::{Component, Path, PathBuf};

use berth_types::ByteCount;
use bollard_stubs::models::{
    Mount, MountBindOptions, MountBindOptionsPropagationEnum as Propagation, MountTmpfsOptions, MountType,
    MountVolumeOptions,
};

use crate::failure::{Failure, Outcome};

/// A `-v`: a bind for `HostConfig.Binds`, or a path that wants an anonymous volume.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Volume {
    Bind(String),
    Anonymous(String),
}

/// A relative source (`./data`) is taken from `directory`.
pub(super) fn parse_volume(text: &str, directory: &Path) -> Outcome<Volume> {
    let wrong =
        |why: &str| Failure::new(format!("invalid -v {text:?}: {why}")).hint("for example -v /srv/data:/data:ro");
    let Some((source, rest)) = text.split_once(':') else {
        if !text.starts_with('/') {
            return Err(wrong("the path in the container must be absolute"));
        }
        return Ok(Volume::Anonymous(text.to_owned()));
    };
    if source.is_empty() {
        return Err(wrong("the source is empty"));
    }
    let target = rest.split(':').next().unwrap_or_default();
    if !target.starts_with('/') {
        return Err(wrong("the path in the container must be absolute"));
    }
    let is_relative = source == "." || source == ".." || source.starts_with("./") || source.starts_with("../");
    if is_relative {
        let source = cleaned(&directory.join(source));
        return Ok(Volume::Bind(format!("{}:{rest}", source.display())));
    }
    Ok(Volume::Bind(text.to_owned()))
}

/// Without `.` and `..`, by text alone.
fn cleaned(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// `path[:options]` of `--tmpfs`.
pub(super) fn parse_tmpfs(text: &str) -> Outcome<(String, String)> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    if !path.starts_with('/') {
        return Err(Failure::new(format!("invalid --tmpfs {text:?}: the path must be absolute"))
            .hint("for example --tmpfs /run:size=64m,mode=755"));
    }
    Ok((path.to_owned(), options.to_owned()))
}

pub(super) fn parse_mount(text: &str, directory: &Path) -> Outcome<Mount> {
    let wrong = |why: String| {
        Failure::new(format!("invalid --mount {text:?}: {why}"))
            .hint("for example --mount type=bind,source=/srv/data,target=/data,readonly")
    };
    let mut mount = Mount { typ: Some(MountType::VOLUME), ..Mount::default() };
    let mut bind = MountBindOptions::default();
    let mut tmpfs = MountTmpfsOptions::default();
    let mut volume = MountVolumeOptions::default();
    for field in fields(text) {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.trim().to_ascii_lowercase(), Some(value)),
            None => (field.trim().to_ascii_lowercase(), None),
        };
        let set = match key.strip_prefix("volume-") {
            Some(key) => set_volume_field(&mut volume, key, value),
            None => set_field(&mut mount, &mut bind, &mut tmpfs, &key, value),
        };
        set.map_err(&wrong)?;
    }
    if mount.target.as_deref().is_none_or(str::is_empty) {
        return Err(wrong("target is required".to_owned()));
    }
    let kind = mount.typ.unwrap_or(MountType::VOLUME);
    let has_bind_options = bind != MountBindOptions::default();
    let has_tmpfs_options = tmpfs != MountTmpfsOptions::default();
    if has_bind_options && kind != MountType::BIND {
        return Err(wrong("bind options need type=bind".to_owned()));
    }
    if has_tmpfs_options && kind != MountType::TMPFS {
        return Err(wrong("tmpfs options need type=tmpfs".to_owned()));
    }
    let has_volume_options = volume != MountVolumeOptions::default();
    if has_volume_options && kind != MountType::VOLUME {
        return Err(wrong("volume options need type=volume".to_owned()));
    }
    let source = mount.source.as_deref().unwrap_or_default();
    match kind {
        MountType::BIND if source.is_empty() => return Err(wrong("type=bind needs a source".to_owned())),
        MountType::BIND if !source.starts_with('/') => {
            mount.source = Some(cleaned(&directory.join(source)).display().to_string());
        }
        MountType::TMPFS if !source.is_empty() => return Err(wrong("type=tmpfs takes no source".to_owned())),
        _ => {}
    }
    mount.bind_options = has_bind_options.then_some(bind);
    mount.tmpfs_options = has_tmpfs_options.then_some(tmpfs);
    mount.volume_options = has_volume_options.then_some(volume);
    Ok(mount)
}

/// Comma-separated; a field in double quotes may contain commas.
fn fields(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut is_quoted = false;
    for c in text.chars() {
        match c {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(String::new()),
            c => fields.last_mut().into_iter().for_each(|field| field.push(c)),
        }
    }
    fields
}

fn set_field(
    mount: &mut Mount,
    bind: &mut MountBindOptions,
    tmpfs: &mut MountTmpfsOptions,
    key: &str,
    value: Option<&str>,
) -> Result<(), String> {
    let needed = || value.filter(|v| !v.is_empty()).ok_or_else(|| format!("{key} needs a value"));
    match key {
        "type" => mount.typ = Some(kind(needed()?)?),
        "source" | "src" => mount.source = Some(needed()?.to_owned()),
        "target" | "dst" | "destination" => {
            let target = needed()?;
            if !target.starts_with('/') {
                return Err("target must be absolute".to_owned());
            }
            mount.target = Some(target.to_owned());
        }
        "readonly" | "ro" => mount.read_only = Some(truth(key, value)?),
        "consistency" => mount.consistency = Some(needed()?.to_owned()),
        "bind-propagation" => bind.propagation = Some(propagation(needed()?)?),
        "bind-nonrecursive" => bind.non_recursive = Some(truth(key, value)?),
        "bind-create-src" => bind.create_mountpoint = Some(truth(key, value)?),
        "bind-recursive" => match needed()? {
            "enabled" => {}
            "disabled" => bind.non_recursive = Some(true),
            "writable" => bind.read_only_non_recursive = Some(true),
            "readonly" => bind.read_only_force_recursive = Some(true),
            other => return Err(format!("bind-recursive is enabled, disabled, writable or readonly, not {other:?}")),
        },
        "tmpfs-size" => {
            let bytes = needed()?.parse::<ByteCount>().map_err(|error| error.to_string())?;
            tmpfs.size_bytes = Some(i64::try_from(bytes.0).map_err(|_| "tmpfs-size is too large".to_owned())?);
        }
        "tmpfs-mode" => {
            let mode = i64::from_str_radix(needed()?, 8).ok().filter(|mode| (0..=0o7777).contains(mode));
            tmpfs.mode = Some(mode.ok_or("tmpfs-mode is octal, 0 to 7777")?);
        }
        key if key.starts_with("image-") => {
            return Err(format!("not yet: {key} is not supported"));
        }
        "" => return Err("an empty field".to_owned()),
        other => return Err(format!("unknown field {other:?}")),
    }
    Ok(())
}

/// A field whose name begins with `volume-`.
fn set_volume_field(volume: &mut MountVolumeOptions, key: &str, value: Option<&str>) -> Result<(), String> {
    let needed = || value.filter(|v| !v.is_empty()).ok_or_else(|| format!("volume-{key} needs a value"));
    let pair = || {
        let text = needed()?;
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        Ok::<_, String>((name.to_owned(), value.to_owned()))
    };
    match key {
        "nocopy" => volume.no_copy = Some(truth("volume-nocopy", value)?),
        "subpath" => volume.subpath = Some(needed()?.to_owned()),
        "label" => volume.labels.get_or_insert_default().extend([pair()?]),
        "driver" => volume.driver_config.get_or_insert_default().name = Some(needed()?.to_owned()),
        "opt" => {
            let config = volume.driver_config.get_or_insert_default();
            config.options.get_or_insert_default().extend([pair()?]);
        }
        _ => return Err(format!("unknown field \"volume-{key}\"")),
    }
    Ok(())
}

fn kind(text: &str) -> Result<MountType, String> {
    match text.to_ascii_lowercase().as_str() {
        "bind" => Ok(MountType::BIND),
        "tmpfs" => Ok(MountType::TMPFS),
        "volume" => Ok(MountType::VOLUME),
        "image" | "npipe" | "cluster" => Err(format!("not yet: type={text} is not supported")),
        _ => Err(format!("unknown type {text:?}; there are bind, tmpfs and volume")),
    }
}

fn truth(key: &str, value: Option<&str>) -> Result<bool, String> {
    match value.unwrap_or("true") {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        other => Err(format!("{key} is true or false, not {other:?}")),
    }
}

fn propagation(text: &str) -> Result<Propagation, String> {
    Ok(match text {
        "private" => Propagation::PRIVATE,
        "rprivate" => Propagation::RPRIVATE,
        "shared" => Propagation::SHARED,
        "rshared" => Propagation::RSHARED,
        "slave" => Propagation::SLAVE,
        "rslave" => Propagation::RSLAVE,
        _ => return Err(format!("unknown bind-propagation {text:?}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        let parse = |text: &str| parse_volume(text, Path::new("/home/me"));
        assert_eq!(parse("/a:/b:ro").unwrap(), Volume::Bind("/a:/b:ro".to_owned()));
        assert_eq!(parse("./a/../x:/b").unwrap(), Volume::Bind("/home/me/x:/b".to_owned()));
        assert_eq!(parse("..:/b").unwrap(), Volume::Bind("/home:/b".to_owned()));
        assert_eq!(parse("/data").unwrap(), Volume::Anonymous("/data".to_owned()));
        assert_eq!(parse("data:/b").unwrap(), Volume::Bind("data:/b".to_owned()));
        assert_eq!(parse(":/b").unwrap_err().message, "invalid -v \":/b\": the source is empty");
        assert!(parse("/a:b").is_err());
        assert!(parse("b").is_err());
    }

    #[test]
    fn mounts() {
        let json = |text: &str| {
            parse_mount(text, Path::new("/w")).map(|m| serde_json::to_value(m).unwrap()).map_err(|f| f.message)
        };
        assert_eq!(
            json("type=bind,src=/a,dst=/b,ro,bind-propagation=rslave").unwrap(),
            serde_json::json!({"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true,"BindOptions":{"Propagation":"rslave"}})
        );
        assert_eq!(
            json("type=tmpfs,\"target=/a,b\",tmpfs-size=64m,tmpfs-mode=1777").unwrap(),
            serde_json::json!({"Type":"tmpfs","Target":"/a,b","TmpfsOptions":{"SizeBytes":67_108_864,"Mode":0o1777}})
        );
        assert_eq!(json("type=bind,source=x,target=/b").unwrap()["Source"], "/w/x");
        let volume = json("src=data,dst=/b,volume-nocopy,volume-subpath=s,volume-label=a=b,volume-opt=o=bind").unwrap();
        assert_eq!(
            volume["VolumeOptions"],
            serde_json::json!({"NoCopy":true,"Subpath":"s","Labels":{"a":"b"},"DriverConfig":{"Options":{"o":"bind"}}})
        );
        for (text, why) in [
            ("type=bind,src=/a", "target is required"),
            ("type=bind,dst=/b", "type=bind needs a source"),
            ("type=tmpfs,src=/a,dst=/b", "type=tmpfs takes no source"),
            ("type=tmpfs,dst=/b,bind-propagation=shared", "bind options need type=bind"),
            ("type=nope,dst=/b", "unknown type \"nope\"; there are bind, tmpfs and volume"),
            ("type=image,dst=/b", "not yet: type=image is not supported"),
            ("type=bind,src=/a,dst=b", "target must be absolute"),
            ("type=bind,src=/a,dst=/b,what=1", "unknown field \"what\""),
            ("type=bind,src=/a,dst=/b,ro=maybe", "ro is true or false, not \"maybe\""),
            ("type=bind,src=/a,dst=/b,volume-nocopy", "volume options need type=volume"),
            ("type=volume,dst=/b,volume-size=1", "unknown field \"volume-size\""),
        ] {
            assert_eq!(json(text).unwrap_err(), format!("invalid --mount {text:?}: {why}"));
        }
    }

    #[test]
    fn tmpfs() {
        assert_eq!(parse_tmpfs("/run:size=1m").unwrap(), ("/run".to_owned(), "size=1m".to_owned()));
        assert_eq!(parse_tmpfs("/run").unwrap(), ("/run".to_owned(), String::new()));
        assert!(parse_tmpfs("run").is_err());
    }
}
