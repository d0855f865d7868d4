//! The default network (S-019, S-020 and issue "Default network"), inside the network namespace of the test run.

use std::fs;
use std::io::Read as _;
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use berth_testkit::{Instance, wait_until};

fn read_from(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// S-019: lo and eth0, own routes, own address; none has only lo.
#[test]
fn s019_bridge_and_none() {
    let berth = Instance::with_busybox();
    let links = |network: &str| -> Vec<String> {
        let text = berth.busybox(&["--network", network], &["cat", "/proc/net/dev"]);
        text.ok().lines().skip(2).map(|l| l.split(':').next().unwrap().trim().to_owned()).collect()
    };
    assert_eq!(links("none"), ["lo"]);
    let mut both = links("bridge");
    both.sort();
    assert_eq!(both, ["eth0", "lo"]);
    berth.sleeper("c1", &[]);
    let address = berth.inspect("c1", "{{.NetworkSettings.IPAddress}}");
    assert!(berth.berth(&["exec", "c1", "ip", "addr", "show", "eth0"]).ok().contains(&address));
    let gateway = berth.inspect("c1", "{{.NetworkSettings.Gateway}}");
    assert!(berth.berth(&["exec", "c1", "ip", "route"]).ok().contains(&format!("default via {gateway}")));
    assert!(berth.berth(&["exec", "c1", "cat", "/etc/hosts"]).ok().contains(&address));
}

/// S-020: host mode shares the host's namespace and warns about published ports.
#[test]
fn s020_host() {
    let berth = Instance::with_busybox();
    let started = berth.berth(&[
        "run",
        "-d",
        "--name",
        "c1",
        "--network",
        "host",
        "-p",
        "1:1",
        "busybox",
        "nc",
        "-l",
        "-p",
        "45872",
        "-e",
        "echo",
        "hello",
    ]);
    started.ok();
    assert!(started.stderr.contains("published") || started.stderr.contains("host network"), "{started:?}");
    let pid = berth.pid("c1");
    assert_eq!(fs::read_link(format!("/proc/{pid}/ns/net")).unwrap(), fs::read_link("/proc/self/ns/net").unwrap());
    wait_until("the listener is reachable without publishing", || {
        read_from("127.0.0.1:45872").filter(|t| t == "hello\n")
    });
}

/// Published ports: tcp, udp, a host address, a range, an ephemeral one; gone with the container.
#[test]
fn published_ports() {
    let berth = Instance::with_busybox();
    let server = "while :; do echo tcp | nc -l -p 80; done";
    berth
        .berth(&[
            "run",
            "-d",
            "--name",
            "c1",
            "-p",
            "127.0.0.1:45873:80",
            "-p",
            "45880-45882:90-92",
            "-p",
            "81",
            "busybox",
            "sh",
            "-c",
            server,
        ])
        .ok();
    wait_until("the published port answers", || read_from("127.0.0.1:45873").filter(|t| t == "tcp\n"));
    let ports = berth.berth(&["port", "c1"]);
    for line in ["80/tcp -> 127.0.0.1:45873", "90/tcp -> 0.0.0.0:45880", "92/tcp -> 0.0.0.0:45882"] {
        assert!(ports.ok().contains(line), "{line} in {ports:?}");
    }
    let ephemeral = ports
        .ok()
        .lines()
        .find(|l| l.starts_with("81/tcp"))
        .unwrap()
        .rsplit(':')
        .next()
        .unwrap()
        .parse::<u16>()
        .unwrap();
    assert!(ephemeral >= 1024);
    berth.berth(&["rm", "-f", "c1"]).ok();
    assert!(TcpStream::connect("127.0.0.1:45873").is_err());
    // Datagrams themselves are tested where two hosts are at hand: crates/network/tests.
    berth.sleeper("u1", &["-p", "45874:53/udp"]);
    assert!(berth.berth(&["port", "u1"]).ok().contains("53/udp -> 0.0.0.0:45874"));
    assert!(UdpSocket::bind("0.0.0.0:45874").is_err(), "the port is held");
}

/// Containers reach each other by address; a container shares another's network.
#[test]
fn container_to_container() {
    let berth = Instance::with_busybox();
    berth
        .berth(&["run", "-d", "--name", "server", "busybox", "sh", "-c", "while :; do echo served | nc -l -p 80; done"])
        .ok();
    let address = berth.inspect("server", "{{.NetworkSettings.IPAddress}}");
    wait_until("the other container answers", || {
        (berth.busybox(&[], &["nc", &address, "80"]).stdout == "served\n").then_some(())
    });
    wait_until("shared loopback", || {
        (berth.busybox(&["--network", "container:server"], &["nc", "127.0.0.1", "80"]).stdout == "served\n")
            .then_some(())
    });
}

/// Addresses and ports come back when containers end, over and over; a killed daemon finds the live ones again.
#[test]
fn addresses_are_not_lost() {
    let mut berth = Instance::with_busybox();
    berth.sleeper("keeper", &["-p", "127.0.0.1:45875:80"]);
    let kept = berth.inspect("keeper", "{{.NetworkSettings.IPAddress}}");
    for _ in 0..20 {
        assert_ne!(berth.busybox(&[], &["hostname", "-i"]).ok(), kept);
    }
    berth.kill_daemon();
    berth.spawn();
    assert_eq!(berth.inspect("keeper", "{{.NetworkSettings.IPAddress}}"), kept);
    assert_ne!(
        berth.busybox(&[], &["hostname", "-i"]).ok(),
        kept,
        "the address of a live container is not given out again"
    );
    let taken = berth.berth(&["run", "--rm", "-p", "127.0.0.1:45875:80", "busybox", "true"]);
    assert_eq!(taken.code, 125, "{taken:?}");
    berth.berth(&["exec", "-d", "keeper", "sh", "-c", "while :; do echo alive | nc -l -p 80; done"]).ok();
    wait_until("its published port still works", || read_from("127.0.0.1:45875").filter(|t| t == "alive\n"));
}

/// IPv6 is off unless asked for; then containers have an address of a unique local network, reach each other, and are published.
#[test]
fn ipv6_when_asked_for() {
    let plain = Instance::with_busybox();
    plain.sleeper("c1", &[]);
    assert_eq!(plain.inspect("c1", "{{.NetworkSettings.GlobalIPv6Address}}"), "");
    drop(plain);
    let berth = Instance::start_with(&["--ipv6"]);
    berth.load(&berth_testkit::Image::busybox().docker_archive()).ok();
    let server = ["busybox", "sh", "-c", "while :; do echo six | nc -l -p 80; done"];
    berth.berth(&[&["run", "-d", "--name", "s6", "-p", "80"], &server[..]].concat()).ok();
    let address = berth.inspect("s6", "{{.NetworkSettings.GlobalIPv6Address}}");
    assert!(address.starts_with("fd"), "{address}");
    let shown = berth.berth(&["network", "inspect", "bridge", "-f", "{{.EnableIPv6}} {{len .IPAM.Config}}"]);
    assert_eq!(shown.ok(), "true 2");
    let said = || {
        let heard = berth.busybox(&[], &["sh", "-c", &format!("nc {address} 80 < /dev/null")]);
        (heard.stdout == "six\n").then_some(())
    };
    wait_until("one container reaches the other by IPv6", said);
    let ports = berth.berth(&["port", "s6", "80"]).ok().to_owned();
    let six = ports.lines().find(|line| line.starts_with('[')).unwrap_or_else(|| panic!("no port on [::]: {ports}"));
    let port = six.rsplit(':').next().unwrap().to_owned();
    // `::1` itself the kernel never forwards; every other address of the host leads there.
    let gateway = berth.inspect("s6", "{{.NetworkSettings.IPv6Gateway}}");
    wait_until("the published port answers on an address of the host", || {
        (read_from(&format!("[{gateway}]:{port}"))? == "six\n").then_some(())
    });
}
