//! From open to destroy: crashes, repairs, many rounds, and what is left.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use berth_network::{NamespacePool, Network, NetworkConfig, NetworkError, free_subnet};
use berth_types::{Classify as _, ErrorClass};

use crate::world::{Container, HOST, OUTSIDE, World, ip, tcp, udp, wait_until};

#[test]
fn destroy_leaves_nothing() {
    let world = World::new();
    let before = world.host.interfaces();
    let network = world.network();
    let container = Container::attach(&network, "a", &[tcp(None, 8080, 80)]);
    wait_until("sandboxes are prepared", || network.prepared() > 0);
    network.destroy().unwrap();
    drop(container);
    assert_eq!(world.host.nft(&["list", "ruleset"]), "");
    wait_until("the interfaces have gone", || world.host.interfaces() == before);
    assert!(world.host.run(|| TcpListener::bind("0.0.0.0:8080")).is_ok(), "the port is free");
    network.destroy().unwrap();
}

#[test]
fn two_hundred_rounds_leave_no_address_element_or_interface() {
    let world = World::new();
    let network = world.network();
    let table = world.host.nft(&["list", "table", "inet", "berth"]);
    let mut seen = BTreeSet::new();
    for round in 0..200_u16 {
        let ports = [tcp(None, 8080, 80), udp(Some("127.0.0.1"), 0, 53)];
        let ports = if round % 2 == 0 { &ports[..] } else { &[] };
        let container = Container::attach(&network, &format!("c{round}"), ports);
        seen.insert(container.endpoint.host_interface.clone());
        network.detach(&container.endpoint).unwrap();
        network.detach(&container.endpoint).unwrap();
    }
    assert_eq!(seen.len(), 200, "no sandbox is used twice");
    assert_eq!(world.host.nft(&["list", "table", "inet", "berth"]), table);
    wait_until("only prepared sandboxes have addresses and interfaces", || {
        let prepared = network.prepared();
        prepared == 8 && network.addresses_in_use() == prepared && world.host.veth_count() == prepared
    });
    drop(network);
    wait_until("the last interfaces have gone", || world.host.veth_count() == 0);
}

#[test]
fn attaching_from_many_threads() {
    let world = World::new();
    let network = world.network();
    let endpoints: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let network = &network;
                scope.spawn(move || {
                    let attach = |n| Container::attach(network, &format!("c{thread}-{n}"), &[tcp(None, 0, 80)]);
                    (0..8).map(attach).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let addresses: BTreeSet<_> = endpoints.iter().map(|container| container.endpoint.ipv4).collect();
    let ports: BTreeSet<_> = endpoints.iter().map(|container| container.endpoint.ports[0].host_port).collect();
    assert_eq!((addresses.len(), ports.len()), (64, 64));
    let last = endpoints.last().unwrap();
    let _server = last.machine.serve("0.0.0.0:80");
    world.outside.call(&format!("{HOST}:{}", last.endpoint.ports[0].host_port)).unwrap();
    for container in &endpoints {
        network.detach(&container.endpoint).unwrap();
    }
    wait_until("their addresses are free", || network.addresses_in_use() == network.prepared());
}

/// S-132: the daemon dies and another takes over; containers, connections and published ports live on.
#[test]
fn s132_another_daemon_takes_over() {
    let world = World::new();
    let network = world.network();
    let container = Container::attach(&network, "a", &[tcp(None, 8080, 80)]);
    let gone = Container::attach(&network, "gone", &[tcp(None, 8081, 80)]);
    let listener = container.machine.run(|| TcpListener::bind("0.0.0.0:80")).unwrap();
    let mut client = world.outside.run(|| TcpStream::connect(format!("{HOST}:8080"))).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    drop(listener);
    drop(network);
    let _squatter = world.host.run(|| TcpListener::bind("0.0.0.0:8080")).unwrap();

    let mut outside_subnet = container.endpoint.clone();
    outside_subnet.container_id = "moved".to_owned();
    outside_subnet.ipv4 = "10.9.9.9".parse().unwrap();
    let alive = [container.endpoint.clone(), outside_subnet];
    let (network, failed) = Network::open_with(world.config(), &alive).unwrap();
    assert_eq!(failed.len(), 1);
    assert!(matches!(failed[0].1, NetworkError::AddressOutside { .. }), "{}", failed[0].1);
    client.write_all(b"still here").unwrap();
    let mut text = [0; 10];
    server.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"still here");
    let _server = container.machine.serve("0.0.0.0:80");
    assert_eq!(world.outside.call(&format!("{HOST}:8080")).unwrap(), ip(OUTSIDE));
    world.outside.assert_refused(&format!("{HOST}:8081"));

    let again = network.restore(&container.endpoint).unwrap_err();
    assert!(matches!(again, NetworkError::AlreadyAttached { .. }), "{again}");
    let mut same_address = gone.endpoint.clone();
    same_address.ipv4 = container.endpoint.ipv4;
    let refused = network.restore(&same_address).unwrap_err();
    assert_eq!(refused.to_string(), "address 172.30.0.2 belongs to container a");
    network.restore(&gone.endpoint).unwrap();
    let _gone = gone.machine.serve("0.0.0.0:80");
    assert_eq!(world.outside.call(&format!("{HOST}:8081")).unwrap(), ip(OUTSIDE));
    let fresh = Container::attach(&network, "fresh", &[]);
    assert_ne!(fresh.endpoint.ipv4, container.endpoint.ipv4);
    assert_ne!(fresh.endpoint.ipv4, gone.endpoint.ipv4);
}

/// A prepared sandbox gives way when its address turns out to belong to a container that is still alive.
#[test]
fn restoring_takes_the_address_back_from_a_prepared_sandbox() {
    let world = World::new();
    let first = world.network();
    let container = Container::attach(&first, "a", &[]);
    drop(first);
    let network = world.network();
    network.prepare().unwrap();
    wait_until("sandboxes are prepared", || network.prepared() == 8);
    network.restore(&container.endpoint).unwrap();
    let others: Vec<_> = (0..9).map(|n| Container::attach(&network, &format!("c{n}"), &[])).collect();
    assert!(others.iter().all(|other| other.endpoint.ipv4 != container.endpoint.ipv4));
}

#[test]
fn flushed_rules_come_back() {
    let world = World::new();
    let network = world.network();
    let container = Container::attach(&network, "a", &[tcp(None, 8080, 80)]);
    let _server = container.machine.serve("0.0.0.0:80");
    let before = world.host.nft(&["list", "ruleset"]);
    network.ensure_rules().unwrap();
    assert_eq!(world.host.nft(&["list", "ruleset"]), before);
    assert!(network.rules_present().unwrap());
    world.host.nft(&["flush", "ruleset"]);
    assert!(!network.rules_present().unwrap());
    network.ensure_rules().unwrap();
    assert_eq!(world.host.nft(&["list", "ruleset"]), before);
    assert_eq!(world.outside.call(&format!("{HOST}:8080")).unwrap(), ip(OUTSIDE));
    world.host.nft(&["flush", "ruleset"]);
    let other = Container::attach(&network, "b", &[tcp(None, 8081, 80)]);
    assert_eq!(world.outside.call(&format!("{HOST}:8080")).unwrap(), ip(OUTSIDE), "publishing repairs, too");
    world.host.nft(&["flush", "ruleset"]);
    network.detach(&other.endpoint).unwrap();
}

#[test]
fn prepared_sandboxes_are_whole() {
    let world = World::new();
    let network = world.network();
    network.prepare().unwrap();
    wait_until("sandboxes are prepared", || network.prepared() == 8);
    let _outside = world.outside.serve("0.0.0.0:80");
    let container = Container::attach(&network, "a", &[]);
    assert_eq!(container.machine.interfaces(), ["lo", "eth0"]);
    assert_eq!(container.machine.call(&format!("{OUTSIDE}:80")).unwrap(), ip(HOST));
    wait_until("another one is prepared", || network.prepared() == 8);
}

/// What is in the way of preparing when a daemon comes up goes away later, and nobody starts a container then.
#[test]
fn sandboxes_that_could_not_be_prepared_are_prepared_without_an_attach() {
    let world = World::new();
    let config = || NetworkConfig { ipv4_subnet: "172.30.0.0/29".to_owned(), ..world.config() };
    let first = Network::open(config()).unwrap();
    let alive: Vec<_> = (0..5).map(|n| Container::attach(&first, &format!("c{n}"), &[])).collect();
    drop(first);
    let endpoints: Vec<_> = alive.iter().map(|container| container.endpoint.clone()).collect();
    let (network, failed) = Network::open_with(config(), &endpoints).unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    network.prepare().unwrap();
    // Neither does the thread find an address.
    let refused = network.attach("more", &[], None).unwrap_err();
    assert_eq!(refused.class(), ErrorClass::ResourceExhausted);
    assert_eq!(network.prepared(), 0);
    for endpoint in &endpoints {
        network.detach(endpoint).unwrap();
    }
    wait_until("sandboxes are prepared", || network.prepared() == 5);
}

#[test]
fn namespaces_prepared_for_network_none() {
    let pool = NamespacePool::new(2);
    let first = crate::world::Machine { netns: pool.take().unwrap() };
    wait_until("namespaces are prepared", || pool.prepared() == 2);
    let second = crate::world::Machine { netns: pool.take().unwrap() };
    assert_eq!((first.interfaces(), second.interfaces()), (vec!["lo".to_owned()], vec!["lo".to_owned()]));
    let inode = |machine: &crate::world::Machine| rustix::fs::fstat(&machine.netns).unwrap().st_ino;
    assert_ne!(inode(&first), inode(&second));
    let _server = second.serve("127.0.0.1:80");
    second.call("127.0.0.1:80").unwrap();
}

#[test]
fn a_mac_address_of_ones_own() {
    let world = World::new();
    let network = world.network();
    let (netns, endpoint) = network.attach("a", &[], Some("02:00:00:AA:bb:01")).unwrap();
    assert_eq!(endpoint.mac, "02:00:00:aa:bb:01");
    let link = crate::world::Machine { netns }.busybox(&["ip", "-o", "link", "show", "eth0"]);
    assert!(link.contains("02:00:00:aa:bb:01"), "{link}");
    let refused = network.attach("b", &[], Some("ff:ff:ff:ff:ff:ff")).unwrap_err();
    assert_eq!(refused.class(), ErrorClass::InvalidArgument);
}

#[test]
fn a_full_subnet_says_so_and_recovers() {
    let world = World::new();
    let config = NetworkConfig { ipv4_subnet: "172.30.0.0/29".to_owned(), ..world.config() };
    let network = Network::open(config).unwrap();
    let containers: Vec<_> = (0..5).map(|n| Container::attach(&network, &format!("c{n}"), &[])).collect();
    let refused = network.attach("more", &[tcp(None, 8080, 80)], None).unwrap_err();
    assert_eq!(refused.to_string(), "no free address left in 172.30.0.0/29, all 5 are in use");
    assert_eq!(refused.class(), ErrorClass::ResourceExhausted);
    network.detach(&containers[2].endpoint).unwrap();
    Container::attach(&network, "more", &[tcp(None, 8080, 80)]);
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let world = World::new();
    world.host.busybox(&["brctl", "addbr", "berth0"]);
    let refused = Network::open(world.config()).unwrap_err();
    assert_eq!(refused.to_string(), "interface berth0 exists and is not a bridge of ours");
    assert_eq!(refused.class(), ErrorClass::FailedPrecondition);
    let config = NetworkConfig { bridge_name: "eth0".to_owned(), ..world.config() };
    assert!(matches!(Network::open(config).unwrap_err(), NetworkError::ForeignBridge { .. }));
    let config = NetworkConfig { ipv4_subnet: "192.0.2.128/25".to_owned(), ..world.config() };
    drop(Network::open(NetworkConfig { bridge_name: "berth1".to_owned(), ..config }).unwrap());
    let config = NetworkConfig { ipv4_subnet: "192.0.0.0/16".to_owned(), ..world.config() };
    let refused = Network::open(config).unwrap_err();
    assert!(refused.to_string().starts_with("subnet 192.0.0.0/16 is already routed by "), "{refused}");
    assert_eq!(world.host.nft(&["list", "tables"]), "table inet berth\n");
}

#[test]
fn a_subnet_nobody_uses() {
    let world = World::new();
    let path = world.host.path();
    let free = free_subnet(&["192.0.0.0/16", "172.30.0.0/24"], "berth0", Some(&path)).unwrap();
    assert_eq!(free.to_string(), "172.30.0.0/24");
    let network = world.network();
    let free = free_subnet(&["172.30.0.0/24"], "berth0", Some(&path)).unwrap();
    assert_eq!(free, network.subnet(), "our own bridge is no obstacle");
    let refused = free_subnet(&["172.30.0.0/24"], "berth9", Some(&path)).unwrap_err();
    assert_eq!(refused.to_string(), "subnet 172.30.0.0/24 is already routed by berth0");
}

#[test]
fn a_container_is_attached_once() {
    let world = World::new();
    let network = world.network();
    let first = Container::attach(&network, "a", &[tcp(None, 8080, 80)]);
    let refused = network.attach("a", &[], None).unwrap_err();
    assert_eq!(refused.to_string(), "container a is attached already");
    let _server = first.machine.serve("0.0.0.0:80");
    assert_eq!(world.outside.call(&format!("{HOST}:8080")).unwrap(), ip(OUTSIDE), "the first one keeps its ports");
}

#[test]
fn an_endpoint_survives_json() {
    let world = World::new();
    let network = world.network();
    let container = Container::attach(&network, "a", &[tcp(None, 8080, 80), udp(Some("127.0.0.1"), 53, 53)]);
    let text = serde_json::to_string(&container.endpoint).unwrap();
    assert_eq!(serde_json::from_str::<berth_network::Endpoint>(&text).unwrap(), container.endpoint);
}
