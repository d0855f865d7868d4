//! Published ports: from where they answer, and who may have them.

use std::net::{TcpListener, UdpSocket};

use berth_network::{NetworkError, Protocol};
use berth_types::{Classify as _, ErrorClass};

use crate::world::{Container, HOST, OUTSIDE, World, ip, tcp, udp};

#[test]
fn published_ports_answer_from_everywhere() {
    let world = World::new();
    let network = world.network();
    let container = Container::attach(&network, "a", &[tcp(None, 8080, 80), udp(None, 5353, 53)]);
    let other = Container::attach(&network, "b", &[]);
    let _tcp = container.machine.serve("0.0.0.0:80");
    let _udp = container.machine.serve_udp("0.0.0.0:53");
    let (web, dns) = (format!("{HOST}:8080"), format!("{HOST}:5353"));
    assert_eq!(world.outside.call(&web).unwrap(), ip(OUTSIDE), "with the caller's own address");
    assert_eq!(world.outside.call_udp(&dns).unwrap(), ip(OUTSIDE));
    assert_eq!(world.host.call(&web).unwrap(), ip(HOST));
    assert_eq!(world.host.call("127.0.0.1:8080").unwrap(), ip("172.30.0.1"), "from localhost");
    assert_eq!(world.host.call_udp("127.0.0.1:5353").unwrap(), ip("172.30.0.1"));
    for caller in [&other, &container] {
        for address in [HOST, "172.30.0.1"] {
            caller.machine.call(&format!("{address}:8080")).unwrap();
            caller.machine.call_udp(&format!("{address}:5353")).unwrap();
        }
    }
}

#[test]
fn a_port_of_one_host_address_answers_there_only() {
    let world = World::new();
    let network = world.network();
    world.host.busybox(&["ip", "addr", "add", "192.0.2.77/24", "dev", "eth0"]);
    let ports = [tcp(Some(HOST), 8080, 80), tcp(Some("127.0.0.1"), 8081, 80), tcp(Some("0.0.0.0"), 8082, 80)];
    let container = Container::attach(&network, "a", &ports);
    let _server = container.machine.serve("0.0.0.0:80");
    let reached = |port: u16, address: &str| world.outside.call(&format!("{address}:{port}")).is_ok();
    assert_eq!((reached(8080, HOST), reached(8080, "192.0.2.77")), (true, false));
    assert_eq!((reached(8081, HOST), reached(8081, "192.0.2.77")), (false, false));
    assert_eq!((reached(8082, HOST), reached(8082, "192.0.2.77")), (true, true));
    world.host.call("127.0.0.1:8081").unwrap();
    world.host.assert_refused("127.0.0.1:8080");
}

#[test]
fn the_same_port_on_two_addresses_goes_to_two_containers() {
    let world = World::new();
    let network = world.network();
    let one = Container::attach(&network, "a", &[tcp(Some(HOST), 8080, 80)]);
    let two = Container::attach(&network, "b", &[tcp(Some("127.0.0.1"), 8080, 81)]);
    let _one = one.machine.serve("0.0.0.0:80");
    let _two = two.machine.serve("0.0.0.0:81");
    world.outside.call(&format!("{HOST}:8080")).unwrap();
    world.host.call("127.0.0.1:8080").unwrap();
}

#[test]
fn a_port_published_twice_is_refused_by_name_and_nothing_stays() {
    let world = World::new();
    let network = world.network();
    let first = Container::attach(&network, "first", &[tcp(None, 8080, 80)]);
    let before = world.host.nft(&["list", "table", "inet", "berth"]);
    for port in [tcp(None, 8080, 81), tcp(Some("127.0.0.1"), 8080, 81)] {
        let refused = network.attach("second", &[tcp(None, 9090, 81), port], None).unwrap_err();
        let NetworkError::PortPublished { owner, port, protocol, .. } = &refused else { panic!("{refused}") };
        assert_eq!((owner.as_str(), *port, *protocol), ("first", 8080, Protocol::Tcp));
        assert_eq!(refused.class(), ErrorClass::AlreadyExists);
        assert!(refused.hint().is_some());
    }
    let twice = network.attach("second", &[tcp(None, 9090, 81), tcp(None, 9090, 82)], None).unwrap_err();
    assert_eq!(twice.to_string(), "port 9090/tcp on 0.0.0.0 is already published by container second");
    assert_eq!(world.host.nft(&["list", "table", "inet", "berth"]), before);
    let in_use = || network.addresses_in_use() - network.prepared();
    crate::world::wait_until("only one container has an address", || in_use() == 1);
    network.detach(&first.endpoint).unwrap();
    Container::attach(&network, "second", &[tcp(None, 9090, 81), tcp(None, 8080, 81), udp(None, 8080, 81)]);
}

#[test]
fn a_port_of_a_process_of_the_host_is_refused() {
    let world = World::new();
    let network = world.network();
    let _listener = world.host.run(|| TcpListener::bind("127.0.0.1:8080")).unwrap();
    let _socket = world.host.run(|| UdpSocket::bind("0.0.0.0:8080")).unwrap();
    for (port, protocol) in [(tcp(None, 8080, 80), "tcp"), (udp(Some("127.0.0.1"), 8080, 80), "udp")] {
        let refused = network.attach("a", &[port], None).unwrap_err();
        assert!(matches!(refused, NetworkError::PortBusy { .. }), "{refused}");
        assert!(refused.to_string().starts_with(&format!("port 8080/{protocol} on ")), "{refused}");
        assert!(refused.to_string().ends_with(&format!("(pid {})", std::process::id())), "{refused}");
        assert_eq!(refused.class(), ErrorClass::AlreadyExists);
    }
    Container::attach(&network, "a", &[tcp(Some(HOST), 8080, 80)]);
}

#[test]
fn a_published_port_is_taken_for_processes_of_the_host_until_it_is_withdrawn() {
    let world = World::new();
    let network = world.network();
    let container = Container::attach(&network, "a", &[tcp(None, 8080, 80), udp(None, 8080, 80)]);
    let listen = || world.host.run(|| TcpListener::bind("0.0.0.0:8080")).map(drop);
    let bind = || world.host.run(|| UdpSocket::bind("127.0.0.1:8080")).map(drop);
    assert_eq!(listen().unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    assert_eq!(bind().unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    network.detach(&container.endpoint).unwrap();
    listen().unwrap();
    // Programs that other tests are just starting have copies of our sockets until they are executed.
    crate::world::wait_until("the port is free", || bind().is_ok());
}

#[test]
fn port_zero_picks_a_free_one_and_says_which() {
    let world = World::new();
    let network = world.network();
    world.host.run(|| std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40003")).unwrap();
    let _busy = world.host.run(|| TcpListener::bind("127.0.0.1:40001")).unwrap();
    let container = Container::attach(&network, "a", &[tcp(None, 0, 80), tcp(None, 0, 80), tcp(None, 0, 80)]);
    let ports: Vec<_> = container.endpoint.ports.iter().map(|mapping| mapping.host_port).collect();
    assert_eq!(ports, [40000, 40002, 40003]);
    let refused = network.attach("b", &[tcp(None, 0, 80)], None).unwrap_err();
    assert_eq!(refused.to_string(), "no free tcp port left between 40000 and 40003");
    assert_eq!(refused.class(), ErrorClass::ResourceExhausted);
    let _server = container.machine.serve("0.0.0.0:80");
    assert_eq!(world.outside.call(&format!("{HOST}:40002")).unwrap(), ip(OUTSIDE));
}

#[test]
fn a_range_of_ports_is_one_transaction() {
    let world = World::new();
    let network = world.network();
    let ports: Vec<_> = (20_000..21_000).map(|port| tcp(None, port, port)).collect();
    let container = Container::attach(&network, "a", &ports);
    let _server = container.machine.serve("0.0.0.0:20999");
    assert_eq!(world.outside.call(&format!("{HOST}:20999")).unwrap(), ip(OUTSIDE));
    network.detach(&container.endpoint).unwrap();
    let table = world.host.nft(&["list", "table", "inet", "berth"]);
    assert!(!table.contains("elements"), "{table}");
}

#[test]
fn addresses_to_publish_on_are_checked() {
    let world = World::new();
    let network = world.network();
    let refused = network.attach("a", &[tcp(Some("198.51.100.1"), 80, 80)], None).unwrap_err();
    assert_eq!(refused.to_string(), "address 198.51.100.1 to publish on is not an address of this host");
    assert_eq!(refused.class(), ErrorClass::InvalidArgument);
    let refused = network.attach("a", &[tcp(Some("2001:db8::1"), 80, 80)], None).unwrap_err();
    assert_eq!(refused.to_string(), "cannot publish on the IPv6 address 2001:db8::1: this network has no IPv6");
    let refused = network.attach("a", &[tcp(Some("::1"), 80, 80)], None).unwrap_err();
    assert_eq!(refused.to_string(), "cannot publish on ::1: the kernel lets no packet from ::1 reach a bridge");
}

/// A caller that goes on sending from the same port is a flow the kernel remembers; it must not be led to where nobody
/// is, neither by a container that has gone nor by having begun too early.
#[test]
fn an_endless_udp_flow_follows_the_port() {
    let world = World::new();
    let network = world.network();
    let caller = world.outside.run(|| UdpSocket::bind("0.0.0.0:40000")).unwrap();
    caller.set_read_timeout(Some(std::time::Duration::from_millis(20))).unwrap();
    let dns: std::net::SocketAddr = format!("{HOST}:5353").parse().unwrap();
    let answered = || {
        let mut buffer = [0; 64];
        caller.send_to(b"hello", dns).unwrap();
        caller.recv(&mut buffer).is_ok()
    };
    assert!(!answered(), "nothing is published yet");
    let first = Container::attach(&network, "first", &[udp(None, 5353, 53)]);
    let server = first.machine.serve_udp("0.0.0.0:53");
    crate::world::wait_until("the first container answers", answered);
    drop(server);
    network.detach(&first.endpoint).unwrap();
    let second = Container::attach(&network, "second", &[udp(None, 5353, 53)]);
    let _server = second.machine.serve_udp("0.0.0.0:53");
    crate::world::wait_until("the second container answers", answered);
}

/// What the kernel is found to have is what was made; entries and interfaces that somebody takes away are missed.
#[test]
fn an_endpoint_is_observed_as_the_kernel_has_it() {
    let world = World::new();
    let network = world.network();
    let container = Container::attach(&network, "a", &[tcp(None, 8080, 80), udp(Some(HOST), 5353, 53)]);
    let observed = network.observe(&container.endpoint).unwrap();
    let link = observed.link.unwrap();
    assert_eq!((link.master.as_deref(), link.is_up), (Some(network.bridge_name()), true));
    assert_eq!(observed.ports.len(), 2);
    assert!(observed.ports.iter().all(|port| port.found == Some(port.wanted)), "{:?}", observed.ports);
    assert!(world.host.nft(&["list", "table", "inet", "berth"]).contains("8080"));
    world.host.nft(&["delete", "element", "inet", "berth", "published4", "{ tcp . 8080 }"]);
    world.host.busybox(&["ip", "link", "set", &container.endpoint.host_interface, "nomaster", "down"]);
    let observed = network.observe(&container.endpoint).unwrap();
    let link = observed.link.unwrap();
    assert_eq!((link.master, link.is_up), (None, false));
    let missing: Vec<u16> = observed.ports.iter().filter(|p| p.found.is_none()).map(|p| p.host_port).collect();
    assert_eq!(missing, [8080]);
}
