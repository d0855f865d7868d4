//! Which host ports a start takes: asked ones as they are, of a range the first that no other container of ours has.

use std::collections::HashSet;
use std::net::IpAddr;

use berth_network::{PortMapping, Protocol};

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::request::PortRequest;

type Taken = HashSet<(Protocol, Option<IpAddr>, u16)>;

impl Engine {
    pub(crate) fn choose_ports(&self, requests: &[PortRequest]) -> Result<Vec<PortMapping>> {
        if requests.iter().all(|r| r.last_host_port == r.mapping.host_port) {
            return Ok(requests.iter().map(|r| r.mapping.clone()).collect());
        }
        let mut taken = Taken::new();
        for container in self.inner.registry.all() {
            let inner = container.lock();
            for port in inner.record.endpoint.iter().flat_map(|endpoint| &endpoint.ports) {
                taken.insert((port.protocol, port.host_ip, port.host_port));
            }
        }
        choose(requests, taken)
    }
}

fn choose(requests: &[PortRequest], mut taken: Taken) -> Result<Vec<PortMapping>> {
    let mut chosen = Vec::with_capacity(requests.len());
    for request in requests {
        let mapping = &request.mapping;
        let is_range = request.last_host_port != mapping.host_port;
        let is_free = |port: &u16| {
            let address = mapping.host_ip;
            let any = address.is_some_and(|_| taken.contains(&(mapping.protocol, None, *port)));
            !any && !taken.contains(&(mapping.protocol, address, *port))
        };
        let host_port = if is_range {
            (mapping.host_port..=request.last_host_port).find(is_free).ok_or_else(|| {
                EngineError::new(
                    berth_types::ErrorClass::ResourceExhausted,
                    format!("all host ports from {} to {} are allocated", mapping.host_port, request.last_host_port),
                )
                .with_hint("give a larger range, or stop a container that publishes one of them")
            })?
        } else {
            mapping.host_port
        };
        taken.insert((mapping.protocol, mapping.host_ip, host_port));
        chosen.push(PortMapping { host_port, ..mapping.clone() });
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_take_the_first_free_port() {
        let request = |first: u16, last: u16| PortRequest {
            mapping: PortMapping { protocol: Protocol::Tcp, host_ip: None, host_port: first, container_port: 80 },
            last_host_port: last,
        };
        let taken = || Taken::from([(Protocol::Tcp, None, 8000)]);
        let ports = |requests: &[PortRequest]| {
            choose(requests, taken()).map(|chosen| chosen.into_iter().map(|m| m.host_port).collect::<Vec<_>>())
        };
        assert_eq!(ports(&[request(8000, 8002), request(8000, 8002)]).unwrap(), [8001, 8002]);
        assert_eq!(ports(&[request(8000, 8000)]).unwrap(), [8000], "a fixed port is the network's to refuse");
        assert_eq!(
            ports(&[request(8000, 8001), request(8000, 8001)]).unwrap_err().class,
            berth_types::ErrorClass::ResourceExhausted
        );
    }
}
