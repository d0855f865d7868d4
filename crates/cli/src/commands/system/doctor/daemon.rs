//! The daemon, when one answers. None is started for the question.

use std::os::unix::net::UnixStream;

use serde_json::Value;

use super::Check;
use crate::commands::objects::{items, text};
use crate::context::Context;

const AREA: &str = "daemon";

pub(super) fn checks(cx: &mut Context) -> Vec<Check> {
    let path = cx.client.address().socket.clone();
    if UnixStream::connect(&path).is_err() {
        let found = format!("none answers on {}", path.display());
        return vec![Check::warn(
            AREA,
            "daemon",
            found,
            "berthd is started by the first command of root, or by its unit",
        )];
    }
    match cx.client.get("/info") {
        Ok(info) => {
            from_info(&info, std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap_or_default().trim() == "1")
        }
        Err(failure) => vec![Check::bad(
            AREA,
            "daemon",
            failure.message,
            "look into its log: journalctl -u berth, or /run/berth/berthd.log",
        )],
    }
}

fn from_info(info: &Value, is_forwarding: bool) -> Vec<Check> {
    let version = text(info, "ServerVersion");
    let own = env!("CARGO_PKG_VERSION");
    let mut checks = vec![Check::when(
        version == own,
        Check::warn,
        AREA,
        "version",
        format!("{version}, the client is {own}"),
        "restart the daemon after an upgrade; containers run on meanwhile",
    )];
    let containers = ["ContainersRunning", "Containers"].map(|field| info[field].as_u64().unwrap_or(0));
    checks.push(Check::good(AREA, "containers", format!("{} running of {}", containers[0], containers[1])));
    checks.push(Check::good(AREA, "storage", format!("{} at {}", text(info, "Driver"), text(info, "DockerRootDir"))));
    checks.push(Check::when(
        is_forwarding,
        Check::bad,
        AREA,
        "ip_forward",
        if is_forwarding { "on" } else { "off" },
        "somebody switched it off: containers reach nothing beyond the bridge; sysctl net.ipv4.ip_forward=1",
    ));
    checks.extend(
        items(info, "Warnings")
            .iter()
            .filter_map(Value::as_str)
            .map(|warning| Check::warn(AREA, "warning", warning, "")),
    );
    checks
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use serde_json::json;

    #[test]
    fn answers() {
        let info = json!({"ServerVersion": "0.0.0", "Containers": 3, "ContainersRunning": 1, "Driver": "overlay2", "Warnings": ["w"]});
        let checks = from_info(&info, false);
        let state = |name: &str| checks.iter().find(|check| check.name == name).unwrap().state;
        assert_eq!((state("version"), state("containers")), (State::Warn, State::Good));
        assert_eq!((state("ip_forward"), state("warning")), (State::Bad, State::Warn));
    }
}
