//! The bridge network of a daemon: attaching containers, publishing their ports, and taking both back.
//!
//! Locks: `state` is never held while a netlink socket is, except that `route` may be taken by a thread that holds none;
//! the two sockets have a lock each and are never held together.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::address::AddressPool;
use crate::bridge::{self, Bridge};
use crate::config::{Endpoint, NetworkConfig, format_mac, parse_mac};
use crate::error::NetworkError;
use crate::housekeeper::{Chore, Housekeeper};
use crate::link::Mac;
use crate::namespace::{self, HostNamespace, Ipv6};
use crate::netlink::{Family, Socket};
use crate::nft::{self, Element, ruleset::Ruleset};
use crate::pool::Pool;
use crate::port::{PortMapping, PortTable, Protocol};
use crate::sandbox::{Lease, Sandbox};
use crate::subnet::{Subnet4, Subnet6};
use crate::sysctl;

/// Sandboxes made in advance: enough for a burst, few enough not to crowd `ip link`.
const SANDBOXES_READY: usize = 8;

/// The bridge network of a daemon. `&self` methods are safe from several threads.
#[derive(Debug)]
pub struct Network {
    id: String,
    pub(crate) shared: Arc<Shared>,
    pool: Pool<Sandbox>,
    housekeeper: Housekeeper,
}

/// What the threads of a network have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) plan: Ruleset,
    host: HostNamespace,
    bridge: Mutex<Bridge>,
    route: Mutex<Socket>,
    netfilter: Mutex<Socket>,
    state: Mutex<State>,
    next_name: AtomicU32,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) addresses: AddressPool,
    ports: PortTable,
    endpoints: HashMap<String, Attached>,
}

/// A container as this network knows it; while it is being attached it has no address yet.
#[derive(Debug, Default)]
struct Attached {
    ipv4: Option<Ipv4Addr>,
    ipv6: Option<Ipv6Addr>,
    elements: Vec<Element>,
}

impl Network {
    /// Makes bridge and table where missing (idempotent), forgets all endpoints; `restore` brings back the live ones.
    ///
    /// A table left by an earlier daemon is replaced in one transaction. To keep published ports open meanwhile, use
    /// [`Network::open_with`].
    pub fn open(config: NetworkConfig) -> Result<Self, NetworkError> {
        Self::open_with(config, &[]).map(|(network, _)| network)
    }

    /// Like `open`, with the endpoints that are still alive: their ports are never closed, not for a moment. Returns
    /// those that could not be restored, with the reason.
    pub fn open_with(
        config: NetworkConfig,
        endpoints: &[Endpoint],
    ) -> Result<(Self, Vec<(Endpoint, NetworkError)>), NetworkError> {
        let host = HostNamespace::open(config.host_netns.as_deref())?;
        let plan = config.parse(sysctl::has_ipv6())?;
        let (route, netfilter, bridge) = host.run(|| {
            let mut route = Socket::open(Family::Route)?;
            let bridge = bridge::ensure(&mut route, &plan)?;
            Ok((route, Socket::open(Family::Netfilter)?, bridge))
        })?;
        let state =
            State { addresses: AddressPool::new(plan.subnet4), ports: PortTable::default(), endpoints: HashMap::new() };
        let id = id_of(&plan);
        let shared = Arc::new(Shared {
            plan,
            host,
            bridge: Mutex::new(bridge),
            route: Mutex::new(route),
            netfilter: Mutex::new(netfilter),
            state: Mutex::new(state),
            next_name: AtomicU32::new(random()),
        });
        let network = Self { id, shared, pool: Pool::new(SANDBOXES_READY), housekeeper: Housekeeper::default() };
        let mut failed = Vec::new();
        for endpoint in endpoints {
            if let Err(error) = network.register(endpoint) {
                failed.push((endpoint.clone(), error));
            }
        }
        network.replace_table()?;
        Ok((network, failed))
    }

    /// A new network namespace with `lo` up, kept alive by the returned descriptor only (`--network none`).
    ///
    /// Made on the spot; [`crate::NamespacePool`] has them ready.
    pub fn new_netns() -> Result<OwnedFd, NetworkError> {
        namespace::on_own_thread("make a network namespace", || Ok(namespace::enter_new(Ipv6::LoopbackOnly)?.fd))
    }

    /// Starts preparing sandboxes; without it the first `attach` does. Call it when all live endpoints are restored.
    pub fn prepare(&self) -> Result<(), NetworkError> {
        self.pool.start(|| {
            let shared = Arc::clone(&self.shared);
            let home = namespace::current()?;
            Ok(move || {
                let sandbox = Sandbox::build(&shared, None);
                // The thread must not keep the namespace alive after the container has gone.
                namespace::enter(&home)?;
                sandbox
            })
        })
    }

    /// How many sandboxes are ready to be attached without work.
    pub fn prepared(&self) -> usize {
        self.pool.len()
    }

    /// Namespace with `lo`, `eth0` on the bridge, routes, and the asked ports published. On error nothing is left.
    pub fn attach(
        &self,
        container_id: &str,
        ports: &[PortMapping],
        mac: Option<&str>,
    ) -> Result<(OwnedFd, Endpoint), NetworkError> {
        let mac = mac.map(parse_mac).transpose()?;
        let admission = Admission::new(&self.shared, container_id, ports)?;
        let sandbox = self.sandbox(mac)?;
        let elements = nft::elements(&admission.ports, sandbox.lease.ipv4, sandbox.lease.ipv6);
        self.publish(&elements)?;
        if serves_udp(&elements) {
            self.housekeeper.order(&self.shared, Chore::Published(elements.clone()));
        }
        let (subnet4, subnet6) = (self.shared.plan.subnet4, self.shared.plan.subnet6);
        let endpoint = Endpoint {
            container_id: container_id.to_owned(),
            mac: format_mac(sandbox.mac),
            ipv4: sandbox.lease.ipv4,
            ipv4_prefix: subnet4.prefix(),
            gateway_v4: subnet4.gateway(),
            ipv6: sandbox.lease.ipv6.zip(subnet6).map(|(ip, subnet)| (ip, subnet.prefix(), subnet.gateway())),
            ports: admission.complete(&sandbox.lease, elements),
            host_interface: sandbox.host_interface,
        };
        sandbox.lease.keep();
        if mac.is_none() {
            // The first attach starts the preparations for the next ones. They are not worth failing this one, which is
            // complete; without them the next is merely slower.
            drop(self.prepare());
        }
        Ok((sandbox.namespace, endpoint))
    }

    /// Takes note of an endpoint of an earlier daemon that is still alive, and publishes its ports again.
    ///
    /// A published port that a process of the host has taken meanwhile is restored all the same: its packets go to the
    /// container, as they did all the time.
    pub fn restore(&self, endpoint: &Endpoint) -> Result<(), NetworkError> {
        self.register(endpoint)?;
        let elements = nft::elements(&endpoint.ports, endpoint.ipv4, endpoint.ipv6.map(|(address, ..)| address));
        self.publish(&elements).inspect_err(|_| self.shared.forget(&endpoint.container_id))
    }

    /// Unpublishes ports and frees the address; the veth dies with its namespace, off the path. Idempotent.
    pub fn detach(&self, endpoint: &Endpoint) -> Result<(), NetworkError> {
        let elements = match self.shared.state().endpoints.get(&endpoint.container_id) {
            Some(attached) if attached.ipv4 == Some(endpoint.ipv4) => attached.elements.clone(),
            _ => return Ok(()),
        };
        nft::withdraw(&mut self.shared.netfilter(), &self.shared.plan.table, &elements)?;
        if let Some(addresses) = self.shared.retire(&endpoint.container_id) {
            let chore = Chore::Gone(addresses);
            self.housekeeper.order(&self.shared, chore);
        }
        Ok(())
    }

    /// Puts bridge settings and table back to what they must be, whatever happened to them. Idempotent; open connections
    /// are not disturbed.
    pub fn ensure_rules(&self) -> Result<(), NetworkError> {
        let shared = &self.shared;
        let bridge = shared.host.run(|| bridge::ensure(&mut shared.route(), &shared.plan))?;
        *shared.bridge.lock().unwrap_or_else(PoisonError::into_inner) = bridge;
        self.replace_table()
    }

    /// Whether the table is there; a cheap question for a watcher.
    pub fn rules_present(&self) -> Result<bool, NetworkError> {
        nft::exists(&mut self.shared.netfilter(), &self.shared.plan.table)
    }

    /// Removes bridge and table (private instances, tests).
    pub fn destroy(&self) -> Result<(), NetworkError> {
        self.pool.stop();
        let shared = &self.shared;
        let table = nft::destroy(&mut shared.netfilter(), &shared.plan.table);
        let bridge = bridge::remove(&mut shared.route(), &shared.plan);
        let ids: Vec<String> = shared.state().endpoints.keys().cloned().collect();
        ids.iter().for_each(|id| shared.forget(id));
        table.and(bridge)
    }

    /// 64 hexadecimal digits, always the same for the same bridge and table.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn bridge_name(&self) -> &str {
        &self.shared.plan.bridge
    }

    pub fn subnet(&self) -> Subnet4 {
        self.shared.plan.subnet4
    }

    /// `None` without IPv6: not asked for, or not there on this host.
    pub fn subnet6(&self) -> Option<Subnet6> {
        self.shared.plan.subnet6
    }

    pub fn mtu(&self) -> u32 {
        self.shared.bridge().mtu
    }

    /// Addresses in use, those of prepared sandboxes included.
    pub fn addresses_in_use(&self) -> usize {
        self.shared.state().addresses.in_use()
    }

    fn sandbox(&self, mac: Option<Mac>) -> Result<Sandbox, NetworkError> {
        if mac.is_none()
            && let Some(sandbox) = self.pool.take()
        {
            return Ok(sandbox);
        }
        let built = namespace::on_own_thread("make a network namespace", || Sandbox::build(&self.shared, mac));
        match built {
            // The last address may be that of a sandbox which is just being prepared.
            Err(NetworkError::AddressesExhausted { .. }) if mac.is_none() => {
                self.pool.settle();
                self.pool.take().map_or(built, Ok)
            }
            other => other,
        }
    }

    fn register(&self, endpoint: &Endpoint) -> Result<(), NetworkError> {
        let plan = &self.shared.plan;
        if !plan.subnet4.contains(endpoint.ipv4) {
            let subnet = plan.subnet4.to_string();
            return Err(NetworkError::AddressOutside { address: endpoint.ipv4, subnet });
        }
        let claim = || self.shared.host.run(|| self.shared.state().claim(endpoint));
        match claim() {
            // A prepared sandbox may have the address; it gives way.
            Err(NetworkError::AddressTaken { owner: None, .. }) => {
                self.pool.settle();
                self.pool.discard(|sandbox| sandbox.lease.ipv4 == endpoint.ipv4);
                claim()
            }
            other => other,
        }
    }

    /// One transaction; when the table is gone (somebody flushed the rules), it is put back first.
    fn publish(&self, elements: &[Element]) -> Result<(), NetworkError> {
        let publish = || nft::publish(&mut self.shared.netfilter(), &self.shared.plan.table, elements);
        match publish() {
            Err(error) if error.errno() == Some(Errno::NOENT) => {
                self.replace_table()?;
                publish()
            }
            other => other,
        }
    }

    fn replace_table(&self) -> Result<(), NetworkError> {
        let shared = &self.shared;
        // The socket first: no port is published or withdrawn between reading what there is and writing it.
        let mut netfilter = shared.netfilter();
        let mut published: Vec<Element> =
            shared.state().endpoints.values().flat_map(|attached| attached.elements.clone()).collect();
        published.sort();
        nft::replace(&mut netfilter, &shared.plan, &published)
    }
}

fn id_of(plan: &Ruleset) -> String {
    (0..4)
        .map(|part: u8| format!("{:016x}", fnv1a(&[&[part], plan.bridge.as_bytes(), plan.table.as_bytes()])))
        .collect()
}

impl Shared {
    pub(crate) fn bridge(&self) -> Bridge {
        *self.bridge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn route(&self) -> MutexGuard<'_, Socket> {
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other programs leave interfaces called `veth...` alone, and so do we.
    pub(crate) fn interface_name(&self) -> String {
        format!("veth{:08x}", self.next_name.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn netfilter(&self) -> MutexGuard<'_, Socket> {
        self.netfilter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` in the host's namespace.
    pub(crate) fn in_host<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, NetworkError> + Send,
    ) -> Result<T, NetworkError> {
        self.host.run(work)
    }

    /// Forgets a container. Its addresses come back when the flows to them are to be forgotten first; they are still
    /// taken then.
    fn retire(&self, container_id: &str) -> Option<Vec<IpAddr>> {
        let mut state = self.state();
        state.ports.release(container_id);
        let attached = state.endpoints.remove(container_id)?;
        let ipv4 = attached.ipv4?;
        if !serves_udp(&attached.elements) {
            state.addresses.release(ipv4);
            return None;
        }
        Some(std::iter::once(ipv4.into()).chain(attached.ipv6.map(IpAddr::from)).collect())
    }

    fn forget(&self, container_id: &str) {
        let mut state = self.state();
        state.ports.release(container_id);
        if let Some(Attached { ipv4: Some(ipv4), .. }) = state.endpoints.remove(container_id) {
            state.addresses.release(ipv4);
        }
    }
}

impl State {
    /// Enters an endpoint with the address and the ports it has, or changes nothing.
    fn claim(&mut self, endpoint: &Endpoint) -> Result<(), NetworkError> {
        let id = &endpoint.container_id;
        let ipv6 = endpoint.ipv6.map(|(address, ..)| address);
        if self.endpoints.contains_key(id) {
            return Err(NetworkError::AlreadyAttached { container_id: id.clone() });
        }
        if !self.addresses.claim(endpoint.ipv4) {
            let owner = self.endpoints.iter().find(|(_, attached)| attached.ipv4 == Some(endpoint.ipv4));
            let owner = owner.map(|(id, _)| id.clone());
            return Err(NetworkError::AddressTaken { address: endpoint.ipv4, owner });
        }
        if let Err(error) = self.ports.restore(id, &endpoint.ports, ipv6.is_some()) {
            self.addresses.release(endpoint.ipv4);
            return Err(error);
        }
        let elements = nft::elements(&endpoint.ports, endpoint.ipv4, ipv6);
        self.endpoints.insert(id.clone(), Attached { ipv4: Some(endpoint.ipv4), ipv6, elements });
        Ok(())
    }
}

/// A container that is being attached: its name and its ports are reserved, and given back unless it completes.
struct Admission<'a> {
    shared: &'a Shared,
    container_id: &'a str,
    ports: Vec<PortMapping>,
    completed: bool,
}

impl<'a> Admission<'a> {
    fn new(shared: &'a Shared, container_id: &'a str, asked: &[PortMapping]) -> Result<Self, NetworkError> {
        let reserve = || {
            let mut state = shared.state();
            if state.endpoints.contains_key(container_id) {
                return Err(NetworkError::AlreadyAttached { container_id: container_id.to_owned() });
            }
            let ports = state.ports.reserve(container_id, asked, shared.plan.subnet6.is_some())?;
            state.endpoints.insert(container_id.to_owned(), Attached::default());
            Ok(ports)
        };
        // No port, no reason to visit the host's namespace.
        let ports = if asked.is_empty() { reserve()? } else { shared.host.run(reserve)? };
        Ok(Self { shared, container_id, ports, completed: false })
    }

    fn complete(mut self, lease: &Lease, elements: Vec<Element>) -> Vec<PortMapping> {
        self.completed = true;
        let attached = Attached { ipv4: Some(lease.ipv4), ipv6: lease.ipv6, elements };
        self.shared.state().endpoints.insert(self.container_id.to_owned(), attached);
        std::mem::take(&mut self.ports)
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if !self.completed {
            self.shared.forget(self.container_id);
        }
    }
}

/// The first of `candidates` that no route of the host reaches by another interface than `own_bridge`.
pub fn free_subnet(candidates: &[&str], own_bridge: &str, host_netns: Option<&Path>) -> Result<Subnet4, NetworkError> {
    let mut refused =
        NetworkError::Invalid { what: "list of subnets", value: candidates.join(" "), reason: "it is empty" };
    let mut socket = HostNamespace::open(host_netns)?.run(|| Socket::open(Family::Route))?;
    for candidate in candidates {
        let subnet: Subnet4 = candidate.parse()?;
        match bridge::route_conflict(&mut socket, subnet, own_bridge)? {
            None => return Ok(subnet),
            Some(interface) => refused = NetworkError::SubnetTaken { subnet: subnet.to_string(), interface },
        }
    }
    Err(refused)
}

fn serves_udp(elements: &[Element]) -> bool {
    elements.iter().any(|element| element.protocol() == Protocol::Udp)
}

/// Where interface names start, so that two daemons rarely try the same.
fn random() -> u32 {
    let mut bytes = [0; 4];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(4) => u32::from_ne_bytes(bytes),
        _ => std::process::id().wrapping_mul(0x9e37_79b9),
    }
}

fn fnv1a(parts: &[&[u8]]) -> u64 {
    parts
        .concat()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
