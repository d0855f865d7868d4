use std::fs;

use super::*;

fn shown(options: &RegistryOptions, reference: &str) -> Vec<String> {
    endpoints(options, &reference.parse().unwrap())
        .unwrap()
        .iter()
        .map(|e| {
            let scheme = match e.scheme {
                Scheme::Https => "https",
                Scheme::Http => "http",
                Scheme::Either => "either",
            };
            let flags: String = [('r', e.capabilities.resolve), ('p', e.capabilities.pull), ('w', e.capabilities.push)]
                .iter()
                .filter(|(_, is)| *is)
                .map(|(c, _)| *c)
                .collect();
            let origin = if e.is_origin { " origin" } else { "" };
            format!("{scheme}://{}{} {} {flags}{origin}", e.authority, e.prefix, e.repository)
        })
        .collect()
}

/// CVE-2014-5277: nothing speaks plain HTTP but loopback and what the operator names.
#[test]
fn defaults() {
    let options = RegistryOptions { insecure: vec!["10.0.0.0/8".into(), "lab:5000".into()], ..Default::default() };
    for (reference, expect) in [
        ("busybox", "https://registry-1.docker.io/v2 library/busybox rpw origin"),
        ("ghcr.io/a/b", "https://ghcr.io/v2 a/b rpw origin"),
        ("localhost:5000/a", "either://localhost:5000/v2 a rpw origin"),
        ("127.0.0.1:5000/a", "either://127.0.0.1:5000/v2 a rpw origin"),
        ("10.1.2.3:5000/a", "either://10.1.2.3:5000/v2 a rpw origin"),
        ("lab:5000/a", "either://lab:5000/v2 a rpw origin"),
        ("lab:5001/a", "https://lab:5001/v2 a rpw origin"),
    ] {
        assert_eq!(shown(&options, reference), [expect]);
    }
}

#[test]
fn hub_mirrors_come_first() {
    let options = RegistryOptions { hub_mirrors: vec!["http://mirror.lan:5000/".into()], ..Default::default() };
    assert_eq!(
        shown(&options, "busybox"),
        ["http://mirror.lan:5000/v2 library/busybox rp", "https://registry-1.docker.io/v2 library/busybox rpw origin"]
    );
    assert_eq!(shown(&options, "ghcr.io/x/y").len(), 1);
}

#[test]
fn hosts_toml_in_its_order() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("reg.example:5000");
    fs::create_dir(&directory).unwrap();
    fs::write(
        directory.join("hosts.toml"),
        r#"
server = "https://reg.example:5000"
ca = "own.pem"
[host."https://z.mirror/proxy/v2"]
  capabilities = ["pull", "resolve"]
  override_path = true
  client = [["c.pem", "k.pem"]]
  [host."https://z.mirror/proxy/v2".header]
    x-team = ["a", "b"]
[host."http://a.mirror:80"]
  capabilities = ["pull"]
  skip_verify = true
"#,
    )
    .unwrap();
    let options = RegistryOptions { hosts_directories: vec![root.path().to_owned()], ..Default::default() };
    assert_eq!(
        shown(&options, "reg.example:5000/a/b:1"),
        [
            "https://z.mirror/proxy/v2 a/b rp",
            "http://a.mirror:80/v2 a/b p",
            "https://reg.example:5000/v2 a/b rpw origin"
        ]
    );
    let found = endpoints(&options, &"reg.example:5000/a/b".parse().unwrap()).unwrap();
    assert_eq!(found[0].headers.get_all("x-team").iter().count(), 2);
    assert_eq!(found[0].tls.client, [(directory.join("c.pem"), directory.join("k.pem"))]);
    assert_eq!(found[0].on_behalf_of.as_deref(), Some("reg.example:5000"));
    assert_eq!(found[2].tls.authorities, [directory.join("own.pem")]);
    assert_eq!(shown(&options, "other/x").len(), 1);
    fs::write(directory.join("hosts.toml"), "server = 5").unwrap();
    let error = endpoints(&options, &"reg.example:5000/a".parse().unwrap()).unwrap_err();
    assert!(error.to_string().ends_with("hosts.toml: server is not a string"), "{error}");
}

#[test]
fn a_directory_of_certificates() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("reg.example");
    fs::create_dir(&directory).unwrap();
    for name in ["ca.crt", "me.cert", "me.key"] {
        fs::write(directory.join(name), "").unwrap();
    }
    let options = RegistryOptions { hosts_directories: vec![root.path().to_owned()], ..Default::default() };
    let found = endpoints(&options, &"reg.example/a".parse().unwrap()).unwrap();
    assert_eq!(found[0].tls.authorities, [directory.join("ca.crt")]);
    assert_eq!(found[0].tls.client, [(directory.join("me.cert"), directory.join("me.key"))]);
}

#[test]
fn registries_conf_by_longest_prefix() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("registries.conf");
    fs::write(
        &file,
        r#"
unqualified-search-registries = ["docker.io"]
[[registry]]
prefix = "docker.io/library"
location = "hub.lan/copies/library"
[[registry.mirror]]
location = "cache.lan:5000/hub"
insecure = true
[[registry.mirror]]
location = "digests.lan"
pull-from-mirror = "digest-only"
[[registry]]
location = "bad.example"
blocked = true
[[registry]]
prefix = "*.corp"
location = "gate.corp"
"#,
    )
    .unwrap();
    let options = RegistryOptions { registries_conf: Some(file), ..Default::default() };
    assert_eq!(
        shown(&options, "busybox"),
        [
            "either://cache.lan:5000/v2 hub/busybox rp",
            "https://digests.lan/v2 busybox p",
            "https://hub.lan/v2 copies/library/busybox rpw"
        ]
    );
    assert_eq!(shown(&options, "me/app"), ["https://registry-1.docker.io/v2 me/app rpw origin"]);
    assert_eq!(shown(&options, "x.corp/a/b"), ["https://gate.corp/v2 a/b rpw"]);
    assert!(endpoints(&options, &"bad.example/a".parse().unwrap()).unwrap_err().to_string().contains("blocked"));
}
