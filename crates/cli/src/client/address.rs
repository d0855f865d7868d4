//! Where the daemon listens: `-H`, then `BERTH_HOST`, then the default socket.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Outcome};

/// The socket of the machine's own daemon, the only one we start by ourselves.
pub(crate) const DEFAULT_SOCKET: &str = "/run/berth/docker.sock";
/// sun_path of unix(7) without the final zero.
const PATH_BYTES_MAX: usize = 107;

/// A unix socket, and whether nobody named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) socket: PathBuf,
    pub(crate) is_default: bool,
}

impl Address {
    /// `named` is the value of `-H` or `BERTH_HOST`; `source` says which, for the error.
    pub(crate) fn parse(named: Option<&str>, source: &str) -> Outcome<Self> {
        let Some(text) = named.filter(|text| !text.is_empty()) else {
            return Ok(Self { socket: PathBuf::from(DEFAULT_SOCKET), is_default: true });
        };
        let path = match text.split_once("://") {
            Some(("unix", path)) => path,
            Some((scheme, _)) => {
                return Err(Failure::not_yet(format!("{source} {text:?}: the scheme {scheme} is not supported"))
                    .hint("name a unix socket: unix:///path/docker.sock"));
            }
            None if text.starts_with('/') => text,
            None => {
                return Err(Failure::new(format!("{source} {text:?} is not an address"))
                    .hint("name a unix socket: unix:///path/docker.sock"));
            }
        };
        if path.is_empty() || path.len() > PATH_BYTES_MAX {
            return Err(Failure::new(format!("{source} {text:?}: a socket path has 1 to {PATH_BYTES_MAX} bytes")));
        }
        Ok(Self { socket: PathBuf::from(path), is_default: false })
    }

    pub(crate) fn directory(&self) -> &Path {
        self.socket.parent().unwrap_or_else(|| Path::new("/"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix://{}", self.socket.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert!(Address::parse(None, "-H").unwrap().is_default);
        assert_eq!(Address::parse(Some("unix:///a/b"), "-H").unwrap().to_string(), "unix:///a/b");
        assert_eq!(Address::parse(Some("/a/b"), "-H").unwrap().to_string(), "unix:///a/b");
        let failure = Address::parse(Some("tcp://1.2.3.4:2375"), "-H").unwrap_err();
        assert_eq!(failure.message, "not yet: -H \"tcp://1.2.3.4:2375\": the scheme tcp is not supported");
        assert!(Address::parse(Some("docker.sock"), "BERTH_HOST").is_err());
        assert!(Address::parse(Some(&format!("/{}", "x".repeat(107))), "-H").is_err());
    }
}
