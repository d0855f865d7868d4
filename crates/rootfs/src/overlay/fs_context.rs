//! The overlay's file system context: setting parameters, and reading what the kernel has to say about them.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use super::OverlayError;

/// fsconfig(2) takes strings of at most 256 bytes with their NUL.
const VALUE_LENGTH_MAX: usize = 255;
/// Messages read from a context, and the bytes of each; the kernel keeps eight.
const LOG_MESSAGES_MAX: usize = 8;
const LOG_MESSAGE_SIZE: usize = 1024;

/// A layer directory, by name or held open. The path of an open one is for messages.
#[derive(Debug)]
pub(super) enum Layer<'p> {
    Path(&'p Path),
    Fd(OwnedFd, &'p Path),
}

impl Layer<'_> {
    fn path(&self) -> &Path {
        match self {
            Self::Path(path) | Self::Fd(_, path) => path,
        }
    }
}

#[derive(Debug)]
pub(super) struct FsContext(OwnedFd);

impl FsContext {
    pub(super) fn open() -> Result<Self, OverlayError> {
        let fd = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|source| OverlayError::Context { source })?;
        let context = Self(fd);
        context.set("source", "overlay")?;
        Ok(context)
    }

    pub(super) fn set(&self, option: &'static str, value: &str) -> Result<(), OverlayError> {
        fsconfig_set_string(&self.0, option, value).map_err(|source| self.refused(option, value.to_owned(), source))
    }

    pub(super) fn set_flag(&self, option: &'static str) -> Result<(), OverlayError> {
        fsconfig_set_flag(&self.0, option).map_err(|source| self.refused(option, "on".to_owned(), source))
    }

    pub(super) fn set_layer(&self, option: &'static str, layer: &Layer<'_>) -> Result<(), OverlayError> {
        let result = match layer {
            Layer::Path(path) if is_plain(path) => fsconfig_set_string(&self.0, option, *path),
            Layer::Path(path) => self.set_directory(option, &open_path(path)?),
            Layer::Fd(fd, _) => self.set_directory(option, fd),
        };
        result.map_err(|source| self.refused(option, layer.path().display().to_string(), source))
    }

    /// By descriptor since Linux 6.13; before that by the name of the descriptor.
    fn set_directory(&self, option: &'static str, directory: &OwnedFd) -> Result<(), Errno> {
        match fsconfig_set_fd(&self.0, option, directory) {
            Err(Errno::INVAL | Errno::BADF) => fsconfig_set_string(&self.0, option, fd_name(directory)),
            set_or_failed => set_or_failed,
        }
    }

    /// All layers in one `lowerdir=`, for kernels before 6.7. The descriptors must stay open until the mount is made.
    pub(super) fn set_lower_list(&self, layers: &[Layer<'_>]) -> Result<Vec<OwnedFd>, OverlayError> {
        let mut opened = Vec::new();
        let mut list = String::new();
        if let Some(plain) = plain_list(layers) {
            list = plain;
        } else {
            for layer in layers {
                if !list.is_empty() {
                    list.push(':');
                }
                match layer {
                    Layer::Fd(fd, _) => list.push_str(&fd_name(fd)),
                    Layer::Path(path) => {
                        let fd = open_path(path)?;
                        list.push_str(&fd_name(&fd));
                        opened.push(fd);
                    }
                }
            }
        }
        if list.len() > VALUE_LENGTH_MAX {
            return Err(OverlayError::TooManyLayers { layers: layers.len() });
        }
        self.set("lowerdir", &list)?;
        Ok(opened)
    }

    pub(super) fn mount(&self, layers: usize, attributes: MountAttrFlags) -> Result<OwnedFd, OverlayError> {
        fsconfig_create(&self.0)
            .and_then(|()| fsmount(&self.0, FsMountFlags::FSMOUNT_CLOEXEC, attributes))
            .map_err(|source| OverlayError::Mount { layers, kernel_log: self.log(), source })
    }

    fn refused(&self, option: &'static str, value: String, source: Errno) -> OverlayError {
        OverlayError::Option { option, value, kernel_log: self.log(), source }
    }

    /// What the kernel logged for this context, as `: message; message` or nothing. Lines look like `e overlay: message`.
    fn log(&self) -> String {
        let mut log = String::new();
        let mut buffer = [0; LOG_MESSAGE_SIZE];
        for _ in 0..LOG_MESSAGES_MAX {
            let Ok(length) = rustix::io::read(&self.0, &mut buffer) else { break };
            let line = String::from_utf8_lossy(&buffer[..length]);
            let message = line.trim_end().get(2..).unwrap_or_default();
            log.push_str(if log.is_empty() { ": " } else { "; " });
            log.push_str(message.strip_prefix("overlay: ").unwrap_or(message));
        }
        log
    }
}

/// Whether a path can be given as a string: short enough, and without what some parameters take for an escape or a separator.
fn is_plain(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    bytes.len() <= VALUE_LENGTH_MAX && !bytes.iter().any(|byte| matches!(byte, b'\\' | b':' | b','))
}

fn plain_list(layers: &[Layer<'_>]) -> Option<String> {
    let mut list = String::new();
    for layer in layers {
        let Layer::Path(path) = layer else { return None };
        if !is_plain(path) {
            return None;
        }
        if !list.is_empty() {
            list.push(':');
        }
        list.push_str(path.to_str()?);
    }
    (list.len() <= VALUE_LENGTH_MAX).then_some(list)
}

fn fd_name(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn open_path(path: &Path) -> Result<OwnedFd, OverlayError> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|source| OverlayError::Directory { operation: "open layer directory", path: path.to_owned(), source })
}
