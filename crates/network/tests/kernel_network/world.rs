//! A small internet for each test.
//!
//! ```text
//! internet ns: bridge "net0" 192.0.2.1/24, 2001:db8::1/64
//!    |-- outside ns  192.0.2.2   a machine elsewhere
//!    |-- host ns     192.0.2.3   the machine under test: its networks are what the tests are about
//!           |-- berth0 172.30.0.1/24: containers
//! ```
//!
//! The internet is itself made by the crate under test, which saves a second way of making links.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use berth_network::{Endpoint, Network, NetworkConfig, PortMapping, Protocol};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const HOST: &str = "192.0.2.3";
pub(crate) const OUTSIDE: &str = "192.0.2.2";

/// A machine: a network namespace.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) netns: OwnedFd,
}

impl Machine {
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.netns.as_raw_fd()))
    }

    /// Runs `work` on a thread inside.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(self.netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    /// Runs a program of the peers inside and returns what it printed.
    pub(crate) fn output(&self, program: &str, args: &[&str]) -> String {
        let root = peers().join("root");
        let path = root.join(program);
        assert!(path.exists(), "{} is missing: run tests/fetch-peers.sh", path.display());
        let output = self.run(|| {
            Command::new(&path)
                .args(args)
                .env("LD_LIBRARY_PATH", root.join("usr/lib/x86_64-linux-gnu"))
                .stdin(Stdio::null())
                .output()
                .unwrap()
        });
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn busybox(&self, args: &[&str]) -> String {
        self.output("bin/busybox", args)
    }

    pub(crate) fn nft(&self, args: &[&str]) -> String {
        self.output("usr/sbin/nft", args)
    }

    /// Names of the interfaces, in the kernel's order.
    pub(crate) fn interfaces(&self) -> Vec<String> {
        let text = self.run(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap());
        text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
    }

    pub(crate) fn veth_count(&self) -> usize {
        self.interfaces().iter().filter(|name| name.starts_with("veth")).count()
    }

    pub(crate) fn sysctl(&self, name: &str) -> String {
        self.run(|| std::fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap().trim().to_owned())
    }

    /// A TCP server that answers each caller with the address it saw, until it is dropped.
    pub(crate) fn serve(&self, address: &str) -> Server {
        Server::start(self, address)
    }

    /// A UDP server that does the same.
    pub(crate) fn serve_udp(&self, address: &str) -> Server {
        Server::start_udp(self, address)
    }

    /// Calls a server; returns the address it saw us under.
    pub(crate) fn call(&self, address: &str) -> std::io::Result<IpAddr> {
        self.call_within(address, DEADLINE)
    }

    pub(crate) fn call_within(&self, address: &str, limit: Duration) -> std::io::Result<IpAddr> {
        let address: SocketAddr = address.parse().unwrap();
        self.run(|| {
            let mut stream = TcpStream::connect_timeout(&address, limit)?;
            stream.set_read_timeout(Some(DEADLINE))?;
            let mut seen = String::new();
            stream.read_to_string(&mut seen)?;
            Ok(seen.parse().unwrap())
        })
    }

    pub(crate) fn call_udp(&self, address: &str) -> std::io::Result<IpAddr> {
        let address: SocketAddr = address.parse().unwrap();
        self.run(|| {
            let any: SocketAddr = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
            let socket = UdpSocket::bind(any)?;
            socket.set_read_timeout(Some(DEADLINE))?;
            socket.connect(address)?;
            socket.send(b"hello")?;
            let mut seen = [0; 64];
            let length = socket.recv(&mut seen)?;
            Ok(std::str::from_utf8(&seen[..length]).unwrap().parse().unwrap())
        })
    }

    /// Nobody answers there: neither accepted nor refused, the packets are dropped.
    pub(crate) fn assert_dropped(&self, address: &str) {
        let error = self.call_within(address, Duration::from_millis(700)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{address}: {error}");
    }

    pub(crate) fn assert_refused(&self, address: &str) {
        let error = self.call(address).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{address}: {error}");
    }
}

#[derive(Debug)]
pub(crate) struct Server {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start(machine: &Machine, address: &str) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        let listener = machine.run(|| TcpListener::bind(address)).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self::spawn(move || {
            if let Ok((mut stream, peer)) = listener.accept() {
                drop(stream.write_all(peer.ip().to_canonical().to_string().as_bytes()));
            }
        })
    }

    fn start_udp(machine: &Machine, address: &str) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        let socket = machine.run(|| UdpSocket::bind(address)).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self::spawn(move || {
            let mut buffer = [0; 64];
            if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                drop(socket.send_to(peer.ip().to_canonical().to_string().as_bytes(), peer));
            }
        })
    }

    fn spawn(mut step: impl FnMut() + Send + 'static) -> Self {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let seen = std::sync::Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !seen.load(std::sync::atomic::Ordering::Relaxed) {
                step();
                std::thread::park_timeout(Duration::from_millis(2));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            drop(thread.join());
        }
    }
}

/// The internet, one machine on it elsewhere, and the host under test.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) host: Machine,
    pub(crate) outside: Machine,
    /// Alive as long as the world.
    _internet: (Machine, Network),
}

impl World {
    pub(crate) fn new() -> Self {
        let internet = Machine { netns: Network::new_netns().unwrap() };
        let net = Network::open(NetworkConfig {
            bridge_name: "net0".to_owned(),
            ipv4_subnet: "192.0.2.0/24".to_owned(),
            ipv6_subnet: Some("2001:db8::/64".to_owned()),
            nft_table: "internet".to_owned(),
            host_netns: Some(internet.path()),
        })
        .unwrap();
        let mac = |last: u8| format!("02:00:00:00:00:{last:02x}");
        let (outside, at_outside) = net.attach("outside", &[], Some(&mac(2))).unwrap();
        let (host, at_host) = net.attach("host", &[], Some(&mac(3))).unwrap();
        assert_eq!(at_outside.ipv4.to_string(), OUTSIDE);
        assert_eq!(at_host.ipv4.to_string(), HOST);
        Self { host: Machine { netns: host }, outside: Machine { netns: outside }, _internet: (internet, net) }
    }

    pub(crate) fn config(&self) -> NetworkConfig {
        NetworkConfig {
            bridge_name: "berth0".to_owned(),
            ipv4_subnet: "172.30.0.0/24".to_owned(),
            ipv6_subnet: None,
            nft_table: "berth".to_owned(),
            host_netns: Some(self.host.path()),
        }
    }

    pub(crate) fn network(&self) -> Network {
        Network::open(self.config()).unwrap()
    }
}

/// A container: its namespace and what it got.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) machine: Machine,
    pub(crate) endpoint: Endpoint,
}

impl Container {
    pub(crate) fn attach(network: &Network, id: &str, ports: &[PortMapping]) -> Self {
        let (netns, endpoint) = network.attach(id, ports, None).unwrap();
        Self { machine: Machine { netns }, endpoint }
    }

    pub(crate) fn at(&self, port: u16) -> String {
        format!("{}:{port}", self.endpoint.ipv4)
    }
}

pub(crate) fn tcp(host_ip: Option<&str>, host_port: u16, container_port: u16) -> PortMapping {
    mapping(Protocol::Tcp, host_ip, host_port, container_port)
}

pub(crate) fn udp(host_ip: Option<&str>, host_port: u16, container_port: u16) -> PortMapping {
    mapping(Protocol::Udp, host_ip, host_port, container_port)
}

fn mapping(protocol: Protocol, host_ip: Option<&str>, host_port: u16, container_port: u16) -> PortMapping {
    PortMapping { protocol, host_ip: host_ip.map(|ip| ip.parse().unwrap()), host_port, container_port }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "in vain waited until {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn peers() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "a test is told by the environment where the peers are")]
    let told = std::env::var("BERTH_PEERS");
    told.map_or_else(|_| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/peers"), PathBuf::from)
}
