//! Hostile images against a whole daemon: nothing an image says decides about the host, and nothing it is holds the daemon up.

use std::fs;
use std::path::PathBuf;

use berth_testkit::archive::{digest, gzip, layer_tar, outer};
use berth_testkit::{Image, Instance, LayerFile};
use serde_json::{Value, json};

fn config_of(layer: &[u8], more: &Value) -> Value {
    let host = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let mut config = json!({
        "architecture": host, "os": "linux", "config": { "Cmd": ["/bin/sh"] },
        "rootfs": { "type": "layers", "diff_ids": [digest(layer)] },
    });
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn docker_archive(config: &str, layer: Vec<u8>) -> Vec<u8> {
    let manifest = json!([{ "Config": "c.json", "RepoTags": ["hostile:latest"], "Layers": ["l.tar"] }]).to_string();
    outer(&[
        ("c.json".to_owned(), config.as_bytes().to_vec()),
        ("l.tar".to_owned(), layer),
        ("manifest.json".to_owned(), manifest.into_bytes()),
    ])
}

pub(super) fn nothing_is_left(berth: &Instance, what: &str) {
    assert_eq!(berth.berth(&["images", "-aq"]).ok(), "", "{what}");
    assert_eq!(super::count(&berth.root().join("content/blobs/sha256")), 0, "{what}");
}

/// CVE-2021-21285, CVE-2024-36620: documents with nothing, or something else, where something must be. Refused or taken; the daemon goes on.
#[test]
fn cve_2021_21285_documents_with_holes() {
    let berth = Instance::start();
    let pid = berth.daemon_pid();
    let layer = layer_tar(&[LayerFile::text("x", "y")]);
    for hole in [Value::Null, json!([]), json!({}), json!(""), json!(-1), json!([null]), json!([{}])] {
        for key in ["history", "rootfs", "config", "created", "architecture", "os", "author"] {
            let config = config_of(&layer, &json!({ key: hole })).to_string();
            let loaded = berth.load(&docker_archive(&config, layer.clone()));
            if loaded.code == 0 {
                berth.berth(&["history", "hostile"]).ok();
                berth.berth(&["inspect", "hostile"]).ok();
                berth.berth(&["create", "--name", "cc", "hostile", "/x"]);
                berth.berth(&["rm", "-f", "cc"]);
                berth.berth(&["rmi", "hostile"]).ok();
            }
        }
        let manifest = json!([{ "Config": hole, "RepoTags": hole, "Layers": hole }]).to_string();
        assert_ne!(berth.load(&outer(&[("manifest.json".to_owned(), manifest.into_bytes())])).code, 0);
    }
    assert_eq!(berth.daemon_pid(), pid);
    nothing_is_left(&berth, "holes");
}

/// CVE-2024-3727, CVE-2014-9358: the text of a digest or a name in a document never becomes a path.
#[test]
fn cve_2024_3727_digests_that_are_paths() {
    let berth = Instance::start();
    let canary = berth.directory.join("canary");
    fs::write(&canary, "intact").unwrap();
    let up = "../".repeat(12);
    for text in [
        format!("sha256:{up}{}", canary.display()),
        format!("{up}etc/passwd"),
        "sha256:..".to_owned(),
        "sha256:".to_owned(),
    ] {
        let descriptor =
            |kind: &str| json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": text, "size": 6 });
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor("manifest.v1+json")] }).to_string();
        let layout = br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec();
        let oci = outer(&[("oci-layout".to_owned(), layout), ("index.json".to_owned(), index.into_bytes())]);
        assert_ne!(berth.load(&oci).code, 0, "{text}");
        let manifest = json!([{ "Config": text, "RepoTags": ["a:b"], "Layers": [text] }]).to_string();
        assert_ne!(berth.load(&outer(&[("manifest.json".to_owned(), manifest.into_bytes())])).code, 0, "{text}");
        assert_ne!(berth.berth(&["rmi", &text]).code, 0, "{text}");
    }
    assert_eq!(fs::read_to_string(canary).unwrap(), "intact");
    nothing_is_left(&berth, "paths");
}

/// CVE-2014-9357 (programs that unpack): none is run; what would need one is refused by name. CVE-2021-20291: a layer that is cut short, or never
/// what it says, ends at once and holds up nobody.
#[test]
fn cve_2021_20291_crafted_layers_hold_up_nobody() {
    let berth = Instance::start();
    let layer = layer_tar(&[LayerFile::text("x", &"y".repeat(100_000))]);
    let config = config_of(&layer, &json!({})).to_string();
    let packed = gzip(&layer);
    let xz = [&b"\xfd7zXZ\0"[..], &[0; 64]].concat();
    let bzip = [&b"BZh91AY&SY"[..], &[0; 64]].concat();
    let crafted = [packed[..packed.len() / 2].to_vec(), packed[..12].to_vec(), xz, bzip, vec![0x1f, 0x8b], Vec::new()];
    let begun = std::time::Instant::now();
    std::thread::scope(|scope| {
        for layer in &crafted {
            let archive = docker_archive(&config, layer.clone());
            scope.spawn(|| {
                let archive = archive;
                assert_ne!(berth.load(&archive).code, 0);
            });
        }
    });
    berth.load(&docker_archive(&config, packed)).ok();
    assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{:?}", begun.elapsed());
    berth.berth(&["rmi", "hostile"]).ok();
    nothing_is_left(&berth, "crafted layers");
}

/// CVE-2026-53488, CVE-2014-6408: labels and fields of an image's config decide about nothing of the host: neither what the collection keeps, nor
/// rights, nor mounts. CVE-2026-46680: a numeric user is that number or refused, never root.
#[test]
fn cve_2026_53488_an_image_decides_nothing() {
    let berth = Instance::with_busybox();
    let rights = "grep -E 'Cap|NoNew|Seccomp' /proc/self/status";
    let usual = berth.busybox(&[], &["sh", "-c", rights]).ok().to_owned();
    let labels = json!({
        "containerd.io/gc.root": "1", "containerd.io/gc.ref.content": "sha256:0", "containerd.io/uncompressed": "x",
        "io.containerd.runtime.v2.shim": "/bin/sh", "containerd.io/restart.status": "running",
        "org.opencontainers.runtime.oom": "1", "berth.privileged": "true", "io.kubernetes.cri.container-type": "sandbox",
    });
    let mut image = Image::busybox().config("Labels", labels);
    image.reference = "hostile:latest".to_owned();
    for (key, value) in [
        ("SecurityOpt", json!(["seccomp=unconfined"])),
        ("Privileged", json!(true)),
        ("CapAdd", json!(["ALL"])),
        ("HostConfig", json!({ "Privileged": true, "Binds": ["/:/host"] })),
        ("Devices", json!([{ "PathOnHost": "/dev/mem", "PathInContainer": "/dev/mem" }])),
    ] {
        image = image.config(key, value);
    }
    berth.load(&image.layer(vec![LayerFile::text("own", "1")]).docker_archive()).ok();
    assert_eq!(berth.berth(&["run", "--rm", "hostile", "sh", "-c", rights]).ok(), usual);
    assert_eq!(berth.berth(&["run", "--rm", "hostile", "sh", "-c", "ls -d /host /dev/mem 2>/dev/null; true"]).ok(), "");
    berth.berth(&["rmi", "hostile"]).ok();
    berth.berth(&["rmi", "busybox"]).ok();
    nothing_is_left(&berth, "labels of the collection");

    for user in ["4294967296", "2147483648", "99999999999999999999", "0x0", "+0"] {
        let mut image = Image::busybox().config("User", json!(user)).layer(vec![LayerFile::text(
            "etc/passwd",
            "root:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n2147483648:x:0:0::/:/bin/sh\n",
        )]);
        image.reference = "user:latest".to_owned();
        berth.load(&image.docker_archive()).ok();
        let run = berth.berth(&["run", "--rm", "user", "id", "-u"]);
        assert!(run.code != 0 && !run.stdout.starts_with('0'), "{user}: {run:?}");
    }
}

/// CVE-2015-3629: links of an image where the engine mounts its own files lead nowhere on the host, at the first start and at the next.
/// CVE-2020-1726: what an image has at a volume's place is never copied over what a volume holds. CVE-2020-14370: variables stay with their
/// container. CVE-2022-4318, CVE-2026-15809: no variable becomes a line of passwd.
#[test]
fn cve_2015_3629_links_volumes_and_variables() {
    let berth = Instance::with_busybox();
    let canary: PathBuf = berth.directory.join("canary");
    fs::write(&canary, "intact").unwrap();
    let out = format!("{}{}", "../".repeat(12), canary.display().to_string().trim_start_matches('/'));
    let mut image = Image::busybox().config("Volumes", json!({ "/vol": {} })).layer(vec![
        LayerFile::symlink("etc/hosts", &out),
        LayerFile::symlink("etc/resolv.conf", &canary.display().to_string()),
        LayerFile::symlink("etc/hostname", &out),
        LayerFile::directory("vol"),
        LayerFile::text("vol/a", "image"),
        LayerFile::text("vol/b", "image"),
    ]);
    image.reference = "hostile:latest".to_owned();
    berth.load(&image.docker_archive()).ok();
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", berth.daemon_pid())).unwrap();
    berth
        .berth(&[
            "create",
            "--name",
            "links",
            "hostile",
            "sh",
            "-c",
            "echo changed > /etc/hosts; echo changed > /etc/hostname",
        ])
        .ok();
    for _ in 0..2 {
        berth.berth(&["start", "-a", "links"]);
        assert_eq!(fs::read_to_string(&canary).unwrap(), "intact");
    }
    assert_eq!(fs::read_to_string(format!("/proc/{}/mountinfo", berth.daemon_pid())).unwrap(), mounts);
    berth.berth(&["rm", "-f", "links"]).ok();

    berth.busybox(&["-v", "mine:/v"], &["sh", "-c", "echo mine > /v/a"]).ok();
    for options in ["mine:/vol", "mine:/vol:ro"] {
        let seen = berth.berth(&["run", "--rm", "-v", options, "hostile", "sh", "-c", "cat /vol/a; ls /vol"]);
        assert_eq!(seen.ok(), "mine\na", "{options}");
    }

    let lines = "HOME=/x\nroot2::0:0::/:/bin/sh";
    let passwd = berth.busybox(&[], &["cat", "/etc/passwd"]).ok().to_owned();
    assert_eq!(berth.busybox(&["-e", lines, "-e", "SECRET=1"], &["cat", "/etc/passwd"]).ok(), passwd);
    assert!(!berth.busybox(&[], &["env"]).ok().contains("SECRET"));
}

/// CVE-2026-50195: an archive of a checkpoint says in its annotations and in its config of which image it was made. That names nothing here: the
/// image of that name stays what it is, and none of the archive's own gets it.
#[test]
fn cve_2026_50195_a_checkpoint_names_nothing() {
    let berth = Instance::with_busybox();
    let id = berth.berth(&["image", "inspect", "--format", "{{.Id}}", "busybox"]).ok().to_owned();
    let base = "docker.io/library/busybox:latest";
    let claims = json!({
        "org.criu.checkpoint.rootfsImageName": base,
        "io.kubernetes.cri-o.annotations.checkpoint.rootfsImageName": base,
        "org.opencontainers.image.base.name": base,
        "containerd.io/checkpoint.image": base,
    });
    let layer = layer_tar(&[
        LayerFile::text("config.dump", &json!({ "rootfsImage": base, "rootfsImageName": base }).to_string()),
        LayerFile::text("spec.dump", "{}"),
    ]);
    for kind in ["image.config.v1+json", "container.checkpoint.config.v1+proto"] {
        let config = config_of(&layer, &json!({ "config": { "Labels": claims, "Image": base } })).to_string();
        let described = |kind: &str, bytes: &[u8]| {
            let media_type = format!(
                "application/vnd.{}.{kind}",
                if kind.contains('+') && kind.starts_with("container") { "containerd" } else { "oci" }
            );
            json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len(), "annotations": claims })
        };
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "annotations": claims,
            "config": described(kind, config.as_bytes()), "layers": [described("image.layer.v1.tar", &layer)],
        })
        .to_string();
        let index = json!({
            "schemaVersion": 2, "annotations": claims, "manifests": [described("image.manifest.v1+json", manifest.as_bytes())],
        })
        .to_string();
        let mut members = vec![
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), index.into_bytes()),
        ];
        for bytes in [config.as_bytes(), manifest.as_bytes(), &layer] {
            members.push((format!("blobs/sha256/{}", &digest(bytes)[7..]), bytes.to_vec()));
        }
        let archive = outer(&members);
        berth.load(&archive);
        let file = berth.directory.join("checkpoint.tar");
        fs::write(&file, &archive).unwrap();
        berth.ctr(&["images", "import", "--no-unpack", file.to_str().unwrap()]);
        assert_eq!(berth.berth(&["image", "inspect", "--format", "{{.Id}}", "busybox"]).ok(), id, "{kind}");
        let named = berth.berth(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok().to_owned();
        assert_eq!(
            named.lines().filter(|name| *name != "<none>:<none>").collect::<Vec<_>>(),
            ["busybox:latest"],
            "{kind}"
        );
        assert_eq!(berth.ctr(&["images", "ls", "-q"]).ok(), base, "{kind}");
    }
    assert_eq!(berth.busybox(&[], &["echo", "mine"]).ok(), "mine");
}

/// CVE-2019-10152, CVE-2019-18466: `cp` follows a container's links inside the container, and takes what looks like a pattern for a name.
/// CVE-2026-42306: neither does a mount of a stopped container that `cp` reaches land where a link of the image leads on the host.
#[test]
fn cve_2019_10152_cp_stays_inside() {
    let berth = Instance::start();
    let outside = berth.directory.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("canary"), "secret").unwrap();
    let there = outside.to_str().unwrap();
    let image =
        Image::busybox().layer(vec![LayerFile::symlink("abs", there), LayerFile::symlink("up", &"../".repeat(20))]);
    berth.load(&image.docker_archive()).ok();
    let file = berth.directory.join("file");
    fs::write(&file, "brought").unwrap();
    let (file, got) = (file.to_str().unwrap(), berth.directory.join("got"));
    let untouched = |what: &str| {
        assert_eq!(fs::read(outside.join("canary")).unwrap(), b"secret", "{what}");
        assert_eq!(super::count(&outside), 1, "{what}");
    };
    let volume = "vol:/abs";
    berth.berth(&["run", "-d", "--name", "running", "busybox", "sleep", "1000"]).ok();
    berth.berth(&["create", "--name", "stopped", "busybox", "true"]).ok();
    berth.berth(&["create", "--name", "mounted", "-v", volume, "busybox", "cat", "/abs/file"]).ok();
    for container in ["running", "stopped", "mounted"] {
        let canary = format!("{container}:/up{there}/canary");
        for from in [canary, format!("{container}:/up/{}/canary", &there[1..]), format!("{container}:/abs/canary")] {
            let stolen = berth.berth(&["cp", &from, got.to_str().unwrap()]);
            assert!(stolen.code != 0 && !got.exists(), "{from}: {stolen:?}");
        }
        berth.berth(&["cp", file, &format!("{container}:/abs/canary")]);
        berth.berth(&["cp", file, &format!("{container}:/up{there}/file")]);
        untouched(container);
    }
    // Where the link leads inside is where it is copied to and from.
    berth.berth(&["exec", "running", "mkdir", "-p", there]).ok();
    berth.berth(&["cp", file, "running:/abs/"]).ok();
    assert_eq!(berth.berth(&["exec", "running", "cat", &format!("{there}/file")]).ok(), "brought");
    // The volume is where a container finds it, not where the link leads.
    berth.berth(&["cp", file, "mounted:/abs/"]).ok();
    untouched("volume");
    assert_eq!(berth.berth(&["start", "-a", "mounted"]).ok(), "brought");

    let script = "mkdir /g && echo star > '/g/*' && echo one > /g/one && ln -s /abs '/g/[a-z]'";
    berth.berth(&["exec", "running", "sh", "-c", script]).ok();
    berth.berth(&["cp", "running:/g/*", got.to_str().unwrap()]).ok();
    assert_eq!(fs::read_to_string(&got).unwrap(), "star\n");
    for pattern in ["running:/g/o*", "running:/g/?ne", "running:/g/[a-z]/canary", "running:/g/{one,two}"] {
        assert_ne!(berth.berth(&["cp", pattern, "-"]).code, 0, "{pattern}");
    }
    untouched("patterns");
}
