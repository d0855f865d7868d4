//! Transfers under circumstances: proxies, credential helpers, platforms, full disks, many at once, connections that break, artifacts.

#[path = "transfer/cut.rs"]
mod cut;
#[path = "transfer/mirror.rs"]
mod mirror;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use berth_testkit::archive::digest;
use berth_testkit::disk::SmallDisk;
use berth_testkit::instance::run;
use berth_testkit::proxy::ForwardProxy;
use berth_testkit::registry::{DockerRegistry, OwnRegistry, PASSWORD, TlsFiles, USER, Wire, noise, skopeo};
use berth_testkit::{Image, Instance, LayerFile, wait_until};
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn image(reference: &str, layers: &[(usize, u64)]) -> Image {
    layers.iter().fold(Image::new(reference), |image, (length, seed)| {
        image.layer(vec![LayerFile::program(&format!("noise-{seed}"), noise(*length, *seed))])
    })
}

/// One request to a registry on loopback; status and body.
fn http(port: u16, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nAccept: {MANIFEST}, {INDEX}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let status = String::from_utf8_lossy(&answer[9..12]).parse().unwrap();
    (status, answer[end + 4..].to_vec())
}

/// Proxies from the environment: plain requests in absolute form, TLS through a tunnel, with the proxy's own password; not for names in NO_PROXY.
#[test]
fn proxies_of_the_environment() {
    let files = TlsFiles::make();
    let (plain, tls) = (DockerRegistry::start(), DockerRegistry::start_tls(&files));
    plain.put(&image("a:1", &[(300_000, 1)]).oci_archive(), "a:1");
    let (http_proxy, https_proxy) =
        (ForwardProxy::to("plain.invalid", plain.port), ForwardProxy::to("secure.invalid", tls.port));
    // The name has no address here: only a proxy can know it.
    let hosts = files.directory.join("hosts");
    let path = |name: &str| files.directory.join(name).display().to_string();
    let [certificate, key] = ["client.pem", "client.key"].map(path);
    let of_tls = hosts.join("secure.invalid");
    std::fs::create_dir_all(&of_tls).unwrap();
    let text = format!("skip_verify = true\nclient = [[{certificate:?}, {key:?}]]\n");
    std::fs::write(of_tls.join("hosts.toml"), text).unwrap();
    let environment = [
        ("HTTP_PROXY", format!("http://me:pr%40xy@127.0.0.1:{}", http_proxy.port)),
        ("https_proxy", format!("http://127.0.0.1:{}", https_proxy.port)),
        ("NO_PROXY", "direct.invalid".to_owned()),
    ];
    let environment = environment.each_ref().map(|(k, v)| (*k, v.as_str()));
    let options = ["--insecure-registry", "plain.invalid:5000", "--registry-config-dir", hosts.to_str().unwrap()];
    let berth = Instance::start_in(&options, &environment, |_| {});
    berth.berth(&["pull", "-q", "plain.invalid:5000/a:1"]).ok();
    let heads = http_proxy.heads();
    assert!(heads.iter().any(|head| head.starts_with("GET http://plain.invalid:5000/v2/a/blobs/sha256:")), "{heads:?}");
    let password = "proxy-authorization: basic bwu6chjaehk=";
    assert!(heads.iter().all(|head| head.to_ascii_lowercase().contains(password)), "{heads:?}");
    // There is nothing: the answer comes through the tunnel, from a registry that saw the client's certificate.
    let missing = berth.berth(&["pull", "-q", "secure.invalid/a:1"]);
    assert!(missing.stderr.contains("manifest unknown"), "{missing:?}");
    // The other name was tried by TLS first.
    let mut heads = https_proxy.heads();
    heads.retain(|head| !head.starts_with("CONNECT plain.invalid:5000 "));
    let is_tunnel = |head: &String| head.starts_with("CONNECT secure.invalid:443 HTTP/1.1\r\n");
    assert!(!heads.is_empty() && heads.iter().all(is_tunnel), "{heads:?}");
    let (before, secure_before) = (http_proxy.heads().len(), https_proxy.heads().len());
    let direct = berth.berth(&["pull", "-q", "direct.invalid/a:1"]);
    assert_eq!(direct.code, 125, "{direct:?}");
    assert_eq!((http_proxy.heads().len(), https_proxy.heads().len()), (before, secure_before), "{direct:?}");
    assert!(!berth.log().contains("pr@xy") && !berth.log().contains("pr%40xy"), "no password in the log");
}

const HELPER: &str = "#!/bin/sh\nset -eu\nstore=$(dirname \"$0\")/secret\necho \"$1\" >> \"$(dirname \"$0\")/calls\"\ncase $1 in\n\
    store) cat > \"$store\";;\n\
    get) cat > /dev/null; if [ -e \"$store\" ]; then cat \"$store\"; else echo 'credentials not found in native keychain'; exit 1; fi;;\n\
    erase) cat > /dev/null; rm -f \"$store\";;\nesac\n";

/// A credential helper keeps the secret: it is not in config.json, pulls and pushes ask for it, logout erases it.
#[test]
fn credential_helpers_keep_secrets() {
    let registry = DockerRegistry::start_with(true);
    let server = format!("127.0.0.1:{}", registry.port);
    let berth = Instance::start();
    berth.load(&image("src:1", &[(1000, 1)]).oci_archive()).ok();
    let name = registry.name("private:1");
    berth.berth(&["tag", "src:1", &name]).ok();
    let bin = berth.directory.join("helpers");
    std::fs::create_dir_all(&bin).unwrap();
    let helper = bin.join("docker-credential-drawer");
    std::fs::write(&helper, HELPER).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let config = berth.directory.join("config");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("config.json"), json!({ "credHelpers": { server.as_str(): "drawer" } }).to_string())
        .unwrap();
    let berth_with = |words: &[&str], input: &[u8]| {
        let mut command = berth.berth_command(words);
        let path = std::env::join_paths([bin.clone(), PathBuf::from("/usr/bin"), PathBuf::from("/bin")]).unwrap();
        command.env("DOCKER_CONFIG", &config).env("PATH", path);
        run(command, input)
    };
    assert!(berth_with(&["push", &name], b"").stderr.contains("denied"));
    let login = berth_with(&["login", "-u", USER, "--password-stdin", &server], PASSWORD.as_bytes());
    assert_eq!(login.ok(), "Login Succeeded", "{login:?}");
    let kept: Value = serde_json::from_slice(&std::fs::read(bin.join("secret")).unwrap()).unwrap();
    assert_eq!(
        (&kept["ServerURL"], &kept["Username"], &kept["Secret"]),
        (&json!(server), &json!(USER), &json!(PASSWORD))
    );
    let text = std::fs::read_to_string(config.join("config.json")).unwrap();
    assert!(!text.contains(PASSWORD) && !text.contains("\"auth\""), "{text}");
    berth_with(&["push", &name], b"").ok();
    berth.berth(&["rmi", &name]).ok();
    berth_with(&["pull", "-q", &name], b"").ok();
    berth_with(&["logout", &server], b"").ok();
    assert!(!bin.join("secret").exists());
    assert!(berth_with(&["push", &name], b"").stderr.contains("denied"));
    let calls = std::fs::read_to_string(bin.join("calls")).unwrap();
    assert!(["store\n", "get\n", "erase\n"].iter().all(|verb| calls.contains(verb)), "{calls}");
}

/// An index of two platforms: this machine's by default, the other when asked for, what is missing named with what there is.
#[test]
fn platforms_of_an_index() {
    let registry = DockerRegistry::start();
    let mut entries = Vec::new();
    for (architecture, seed) in [("amd64", 1), ("arm64", 2)] {
        let mut built = image("multi:x", &[(5000, seed)]);
        built.architecture = architecture.to_owned();
        registry.put(&built.oci_archive(), &format!("multi:{architecture}"));
        let (_, bytes) = http(registry.port, "GET", &format!("/v2/multi/manifests/{architecture}"), "", b"");
        let platform = json!({ "os": "linux", "architecture": architecture });
        entries.push(
            json!({ "mediaType": MANIFEST, "digest": digest(&bytes), "size": bytes.len(), "platform": platform }),
        );
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries }).to_string();
    let (status, _) = http(registry.port, "PUT", "/v2/multi/manifests/1", INDEX, index.as_bytes());
    assert_eq!(status, 201);
    let berth = Instance::start();
    let name = registry.name("multi:1");
    let host = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    for (words, expect) in [
        (&["pull", "-q", &name][..], host),
        (&["pull", "-q", "--platform", "linux/arm64", &name], "arm64"),
        (&["pull", "-q", "--platform", "linux/amd64", &name], "amd64"),
        (&["pull", "-q", "--platform", "x86_64", &name], "amd64"),
    ] {
        berth.berth(words).ok();
        let found = berth.berth(&["image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", &name]);
        assert_eq!(found.ok(), format!("linux/{expect}"), "{words:?}");
        let digests = berth.berth(&["image", "inspect", "--format", "{{json .RepoDigests}}", &name]);
        assert!(digests.ok().contains(&digest(index.as_bytes())), "the name stands for the index: {digests:?}");
    }
    let missing = berth.berth(&["pull", "-q", "--platform", "linux/riscv64", &name]);
    assert_eq!(missing.code, 125);
    let words = ["linux/riscv64", "linux/amd64", "linux/arm64"];
    assert!(words.iter().all(|word| missing.stderr.contains(word)), "{missing:?}");
}

/// A pull that cannot fit is refused before a layer is fetched; one that turns out not to fit leaves nothing, and its space comes back.
#[test]
fn a_full_disk_refuses_early_and_keeps_nothing() {
    let registry = DockerRegistry::start();
    registry.put(&image("big:1", &[(14 << 20, 1)]).oci_archive(), "big:1");
    // Packed it is small: it fits until it is unpacked.
    let block = noise(4096, 9);
    let grown = Image::new("grows:1").layer(vec![LayerFile::program("grown", block.repeat(12_000))]);
    registry.put(&grown.oci_archive(), "grows:1");
    registry.put(&image("small:1", &[(100_000, 2)]).oci_archive(), "small:1");
    let disk = SmallDisk::mount(24);
    let berth = disk.instance(&[]);
    let wire = Wire::to(registry.port);
    berth.berth(&["pull", "-q", &wire.name("small:1")]).ok();
    let before = disk.free();
    wire.reset();
    let plan = berth.berth(&["pull", "--plan", &wire.name("big:1")]);
    assert!(plan.ok().contains("free"), "{plan:?}");
    let refused = berth.berth(&["pull", &wire.name("big:1")]);
    assert_eq!(refused.code, 125, "{refused:?}");
    assert!(refused.stderr.contains("no space for the image: "), "{refused:?}");
    assert!(wire.bytes() < 64 << 10, "{} bytes came", wire.bytes());
    let failed = berth.berth(&["pull", &wire.name("grows:1")]);
    assert_eq!(failed.code, 125, "{failed:?}");
    assert!(failed.stderr.contains("No space left on device"), "{failed:?}");
    assert_eq!(berth.berth(&["images", "--format", "{{.Repository}}"]).ok(), wire.name("small"));
    assert!(berth.berth(&["fsck"]).ok().ends_with("all in order"));
    // What came of the layer is kept for the next attempt.
    wait_until("the space is back", || (disk.free() + (2 << 20) > before).then_some(()));
    berth.berth(&["pull", "-q", &wire.name("small:1")]).ok();
    drop(berth);
}

/// H: fifty clients that want the same: each blob is asked for once, and everybody is told to the end.
#[test]
fn fifty_identical_pulls_fetch_each_blob_once() {
    let registry = DockerRegistry::start();
    registry.put(&image("same:1", &[(700_000, 1), (700_000, 2)]).oci_archive(), "same:1");
    let berth = Instance::start();
    let wire = Wire::to(registry.port);
    wire.pause(Duration::from_millis(8));
    let name = wire.name("same:1");
    let outputs: Vec<_> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..50).map(|_| scope.spawn(|| berth.berth(&["pull", &name]))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    for output in &outputs {
        assert!(output.ok().contains("Status: "), "{output:?}");
    }
    let asked = wire.requests("GET /v2/same/blobs/");
    assert_eq!(asked.len(), 3, "two layers and the config: {asked:?}");
    assert!(asked.values().all(|times| *times == 1), "{asked:?}");
    // Those who waited saw it happen.
    let told = outputs.iter().filter(|output| output.stderr.matches(": Pull complete").count() == 2).count();
    assert!(told >= 25, "{told} of 50 saw the layers, one of them this: {:?}", outputs[0]);
}

/// A push whose connection breaks goes on where the registry is. Ours keeps what came of a chunk, so nothing is sent twice; docker-registry
/// cancels an upload whose chunk broke, and is begun with again.
#[test]
fn a_broken_push_goes_on() {
    let size = 13 << 20;
    let (ours, theirs) = (OwnRegistry::start(), DockerRegistry::start());
    let berth = Instance::start();
    berth.load(&image("src:1", &[(size, 1)]).oci_archive()).ok();
    for (port, sent_max) in [(ours.port, size as u64 + (1 << 20)), (theirs.port, 2 * size as u64)] {
        let wire = Wire::to(port);
        let name = wire.name("broken:1");
        berth.berth(&["tag", "src:1", &name]).ok();
        wire.cut_at(10 << 20);
        let pushed = berth.berth(&["push", &name]);
        assert!(pushed.ok().contains("digest: sha256:"), "{pushed:?}");
        assert!(wire.sent() < sent_max, "{} bytes for {size}", wire.sent());
        let seen = skopeo(&["inspect", "--tls-verify=false", &format!("docker://127.0.0.1:{port}/broken:1")]);
        assert_eq!(seen.code, 0, "{seen:?}");
        berth.berth(&["rmi", &name]).ok();
    }
}

/// What refers to an image, pushed to a registry without the referrers API, is found by the tag that stands for it.
#[test]
fn referrers_without_the_api() {
    let registry = DockerRegistry::start();
    registry.put(&image("app:1", &[(1000, 1)]).oci_archive(), "app:1");
    let (_, subject) = http(registry.port, "GET", "/v2/app/manifests/1", "", b"");
    // An image whose manifest says what it belongs to.
    registry.put(&image("signature:1", &[(1000, 2)]).oci_archive(), "signature:1");
    let (_, bytes) = http(registry.port, "GET", "/v2/signature/manifests/1", "", b"");
    let mut manifest: Value = serde_json::from_slice(&bytes).unwrap();
    manifest["subject"] = json!({ "mediaType": MANIFEST, "digest": digest(&subject), "size": subject.len() });
    manifest["annotations"] = json!({ "org.example.signed": "yes" });
    let manifest = manifest.to_string();
    assert_eq!(http(registry.port, "PUT", "/v2/signature/manifests/2", MANIFEST, manifest.as_bytes()).0, 201);
    let berth = Instance::start();
    berth.berth(&["pull", "-q", &registry.name("signature:2")]).ok();
    let name = registry.name("app:signature");
    berth.berth(&["tag", &registry.name("signature:2"), &name]).ok();
    for _ in 0..2 {
        berth.berth(&["push", &name]).ok();
        let listed = berth.berth(&["manifest", "inspect", "--referrers", &registry.name("app:1")]);
        let index: Value = serde_json::from_str(listed.ok()).unwrap();
        let entries = index["manifests"].as_array().unwrap();
        assert_eq!(entries.len(), 1, "{index}");
        assert_eq!(entries[0]["digest"], digest(manifest.as_bytes()));
        assert_eq!(entries[0]["annotations"]["org.example.signed"], "yes");
    }
    let tag = format!("/v2/app/manifests/{}", digest(&subject).replace(':', "-"));
    assert_eq!(http(registry.port, "GET", &tag, "", b"").0, 200);
}
