//! Who reaches whom, and under which address.

use crate::world::{Container, HOST, OUTSIDE, World, ip, tcp};

/// S-019: `lo` and `eth0` only, own addresses, own routes, and nothing that listens.
#[test]
fn s019_a_container_has_lo_and_eth0_and_routes_of_its_own() {
    let world = World::new();
    let network = world.network();
    let container = Container::attach(&network, "a", &[]);
    let machine = &container.machine;
    assert_eq!(machine.interfaces(), ["lo", "eth0"]);
    assert_eq!(container.endpoint.mac, "02:42:ac:1e:00:02");
    let link = machine.busybox(&["ip", "-o", "link", "show", "eth0"]);
    assert!(link.contains("link/ether 02:42:ac:1e:00:02") && link.contains("UP"), "{link}");
    assert!(link.contains("mtu 1500"), "{link}");
    let addresses = machine.busybox(&["ip", "-o", "addr"]);
    let inet: Vec<_> = addresses
        .lines()
        .filter_map(|line| line.split_once("inet ").map(|(_, rest)| rest.split_whitespace().next().unwrap()))
        .collect();
    assert_eq!(inet, ["127.0.0.1/8", "172.30.0.2/24"]);
    assert!(!addresses.contains("inet6 fe80"), "no IPv6 but ::1 where the network has none: {addresses}");
    let routes = machine.busybox(&["ip", "route"]);
    let routes: Vec<_> = routes.lines().map(str::trim).collect();
    assert_eq!(routes, ["default via 172.30.0.1 dev eth0", "172.30.0.0/24 dev eth0 scope link  src 172.30.0.2"]);
    let sockets = machine.busybox(&["netstat", "-ltun"]);
    assert_eq!(sockets.lines().skip(2).count(), 0, "{sockets}");
}

/// S-019: the same without a network: only `lo`, which is up.
#[test]
fn s019_network_none_is_lo_alone() {
    let machine = crate::world::Machine { netns: berth_network::Network::new_netns().unwrap() };
    assert_eq!(machine.interfaces(), ["lo"]);
    let _server = machine.serve("127.0.0.1:80");
    assert_eq!(machine.call("127.0.0.1:80").unwrap(), ip("127.0.0.1"));
    assert_eq!(machine.busybox(&["ip", "route"]), "");
}

#[test]
fn settings_of_a_container_namespace() {
    let world = World::new();
    let network = world.network();
    let container = Container::attach(&network, "a", &[]);
    let machine = &container.machine;
    assert_eq!(machine.sysctl("ipv6/conf/eth0/accept_ra"), "0", "CVE-2020-13401");
    assert_eq!(machine.sysctl("ipv4/ip_unprivileged_port_start"), "0");
    assert_eq!(machine.sysctl("ipv4/ping_group_range"), "0\t2147483647");
    assert_eq!(world.host.sysctl("ipv4/ip_forward"), "1");
    assert_eq!(world.host.sysctl("ipv6/conf/berth0/accept_ra"), "0");
}

#[test]
fn containers_reach_the_gateway_each_other_and_the_world() {
    let world = World::new();
    let network = world.network();
    let (one, two) = (Container::attach(&network, "a", &[]), Container::attach(&network, "b", &[]));
    let _gateway = world.host.serve("172.30.0.1:80");
    let _two = two.machine.serve("0.0.0.0:80");
    let _outside = world.outside.serve("0.0.0.0:80");
    let _outside_udp = world.outside.serve_udp("0.0.0.0:53");
    assert_eq!(one.machine.call("172.30.0.1:80").unwrap(), ip("172.30.0.2"));
    assert_eq!(one.machine.call(&two.at(80)).unwrap(), ip("172.30.0.2"), "container to container, by its own address");
    assert_eq!(world.host.call(&two.at(80)).unwrap(), ip("172.30.0.1"), "the host reaches containers");
    let seen = one.machine.call(&format!("{OUTSIDE}:80")).unwrap();
    assert_eq!(seen, ip(HOST), "masqueraded");
    assert_eq!(one.machine.call_udp(&format!("{OUTSIDE}:53")).unwrap(), ip(HOST));
}

/// Only what is published can be reached from outside, also by somebody who routes to the containers' subnet.
#[test]
fn what_is_not_published_is_not_reachable_from_outside() {
    let world = World::new();
    let network = world.network();
    let container = Container::attach(&network, "a", &[tcp(None, 8080, 80)]);
    let _server = container.machine.serve("0.0.0.0:80");
    let _secret = container.machine.serve("0.0.0.0:81");
    world.outside.busybox(&["ip", "route", "add", "172.30.0.0/24", "via", HOST]);
    world.outside.assert_refused(&format!("{HOST}:81"));
    world.outside.assert_dropped(&container.at(81));
    world.outside.assert_dropped(&container.at(80));
    assert_eq!(world.outside.call(&format!("{HOST}:8080")).unwrap(), ip(OUTSIDE));
    // It was the rules that stopped it, not a missing route.
    world.host.nft(&["flush", "ruleset"]);
    assert_eq!(world.outside.call(&container.at(81)).unwrap(), ip(OUTSIDE));
}

/// `route_localnet` is on for the bridge; that must not open the host's loopback to containers (CVE-2020-8558).
#[test]
fn a_container_does_not_reach_the_loopback_of_the_host() {
    let world = World::new();
    let network = world.network();
    let container = Container::attach(&network, "a", &[tcp(Some("127.0.0.1"), 8080, 80)]);
    let _server = container.machine.serve("0.0.0.0:80");
    let _private = world.host.serve("127.0.0.1:631");
    for machine in [&container.machine, &world.outside] {
        machine.busybox(&["ip", "addr", "del", "127.0.0.1/8", "dev", "lo"]);
        machine.busybox(&["ip", "route", "flush", "table", "local", "dev", "lo"]);
    }
    container.machine.busybox(&["ip", "route", "add", "127.0.0.0/8", "via", "172.30.0.1"]);
    world.outside.busybox(&["ip", "route", "add", "127.0.0.0/8", "via", HOST]);
    container.machine.assert_dropped("127.0.0.1:631");
    world.outside.assert_dropped("127.0.0.1:631");
    world.outside.assert_dropped("127.0.0.1:8080");
    assert_eq!(world.host.call("127.0.0.1:8080").unwrap(), ip("172.30.0.1"), "the host itself does");
}

#[test]
fn two_networks_of_a_host_keep_apart() {
    let world = World::new();
    let one = world.network();
    let mut config = world.config();
    config.bridge_name = "berth1".to_owned();
    config.nft_table = "berth_1".to_owned();
    config.ipv4_subnet = "172.31.0.0/24".to_owned();
    let two = berth_network::Network::open(config).unwrap();
    assert_ne!(one.id(), two.id());
    assert_eq!(one.id().len(), 64);
    let here = Container::attach(&one, "a", &[tcp(None, 8080, 80)]);
    let there = Container::attach(&two, "a", &[tcp(None, 8081, 80)]);
    let _here = here.machine.serve("0.0.0.0:80");
    let _there = there.machine.serve("0.0.0.0:80");
    here.machine.assert_dropped(&there.at(80));
    there.machine.assert_dropped(&here.at(80));
    assert_eq!(world.outside.call(&format!("{HOST}:8080")).unwrap(), ip(OUTSIDE));
    assert_eq!(world.outside.call(&format!("{HOST}:8081")).unwrap(), ip(OUTSIDE));
    here.machine.call(&format!("{HOST}:8081")).unwrap();
    two.destroy().unwrap();
    assert_eq!(world.outside.call(&format!("{HOST}:8080")).unwrap(), ip(OUTSIDE), "the other one is untouched");
    world.outside.assert_refused(&format!("{HOST}:8081"));
}

#[test]
fn ipv6_where_the_network_has_it() {
    let world = World::new();
    let mut config = world.config();
    config.ipv6_subnet = Some("fd00:b:e::/64".to_owned());
    let network = berth_network::Network::open(config).unwrap();
    let one = Container::attach(&network, "a", &[tcp(None, 8080, 80), tcp(Some("2001:db8::3"), 8081, 80)]);
    let two = Container::attach(&network, "b", &[]);
    let (address, prefix, gateway) = one.endpoint.ipv6.unwrap();
    assert_eq!(
        (address.to_string().as_str(), prefix, gateway.to_string().as_str()),
        ("fd00:b:e::2", 64, "fd00:b:e::1")
    );
    let _one = one.machine.serve("[::]:80");
    let _outside = world.outside.serve("[::]:80");
    let (two_address, ..) = two.endpoint.ipv6.unwrap();
    assert_eq!(two.machine.call("[fd00:b:e::2]:80").unwrap(), two_address, "by its own address");
    assert_eq!(two.machine.call("[2001:db8::2]:80").unwrap(), ip("2001:db8::3"), "masqueraded");
    assert_eq!(world.outside.call("[2001:db8::3]:8080").unwrap(), ip("2001:db8::2"));
    assert_eq!(world.outside.call("[2001:db8::3]:8081").unwrap(), ip("2001:db8::2"));
    assert_eq!(world.outside.call(&format!("{HOST}:8080")).unwrap(), ip(OUTSIDE), "and by IPv4");
    world.outside.assert_refused(&format!("{HOST}:8081"));
    world.host.assert_refused("[::1]:8080");
    assert_eq!(one.machine.sysctl("ipv6/conf/eth0/accept_ra"), "0", "CVE-2020-10749");
}
