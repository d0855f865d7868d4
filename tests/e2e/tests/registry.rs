//! Images from and to registries: Debian's docker-registry, with skopeo and the stock docker client as foreign clients.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use berth_testkit::instance::run;
use berth_testkit::registry::{DockerRegistry, Wire, noise};
use berth_testkit::{Image, Instance, LayerFile, wait_until};

/// A busybox with further layers of bytes that do not shrink.
fn large(reference: &str, layers: &[(usize, u64)]) -> Image {
    let mut image = Image::busybox();
    image.reference = reference.to_owned();
    for (length, seed) in layers {
        image = image.layer(vec![LayerFile::program(&format!("noise-{seed}"), noise(*length, *seed))]);
    }
    image
}

/// S-006, S-111: pulled by name, by digest, by the stock client; run without being pulled first; up to date afterwards.
#[test]
fn s006_run_from_a_registry() {
    let registry = DockerRegistry::start();
    registry.put(&Image::busybox().oci_archive(), "busybox:1");
    let berth = Instance::start();
    let name = registry.name("busybox:1");
    let ran = berth.berth(&["run", "--rm", &name, "echo", "hi"]);
    assert_eq!(ran.ok(), "hi");
    assert!(ran.stderr.contains(&format!("Unable to find image '{name}' locally")), "{ran:?}");
    assert!(ran.stderr.contains("Status: Downloaded newer image for"), "{ran:?}");
    let again = berth.berth(&["pull", &name]);
    assert!(again.ok().contains(&format!("Status: Image is up to date for {name}")), "{again:?}");
    assert_eq!(berth.berth(&["pull", "-q", &name]).ok(), name);
    let digest = berth.berth(&["image", "inspect", "--format", "{{index .RepoDigests 0}}", &name]).ok().to_owned();
    assert!(digest.starts_with(&registry.name("busybox@sha256:")), "{digest}");
    let listed = berth.berth(&["images", "--digests", "--format", "{{.Repository}}@{{.Digest}}"]);
    assert_eq!(listed.ok(), digest);
    let removed = berth.berth(&["rmi", &name]);
    assert_eq!(removed.ok().lines().filter(|l| l.starts_with("Untagged")).count(), 2, "{removed:?}");
    // By digest there is no tag.
    assert_eq!(berth.berth(&["pull", "-q", &digest]).ok(), digest);
    assert_eq!(berth.berth(&["run", "--rm", "--pull", "never", &digest, "echo", "again"]).ok(), "again");
    assert_eq!(berth.berth(&["images", "--format", "{{.Tag}}"]).ok(), "<none>");
    berth.berth(&["rmi", &digest]).ok();
    let pulled = berth.docker(&["pull", &name]);
    for line in ["Pulling from busybox", "Pull complete", "Digest: sha256:", "Status: Downloaded newer image for"] {
        assert!(pulled.ok().contains(line), "{line}: {pulled:?}");
    }
    assert_eq!(berth.docker(&["run", "--rm", &name, "echo", "docker"]).ok(), "docker");
    let missing = berth.berth(&["pull", &registry.name("nothing:1")]);
    assert_eq!(missing.code, 125);
    assert!(missing.stderr.contains("not found: manifest unknown"), "{missing:?}");
    let never = berth.berth(&["run", "--rm", "--pull", "never", &registry.name("other"), "true"]);
    assert!(never.stderr.contains("No such image"), "{never:?}");
}

/// S-082: what two images share is fetched and stored once; the plan says so before, the log while it happens.
#[test]
fn s082_shared_layers_are_not_fetched_again() {
    let registry = DockerRegistry::start();
    registry.put(&large("a:1", &[(2 << 20, 1)]).oci_archive(), "a:1");
    registry.put(&large("b:1", &[(2 << 20, 1), (1 << 20, 2)]).oci_archive(), "b:1");
    let berth = Instance::start();
    let wire = Wire::to(registry.port);
    berth.berth(&["pull", &wire.name("a:1")]).ok();
    let first = wire.bytes();
    assert!(first > 2 << 20);
    let plan = berth.berth(&["pull", "--plan", &wire.name("b:1")]);
    let kinds = |kind: &str| plan.ok().lines().filter(|l| l.starts_with(kind) && l.contains("sha256:")).count();
    assert_eq!((kinds("fetch"), kinds("exists")), (1, 2), "{plan:?}");
    wire.reset();
    let pulled = berth.berth(&["pull", &wire.name("b:1")]);
    assert_eq!(pulled.stderr.matches(": Already exists").count(), 2, "{pulled:?}");
    assert_eq!(pulled.stderr.matches(": Pull complete").count(), 1, "{pulled:?}");
    assert!(wire.bytes() < (1 << 20) + (200 << 10), "{} bytes", wire.bytes());
}

/// P01, N09: the daemon is killed in the middle; what came is not fetched again: at most 5 % more than the image.
#[test]
fn a_killed_pull_goes_on_where_it_was() {
    let size = 12 << 20;
    let registry = DockerRegistry::start();
    registry.put(&large("big:1", &[(size / 2, 3), (size / 2, 4)]).oci_archive(), "big:1");
    let mut berth = Instance::start();
    let wire = Wire::to(registry.port);
    wire.pause(Duration::from_millis(8));
    let mut total = 0;
    for share in [30, 60] {
        wire.reset();
        let mut client = berth.berth_command(&["pull", &wire.name("big:1")]);
        let mut client =
            client.stderr(std::process::Stdio::null()).stdout(std::process::Stdio::null()).spawn().unwrap();
        let wanted = (size as u64) * share / 100 - total;
        wait_until("a share of the image came", || (wire.bytes() >= wanted).then_some(()));
        berth.kill_daemon();
        assert!(!client.wait().unwrap().success());
        total += wire.bytes();
        berth.spawn();
    }
    wire.reset();
    wire.pause(Duration::ZERO);
    let plan = berth.berth(&["pull", "--plan", &wire.name("big:1")]);
    assert!(plan.ok().contains("came with an earlier pull"), "{plan:?}");
    berth.berth(&["pull", &wire.name("big:1")]).ok();
    total += wire.bytes();
    let whole = size as f64 + 2.0 * f64::from(1 << 20); // busybox and documents
    // Of what has passed us, some was in the daemon's sockets when it was killed; it never had that.
    let unread = 2.0 * f64::from(512 << 10);
    assert!((total as f64) < whole * 1.05 + unread, "{total} bytes for an image of {whole}");
    let sums = berth.berth(&["run", "--rm", &wire.name("big:1"), "sha256sum", "/noise-3", "/noise-4"]);
    for (seed, line) in [3, 4].iter().zip(sums.ok().lines()) {
        assert_eq!(line[..64], berth_testkit::archive::digest(&noise(size / 2, *seed))[7..]);
    }
}

/// H: twenty clients that want the same fetch each blob once, and each sees it through.
#[test]
fn identical_pulls_are_one() {
    let size = 3 << 20;
    let registry = DockerRegistry::start();
    registry.put(&large("same:1", &[(size, 5)]).oci_archive(), "same:1");
    let berth = Instance::start();
    let wire = Wire::to(registry.port);
    wire.pause(Duration::from_millis(1));
    let name = wire.name("same:1");
    let outputs: Vec<_> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..20).map(|_| scope.spawn(|| berth.berth(&["pull", &name]))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    for output in &outputs {
        assert!(output.ok().contains("Status: "), "{output:?}");
    }
    assert!(outputs.iter().filter(|o| o.stderr.contains("Pull complete")).count() >= 10);
    assert!(wire.bytes() < (size as u64) + (3 << 20), "{} bytes for {size}", wire.bytes());
}

/// A client that goes away takes its pull along; nothing of it runs on, what came is kept.
#[test]
fn a_pull_ends_with_its_last_client() {
    let size = 6 << 20;
    let registry = DockerRegistry::start();
    registry.put(&large("big:1", &[(size, 6)]).oci_archive(), "big:1");
    let berth = Instance::start();
    let wire = Wire::to(registry.port);
    // So slow that the client is gone long before the rest could come.
    wire.pause(Duration::from_millis(100));
    let mut client = berth.berth_command(&["pull", &wire.name("big:1")]).spawn().unwrap();
    wait_until("a part of the image came", || (wire.bytes() > 128 << 10).then_some(()));
    client.kill().unwrap();
    client.wait().unwrap();
    let quiet = Duration::from_millis(500);
    let (mut last, mut since) = (wire.bytes(), Instant::now());
    wait_until("no more bytes come", || {
        let now = wire.bytes();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() > quiet).then_some(())
    });
    assert!(wire.bytes() < size as u64, "{} bytes", wire.bytes());
    assert_eq!(berth.berth(&["images", "-q"]).ok(), "");
    wire.pause(Duration::ZERO);
    berth.berth(&["pull", &wire.name("big:1")]).ok();
    assert!(wire.bytes() < (size as u64) + (4 << 20), "{} bytes", wire.bytes());
}

/// Tags, platforms and what is refused by name.
#[test]
fn all_tags_and_refusals() {
    let registry = DockerRegistry::start();
    for tag in ["1", "2"] {
        registry.put(&large("t:x", &[(1000, tag.parse().unwrap())]).oci_archive(), &format!("t:{tag}"));
    }
    let berth = Instance::start();
    berth.berth(&["pull", "-a", &registry.name("t")]).ok();
    assert_eq!(berth.berth(&["images", "--format", "{{.Tag}}"]).ok().lines().count(), 2);
    berth.docker(&["pull", "-a", &registry.name("t")]).ok();
    let wrong = berth.berth(&["pull", "-a", &registry.name("t:1")]);
    assert!(wrong.stderr.contains("a tag cannot be used with --all-tags"), "{wrong:?}");
    let wrong = berth.berth(&["pull", "--platform", "a/b/c/d", &registry.name("t:1")]);
    assert!(wrong.stderr.contains("is not os/architecture[/variant]"), "{wrong:?}");
    let wrong = berth.berth(&["search", "busybox"]);
    assert!(wrong.stderr.starts_with("error: not yet: berth search: "), "{wrong:?}");
    drop(run(berth.docker_command(&["version"]), b""));
}

/// S-111: pushed, found again, mounted instead of sent twice; the same digests wherever an image comes from.
#[test]
fn s111_push_and_pull_keep_digests() {
    let registry = DockerRegistry::start();
    let berth = Instance::start();
    berth.load(&large("src:1", &[(1 << 20, 7)]).oci_archive()).ok();
    let name = registry.name("team/app:1");
    berth.berth(&["tag", "src:1", &name]).ok();
    let pushed = berth.berth(&["push", &name]);
    assert!(pushed.ok().contains("1: digest: sha256:"), "{pushed:?}");
    assert_eq!(pushed.stderr.matches(": Pushed").count(), 2, "{pushed:?}");
    let digest = |text: &str| text.split_once("sha256:").map(|(_, rest)| rest[..64].to_owned()).unwrap();
    let first = digest(pushed.ok());
    let again = berth.berth(&["push", &name]);
    assert_eq!(again.stderr.matches(": Layer already exists").count(), 2, "{again:?}");
    // Another repository of the same registry: nothing is sent.
    let other = registry.name("team/copy:1");
    berth.berth(&["tag", &name, &other]).ok();
    let wire = Wire::to(registry.port);
    let copied = berth.docker(&["push", &other]);
    assert_eq!(digest(copied.ok()), first);
    assert_eq!(copied.stdout.matches("Mounted from team/app").count(), 2, "{copied:?}");
    drop(wire);
    // skopeo reads what we pushed, under the digest we said.
    let seen = berth_testkit::registry::skopeo(&["inspect", "--tls-verify=false", &format!("docker://{name}")]);
    assert_eq!(digest(seen.ok().split_once("Digest").unwrap().1), first);
    // Another machine pulls and pushes it on: the same bytes.
    let second = Instance::start();
    second.berth(&["pull", &name]).ok();
    let third = registry.name("else/where:2");
    second.berth(&["tag", &name, &third]).ok();
    assert_eq!(digest(second.berth(&["push", &third]).ok()), first);
    for tag in ["a", "b"] {
        second.berth(&["tag", &name, &registry.name(&format!("many:{tag}"))]).ok();
    }
    assert_eq!(second.berth(&["push", "-a", &registry.name("many")]).ok().matches(": digest: ").count(), 2);
    let missing = second.berth(&["push", &registry.name("team/app:9")]);
    assert!(missing.stderr.contains("An image does not exist locally with the tag: "), "{missing:?}");
    let inspected = second.docker(&["manifest", "inspect", "--insecure", &name]);
    assert!(inspected.ok().contains("\"layers\""), "{inspected:?}");
    let manifest = second.berth(&["manifest", "inspect", &name]);
    assert!(manifest.ok().contains("\"layers\""), "{manifest:?}");
    let none = second.berth(&["manifest", "inspect", "--referrers", &name]);
    assert!(none.stderr.contains("nothing refers to"), "{none:?}");
}

/// Basic authentication: our login and the stock client's, from stdin, kept in config.json, used for pull and push, gone after logout.
/// CVE-2019-13509: the log, which has everything, has no secret.
#[test]
fn login_and_logout() {
    use berth_testkit::registry::{PASSWORD, USER};
    let registry = DockerRegistry::start_with(true);
    let server = format!("127.0.0.1:{}", registry.port);
    let berth = Instance::start();
    berth.load(&large("src:1", &[(1000, 8)]).oci_archive()).ok();
    let name = registry.name("private:1");
    berth.berth(&["tag", "src:1", &name]).ok();
    let command = |words: &[&str]| {
        let mut command = berth.berth_command(words);
        command.env("DOCKER_CONFIG", berth.directory.join("ours"));
        command
    };
    let refused = run(command(&["push", &name]), b"");
    assert_eq!(refused.code, 125, "{refused:?}");
    assert!(refused.stderr.contains("push access denied for"), "{refused:?}");
    let login = ["login", "-u", USER, "--password-stdin", &server];
    let wrong = run(command(&login), b"wrong");
    assert!(wrong.stderr.contains(&format!("login to {server} failed")), "{wrong:?}");
    assert!(!berth.directory.join("ours/config.json").exists());
    let done = run(command(&login), PASSWORD.as_bytes());
    assert_eq!(done.ok(), "Login Succeeded", "{done:?}");
    run(command(&["push", &name]), b"").ok();
    berth.berth(&["rmi", &name]).ok();
    run(command(&["pull", &name]), b"").ok();
    let anonymous = berth.berth(&["pull", &name.replace(":1", ":2")]);
    assert!(anonymous.stderr.contains("pull access denied for"), "{anonymous:?}");
    assert!(run(command(&["logout", &server]), b"").ok().starts_with("Removing login credentials"));
    assert!(run(command(&["push", &name]), b"").stderr.contains("denied"));
    // The stock client, with its own config.json.
    let docker_login = run(berth.docker_command(&login), PASSWORD.as_bytes());
    assert!(docker_login.ok().contains("Login Succeeded"), "{docker_login:?}");
    let pushed = berth.docker(&["push", &name]);
    assert!(pushed.ok().contains("digest: sha256:"), "{pushed:?}");
    let text = std::fs::read_to_string(berth.directory.join("config.json")).unwrap();
    assert!(text.contains(&server));
    // What stock docker kept, ours reads.
    let mut with_theirs = berth.berth_command(&["pull", &name]);
    with_theirs.env("DOCKER_CONFIG", &berth.directory);
    run(with_theirs, b"").ok();
    assert!(!berth.log().contains(PASSWORD) && !berth.log().contains("Basic "), "no secrets in the log");
}

/// `berth registry serve`, met by three clients: ours, the stock docker client and skopeo; it keeps digests and survives a restart.
#[test]
fn our_own_registry() {
    use berth_testkit::registry::{OwnRegistry, skopeo};
    let berth = Instance::start();
    berth.load(&large("src:1", &[(1 << 20, 9)]).oci_archive()).ok();
    let mut registry = OwnRegistry::start();
    let name = registry.name("team/app:1");
    berth.berth(&["tag", "src:1", &name]).ok();
    let pushed = berth.berth(&["push", &name]);
    let digest = pushed.ok().split_once("digest: ").unwrap().1[..71].to_owned();
    let copy = registry.name("by/skopeo:1");
    let [from, to] = [&name, &copy].map(|name| format!("docker://{name}"));
    let copied = skopeo(&["copy", "--src-tls-verify=false", "--dest-tls-verify=false", &from, &to]);
    assert_eq!(copied.code, 0, "{copied:?}");
    let theirs = registry.name("by/docker:1");
    berth.berth(&["tag", "src:1", &theirs]).ok();
    berth.docker(&["push", &theirs]).ok();
    registry.restart();
    let second = Instance::start();
    for reference in [&name, &copy, &theirs] {
        let pulled = second.berth(&["pull", reference]);
        assert!(pulled.ok().contains(&format!("Digest: {digest}")), "{pulled:?}");
    }
    second.docker(&["rmi", &theirs]).ok();
    second.docker(&["pull", &theirs]).ok();
    assert_eq!(second.berth(&["run", "--rm", &copy, "echo", "served"]).ok(), "served");
}

/// TLS by configuration: the operator's authority is trusted, the client certificate is shown; without either nothing is exchanged.
#[test]
fn tls_by_hosts_toml() {
    use berth_testkit::registry::TlsFiles;
    let files = TlsFiles::make();
    let registry = DockerRegistry::start_tls(&files);
    let hosts = files.directory.join("hosts").join(format!("127.0.0.1:{}", registry.port));
    std::fs::create_dir_all(&hosts).unwrap();
    let directory = files.directory.join("hosts");
    let berth = Instance::start_with(&["--registry-config-dir", directory.to_str().unwrap()]);
    berth.load(&large("src:1", &[(1 << 20, 10)]).oci_archive()).ok();
    let name = registry.name("tls:1");
    berth.berth(&["tag", "src:1", &name]).ok();
    let path = |name: &str| files.directory.join(name).display().to_string();
    let [authority, certificate, key] = ["ca.pem", "client.pem", "client.key"].map(path);
    std::fs::write(hosts.join("hosts.toml"), format!("ca = {authority:?}\n")).unwrap();
    let without = berth.berth(&["push", &name]);
    assert_eq!(without.code, 125, "a client certificate is wanted: {without:?}");
    let text = format!("ca = {authority:?}\nclient = [[{certificate:?}, {key:?}]]\n");
    std::fs::write(hosts.join("hosts.toml"), text).unwrap();
    berth.berth(&["push", &name]).ok();
    berth.berth(&["rmi", &name]).ok();
    berth.berth(&["pull", &name]).ok();
    std::fs::write(hosts.join("hosts.toml"), "server = 5\n").unwrap();
    let bad = berth.berth(&["pull", &name]);
    assert!(bad.stderr.contains("bad registry configuration"), "{bad:?}");
}

/// However many layers an image has, and however they come: few descriptors are open while it is pulled, and none is left.
#[test]
fn descriptors_of_a_pull_are_bounded() {
    const LAYERS: usize = 300;
    const DESCRIPTORS_MAX: usize = 64;
    let registry = DockerRegistry::start();
    let berth = Instance::start();
    let layer = |n: usize| vec![LayerFile::text(&format!("f{n}"), &n.to_string())];
    let image = (0..LAYERS).fold(Image::new("many:1"), |image, n| image.layer(layer(n)));
    registry.place(&image.oci_archive(), "many", "1");
    let name = registry.name("many:1");
    // Connections, threads and files that the first pull needs are there.
    registry.put(&large("small:1", &[]).oci_archive(), "small:1");
    berth.berth(&["pull", "-q", &registry.name("small:1")]).ok();
    let held = || fs::read_dir(format!("/proc/{}/fd", berth.daemon_pid())).unwrap().flatten();
    let (open, files) = (|| held().count(), || held().filter(|fd| !is_socket(&fd.path())).count());
    let (before, files_before, is_done) = (open(), files(), std::sync::atomic::AtomicBool::new(false));
    let peak = std::thread::scope(|scope| {
        let counting = scope.spawn(|| {
            let mut peak = 0;
            while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                peak = peak.max(open());
                std::thread::park_timeout(Duration::from_millis(2));
            }
            peak
        });
        let pulled = berth.berth(&["pull", "-q", &name]);
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        pulled.ok();
        counting.join().unwrap()
    });
    println!("{before} descriptors before, {peak} at the most");
    assert!(peak < before + DESCRIPTORS_MAX, "{before} before, {peak} at the most");
    // Connections are kept a while for what may come next.
    wait_until("they are closed", || (files() <= files_before).then_some(()));
    assert_eq!(berth.berth(&["image", "inspect", &name]).ok().matches("\"sha256:").count(), LAYERS + 1);
}

fn is_socket(descriptor: &Path) -> bool {
    fs::read_link(descriptor).is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"socket:"))
}
