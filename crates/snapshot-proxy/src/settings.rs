//! Which external snapshotter, where, and under which names it knows us.

use std::path::PathBuf;

use berth_snapshot::SnapshotError;

/// Names that mean something else.
const OWN_NAMES: [&str; 4] = ["overlayfs", "overlay2", "vfs", "devmapper"];

/// One external snapshotter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxySettings {
    /// What it is called here.
    pub name: String,
    /// Its unix socket.
    pub address: PathBuf,
    /// What it calls itself: the `snapshotter` of every request. A containerd serves several under one address.
    pub remote_name: String,
    /// Header `containerd-namespace`.
    pub namespace: String,
}

impl ProxySettings {
    /// `NAME=unix:///SOCKET[,snapshotter=REMOTE][,namespace=NAMESPACE]`; the remote name is NAME unless told, the namespace `berth`.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub fn parse(text: &str) -> Result<Self, SnapshotError> {
        let bad = |name: &str, what: &str| {
            let snapshotter = name.chars().take(40).collect();
            Err(SnapshotError::Setting { snapshotter, what: what.to_owned() })
        };
        let Some((name, rest)) = text.split_once('=') else {
            return bad(text, "it is written NAME=unix:///SOCKET");
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if !name.bytes().all(is_name) || !name.starts_with(|first: char| first.is_ascii_alphanumeric()) {
            return bad(name, "its name may have letters, digits, -, _ and .");
        }
        if berth_snapshot::DRIVERS.contains(&name) || OWN_NAMES.contains(&name) {
            return bad(name, "this is the name of a snapshotter of our own");
        }
        let mut parts = rest.split(',');
        let address = parts.next().unwrap_or_default();
        let path = PathBuf::from(address.strip_prefix("unix://").unwrap_or(address));
        if !path.is_absolute() {
            return bad(name, "its address is no absolute path of a unix socket");
        }
        let mut settings =
            Self { name: name.to_owned(), address: path, remote_name: name.to_owned(), namespace: "berth".to_owned() };
        for part in parts {
            match part.split_once('=') {
                Some(("snapshotter", value)) if !value.is_empty() => value.clone_into(&mut settings.remote_name),
                Some(("namespace", value)) if !value.is_empty() && value.bytes().all(is_name) => {
                    value.clone_into(&mut settings.namespace);
                }
                Some(("namespace", _)) => return bad(name, "a namespace has letters, digits, -, _ and ."),
                _ => return bad(name, &format!("unknown setting {part:?}: there are snapshotter= and namespace=")),
            }
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read() {
        let settings = ProxySettings::parse("stargz=unix:///run/s.sock").unwrap();
        assert_eq!(
            (settings.address.to_str(), settings.remote_name.as_str(), settings.namespace.as_str()),
            (Some("/run/s.sock"), "stargz", "berth")
        );
        let settings = ProxySettings::parse("far=/run/c.sock,snapshotter=overlayfs,namespace=k8s.io").unwrap();
        assert_eq!((settings.remote_name.as_str(), settings.namespace.as_str()), ("overlayfs", "k8s.io"));
        for bad in [
            "stargz",
            "overlay=/s",
            "a/b=/s",
            "a=relative",
            "a=/s,mode=fast",
            "=/s",
            "native=/s",
            "a=/s,namespace=ü",
            "a=/s,namespace=a b",
        ] {
            ProxySettings::parse(bad).unwrap_err();
        }
    }
}
