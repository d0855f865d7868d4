//! `-v`, `--mount` and `--tmpfs` as one list in the order they are mounted: parents before children.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::api::MountView;
use crate::config::{ContainerConfig, HostConfig, MountRequest};
use crate::error::{EngineError, Result};
use crate::volumes::{check_driver, check_name, check_options};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MountKind {
    Bind {
        source: PathBuf,
        /// `-v` makes a missing source directory, `--mount` refuses.
        creates_source: bool,
        is_recursive: bool,
        propagation: Option<String>,
    },
    Tmpfs {
        /// Mount options for the kernel, checked.
        options: Vec<String>,
    },
    Volume(VolumeRequest),
}

/// A volume that is wanted; without a name the container gets one of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct VolumeRequest {
    pub(crate) name: Option<String>,
    /// An empty one is filled with what the image has there.
    pub(crate) copies: bool,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) options: BTreeMap<String, String>,
    /// Directory of the volume that is mounted; empty: all of it.
    pub(crate) subpath: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountPlan {
    pub(crate) kind: MountKind,
    pub(crate) target: PathBuf,
    pub(crate) read_only: ReadOnly,
    /// The flag it came from, for the plan's reasons.
    pub(crate) reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadOnly {
    No,
    /// Only the mount itself.
    Top,
    /// Sub-mounts as well.
    Recursive,
}

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

pub(crate) fn parse(config: &ContainerConfig, host: &HostConfig) -> Result<Vec<MountPlan>> {
    check_driver(&host.volume_driver)?;
    let mut mounts = Vec::new();
    for text in &host.binds {
        mounts.push(parse_bind(text)?);
    }
    for request in &host.mounts {
        mounts.push(parse_mount(request)?);
    }
    for (target, options) in &host.tmpfs {
        mounts.push(tmpfs(target, options)?);
    }
    check_targets(&mounts)?;
    for volume in &config.volumes {
        let plan = anonymous(volume, format!("volume {volume} of the image or of -v"))?;
        // What a person mounts there takes its place.
        if !mounts.iter().any(|mount| mount.target == plan.target) {
            mounts.push(plan);
        }
    }
    check_targets(&mounts)?;
    // A mount below another must come after it, whatever the order of the flags.
    mounts.sort_by_key(|mount| mount.target.components().count());
    Ok(mounts)
}

/// What `inspect` shows.
pub(crate) fn views(mounts: &[MountPlan]) -> Vec<MountView> {
    mounts
        .iter()
        .map(|mount| match &mount.kind {
            MountKind::Bind { source, propagation, .. } => MountView {
                name: String::new(),
                kind: "bind".to_owned(),
                source: source.display().to_string(),
                destination: mount.target.display().to_string(),
                mode: if mount.read_only == ReadOnly::No { String::new() } else { "ro".to_owned() },
                writable: mount.read_only == ReadOnly::No,
                propagation: propagation.clone().unwrap_or_else(|| "rprivate".to_owned()),
            },
            MountKind::Volume(volume) => MountView {
                kind: "volume".to_owned(),
                name: volume.name.clone().unwrap_or_default(),
                source: String::new(),
                destination: mount.target.display().to_string(),
                mode: if mount.read_only == ReadOnly::No { "z".to_owned() } else { "ro".to_owned() },
                writable: mount.read_only == ReadOnly::No,
                propagation: String::new(),
            },
            MountKind::Tmpfs { .. } => MountView {
                name: String::new(),
                kind: "tmpfs".to_owned(),
                source: String::new(),
                destination: mount.target.display().to_string(),
                mode: String::new(),
                writable: mount.read_only == ReadOnly::No,
                propagation: String::new(),
            },
        })
        .collect()
}

/// A clean absolute path inside the container; `..` and the root itself are refused.
fn target(text: &str, whole: &str) -> Result<PathBuf> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(EngineError::invalid(format!("invalid mount {whole:?}: mount path {text:?} must be absolute")));
    }
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                return Err(EngineError::invalid(format!("invalid mount {whole:?}: path {text:?} contains ..")));
            }
            _ => {}
        }
    }
    if clean == Path::new("/") {
        return Err(EngineError::invalid(format!("invalid mount {whole:?}: destination can't be '/'")));
    }
    Ok(clean)
}

/// The container's control over its own `/proc` is the kernel's; a mount over it would defeat masking (CVE-2015-3631, CVE-2019-16884).
fn check_targets(mounts: &[MountPlan]) -> Result<()> {
    for (index, mount) in mounts.iter().enumerate() {
        let shown = mount.target.display();
        if mounts[..index].iter().any(|other| other.target == mount.target) {
            return Err(EngineError::invalid(format!("Duplicate mount point: {shown}"))
                .with_hint("each path of the container can be mounted on once"));
        }
        let is_below_proc = mount.target.starts_with("/proc") || mount.target.starts_with("/sys/fs/cgroup");
        if is_below_proc {
            return Err(EngineError::invalid(format!(
                "mount point {shown} is not allowed: it is below a kernel file system"
            )));
        }
    }
    Ok(())
}

fn parse_bind(text: &str) -> Result<MountPlan> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, options) = match parts.as_slice() {
        [source, destination] => (*source, *destination, ""),
        [source, destination, options] => (*source, *destination, *options),
        [only] if only.starts_with('/') => return anonymous(only, format!("flag -v {text}")),
        _ => {
            return Err(EngineError::invalid(format!("invalid volume specification: '{text}'"))
                .with_hint("write -v /host/path:/container/path[:ro]"));
        }
    };
    if !source.starts_with('/') {
        return named(source, destination, options, text);
    }
    let source = bind_source(source, text)?;
    let mut read_only = ReadOnly::No;
    let mut is_recursive = true;
    let mut propagation = None;
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option {
            "ro" => read_only = ReadOnly::Recursive,
            "ro-non-recursive" => read_only = ReadOnly::Top,
            "rw" | "nocopy" => {}
            "bind" => is_recursive = false,
            "rbind" => is_recursive = true,
            "z" | "Z" => {} // A label is only set where SELinux is active; we say so at create when it is.
            mode if PROPAGATIONS.contains(&mode) => propagation = Some(mode.to_owned()),
            other => {
                return Err(EngineError::invalid(format!("invalid mode {other:?} of volume '{text}'"))
                    .with_hint("known are ro, rw, bind, rbind, and propagation such as rslave"));
            }
        }
    }
    Ok(MountPlan {
        kind: MountKind::Bind { source, creates_source: true, is_recursive, propagation },
        target: target(destination, text)?,
        read_only,
        reason: format!("flag -v {text}"),
    })
}

fn anonymous(path: &str, reason: String) -> Result<MountPlan> {
    let volume = VolumeRequest { copies: true, ..VolumeRequest::default() };
    Ok(MountPlan { kind: MountKind::Volume(volume), target: target(path, path)?, read_only: ReadOnly::No, reason })
}

/// `-v name:/path[:options]`.
fn named(name: &str, destination: &str, options: &str, text: &str) -> Result<MountPlan> {
    check_name(name)?;
    let mut volume = VolumeRequest { name: Some(name.to_owned()), copies: true, ..VolumeRequest::default() };
    let mut read_only = ReadOnly::No;
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option {
            "ro" => read_only = ReadOnly::Recursive,
            "rw" | "z" | "Z" => {}
            "nocopy" => volume.copies = false,
            other => {
                return Err(EngineError::invalid(format!("invalid mode {other:?} of volume '{text}'"))
                    .with_hint("a volume takes ro, rw and nocopy"));
            }
        }
    }
    Ok(MountPlan {
        kind: MountKind::Volume(volume),
        target: target(destination, text)?,
        read_only,
        reason: format!("flag -v {text}"),
    })
}

fn volume_request(request: &MountRequest, whole: &str) -> Result<MountPlan> {
    if !request.propagation.is_empty() || request.non_recursive || request.tmpfs_size_bytes.is_some() {
        return Err(EngineError::invalid(format!("invalid mount {whole:?}: bind or tmpfs options with type=volume")));
    }
    check_driver(&request.volume_driver)?;
    check_options(&request.volume_options)?;
    let name = (!request.source.is_empty()).then(|| request.source.clone());
    if let Some(name) = &name {
        check_name(name)?;
    }
    let subpath = PathBuf::from(&request.volume_subpath);
    if subpath.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(EngineError::invalid(format!("invalid mount {whole:?}: the subpath must be relative, without ..")));
    }
    let volume = VolumeRequest {
        name,
        copies: !request.volume_no_copy,
        labels: request.volume_labels.clone(),
        options: request.volume_options.clone(),
        subpath,
    };
    Ok(MountPlan {
        kind: MountKind::Volume(volume),
        target: target(&request.target, whole)?,
        read_only: if request.read_only { ReadOnly::Recursive } else { ReadOnly::No },
        reason: format!("flag --mount {whole}"),
    })
}

fn bind_source(source: &str, whole: &str) -> Result<PathBuf> {
    let path = PathBuf::from(source);
    let is_plain = path.is_absolute() && !path.components().any(|c| c == Component::ParentDir);
    if is_plain && !source.contains('\0') {
        return Ok(path);
    }
    Err(EngineError::invalid(format!("invalid mount {whole:?}: source {source:?} is not an absolute path without ..")))
}

fn parse_mount(request: &MountRequest) -> Result<MountPlan> {
    let whole = format!("type={},source={},target={}", request.kind, request.source, request.target);
    match request.kind.as_str() {
        "bind" => bind_request(request, &whole),
        "tmpfs" => tmpfs_request(request, &whole),
        "volume" => volume_request(request, &whole),
        "image" => {
            Err(EngineError::unimplemented("mount type image is not supported yet").with_hint("use type=bind or tmpfs"))
        }
        other => Err(EngineError::invalid(format!("mount type {other:?} is not supported"))
            .with_hint("use type=bind, volume or tmpfs")),
    }
}

fn bind_request(request: &MountRequest, whole: &str) -> Result<MountPlan> {
    if request.tmpfs_size_bytes.is_some() || request.tmpfs_mode.is_some() {
        return Err(EngineError::invalid(format!("invalid mount {whole:?}: tmpfs options with type=bind")));
    }
    let propagation = match request.propagation.as_str() {
        "" => None,
        mode if PROPAGATIONS.contains(&mode) => Some(mode.to_owned()),
        other => return Err(EngineError::invalid(format!("invalid propagation {other:?} of mount {whole:?}"))),
    };
    let read_only = match (request.read_only, request.read_only_non_recursive) {
        (false, _) => ReadOnly::No,
        (true, true) => ReadOnly::Top,
        (true, false) => ReadOnly::Recursive,
    };
    Ok(MountPlan {
        kind: MountKind::Bind {
            source: bind_source(&request.source, whole)?,
            creates_source: request.create_mountpoint,
            is_recursive: !request.non_recursive,
            propagation,
        },
        target: target(&request.target, whole)?,
        read_only,
        reason: format!("flag --mount {whole}"),
    })
}

fn tmpfs_request(request: &MountRequest, whole: &str) -> Result<MountPlan> {
    if !request.source.is_empty() {
        return Err(EngineError::invalid(format!("invalid mount {whole:?}: tmpfs has no source")));
    }
    let mut options = Vec::new();
    match request.tmpfs_size_bytes {
        Some(size) if size < 0 => {
            return Err(EngineError::invalid(format!("invalid mount {whole:?}: negative tmpfs size")));
        }
        Some(size) if size > 0 => options.push(format!("size={size}")),
        _ => {}
    }
    match request.tmpfs_mode {
        Some(mode) if mode > 0o7777 => {
            return Err(EngineError::invalid(format!("invalid mount {whole:?}: tmpfs mode {mode:o}")));
        }
        Some(mode) if mode > 0 => options.push(format!("mode={mode:o}")),
        _ => {}
    }
    let mut plan = tmpfs(&request.target, &options.join(","))?;
    if request.read_only {
        plan.read_only = ReadOnly::Top;
    }
    plan.reason = format!("flag --mount {whole}");
    Ok(plan)
}

fn tmpfs(path: &str, text: &str) -> Result<MountPlan> {
    let mut options: Vec<String> = ["noexec", "nosuid", "nodev"].map(str::to_owned).to_vec();
    let mut read_only = ReadOnly::No;
    for option in text.split(',').filter(|o| !o.is_empty()) {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        match (key, value) {
            ("ro", "") => read_only = ReadOnly::Top,
            ("rw", "") => {}
            ("exec" | "suid" | "dev", "") => options.retain(|o| o.strip_prefix("no") != Some(key)),
            ("noexec" | "nosuid" | "nodev", "") => {
                if !options.iter().any(|o| o == key) {
                    options.push(key.to_owned());
                }
            }
            ("sync" | "async" | "dirsync" | "noatime" | "nodiratime" | "relatime" | "strictatime", "") => {
                options.push(key.to_owned());
            }
            ("size" | "nr_inodes" | "nr_blocks", value) if !value.is_empty() => options.push(option.to_owned()),
            ("mode", value) if u32::from_str_radix(value, 8).is_ok_and(|mode| mode <= 0o7777) => {
                options.push(option.to_owned())
            }
            ("uid" | "gid", value) if value.parse::<u32>().is_ok() => options.push(option.to_owned()),
            ("mpol" | "huge", value) if !value.is_empty() => options.push(option.to_owned()),
            _ => {
                return Err(EngineError::invalid(format!("invalid tmpfs option {option:?} for {path}"))
                    .with_hint("as in --tmpfs /run:size=64m,mode=1777"));
            }
        }
    }
    Ok(MountPlan {
        kind: MountKind::Tmpfs { options },
        target: target(path, path)?,
        read_only,
        reason: format!("flag --tmpfs {path}"),
    })
}
