//! Interfaces, addresses, the way out.

use std::net::Ipv4Addr;

use berth_sys::interface::InterfaceAddress;

use crate::json::Value;
use crate::page::{Row, Section};
use crate::unit;

pub(crate) fn section() -> Section {
    let addresses = berth_sys::interface::addresses().unwrap_or_default();
    let interfaces = unit::read("/proc/self/net/dev").map(|text| names(&text)).unwrap_or_default();
    let gateway = unit::read("/proc/self/net/route").and_then(|text| default_gateway(&text));
    let mut rows = Vec::new();
    let mut json = Vec::new();
    for name in &interfaces {
        let own: Vec<String> = addresses.iter().filter(|it| it.interface == *name).map(shown).collect();
        let mac = unit::read(format!("/sys/class/net/{name}/address"));
        let note = match (name.as_str(), &mac) {
            ("lo", _) => "itself".to_owned(),
            (_, Some(mac)) => mac.clone(),
            _ => String::new(),
        };
        rows.push(Row::new(name, if own.is_empty() { "no address".to_owned() } else { own.join(" ") }, note));
        json.push(Value::object([
            ("name", Value::from(name.as_str())),
            ("mac", mac.into()),
            ("addresses", Value::list(own)),
        ]));
    }
    let way_out = gateway.as_ref().map_or_else(|| "none".to_owned(), |(gateway, by)| format!("{gateway} by {by}"));
    rows.push(Row::new("gateway", way_out, "the way to everything else"));
    let gateway = gateway.map(|(gateway, _)| gateway.to_string());
    let json = Value::object([("interfaces", Value::List(json)), ("gateway", gateway.into())]);
    Section { key: "network", title: "Network", meaning: "interfaces and ports of its own", rows, json }
}

fn shown(address: &InterfaceAddress) -> String {
    format!("{}/{}", address.address, address.prefix)
}

fn names(text: &str) -> Vec<String> {
    text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

/// The kernel writes addresses as one hexadecimal number in its own byte order.
fn default_gateway(text: &str) -> Option<(Ipv4Addr, String)> {
    text.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [interface, "00000000", gateway, _, _, _, _, "00000000", ..] = fields[..] else { return None };
        let gateway = u32::from_str_radix(gateway, 16).ok()?;
        Some((Ipv4Addr::from(gateway.to_ne_bytes()), interface.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out() {
        let text = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
                    eth0\t0000FEA9\t00000000\t0001\t0\t0\t0\t0000FFFF\n\
                    eth0\t00000000\t010012AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        let expected = if cfg!(target_endian = "little") { [172, 18, 0, 1] } else { [1, 0, 18, 172] };
        assert_eq!(default_gateway(text), Some((Ipv4Addr::from(expected), "eth0".to_owned())));
        assert_eq!(default_gateway("Iface\n"), None);
    }
}
