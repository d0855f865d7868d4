//! The transfer service as containerd's clients from 1.7 on use it: the daemon imports, exports, pulls, pushes and tags.

use berth_containerd_api::containerd::services::transfer::v1::transfer_client::TransferClient;
use berth_containerd_api::containerd::services::transfer::v1::{TransferOptions, TransferRequest};
use berth_containerd_api::containerd::types::Platform;
use berth_containerd_api::containerd::types::transfer::{
    AuthRequest, AuthResponse, AuthType, Data, ImageExportStream, ImageImportStream, ImageReference, ImageStore,
    OciRegistry, Progress, RegistryResolver, UnpackConfiguration,
};
use berth_testkit::bombs::{self, Fate};
use berth_testkit::disk::SmallDisk;
use berth_testkit::growth::Growth;
use berth_testkit::registry::{DockerRegistry, PASSWORD, USER};
use berth_testkit::{Image, Instance, LayerFile, wait_until};
use prost_types::Any;
use tonic::{Code, Status};

use super::client::{Client, block_on, pack, unpack};
use super::{ctr_run, rows};

const APP: &str = "example.org/app:v1";

async fn transfer(client: &Client, source: Any, destination: Any, progress: &str) -> Result<(), Status> {
    let request = TransferRequest {
        source: Some(source),
        destination: Some(destination),
        options: Some(TransferOptions { progress_stream: progress.to_owned() }),
    };
    TransferClient::new(client.channel.clone()).transfer(client.request(request)).await.map(|_| ())
}

fn store(name: &str) -> ImageStore {
    ImageStore { name: name.to_owned(), ..Default::default() }
}

/// As a client that wants to run the image asks.
fn unpacked(name: &str) -> ImageStore {
    let platform = Platform { os: "linux".to_owned(), architecture: "amd64".to_owned(), ..Default::default() };
    let unpacks = vec![UnpackConfiguration { platform: Some(platform), snapshotter: String::new() }];
    ImageStore { unpacks, ..store(name) }
}

fn prefixed(prefix: &str) -> ImageStore {
    let reference =
        ImageReference { name: prefix.to_owned(), is_prefix: true, allow_overwrite: true, ..Default::default() };
    ImageStore { extra_references: vec![reference], ..unpacked("") }
}

async fn import(client: &Client, archive: Vec<u8>, to: &ImageStore) -> Result<(), Status> {
    let stream = client.stream("import").await?;
    let sending = tokio::spawn(stream.send_all(archive));
    let from = ImageImportStream { stream: "import".to_owned(), ..Default::default() };
    let done = transfer(client, pack(&from), pack(to), "").await;
    // Who refuses an archive does not read it to its end, and ends its stream with the reason.
    let sent = sending.await.unwrap();
    if let (Err(refused), Err(told)) = (&done, &sent) {
        assert_eq!((refused.code(), refused.message()), (told.code(), told.message()));
    }
    assert!(done.is_err() || sent.is_ok(), "{sent:?}");
    done
}

async fn export(client: &Client, name: &str) -> Vec<u8> {
    let stream = client.stream("export").await.unwrap();
    let receiving = tokio::spawn(stream.receive_all());
    let to = ImageExportStream { stream: "export".to_owned(), ..Default::default() };
    transfer(client, pack(&store(name)), pack(&to), "").await.unwrap();
    receiving.await.unwrap()
}

fn names(instance: &Instance, tenant: &str) -> Vec<String> {
    let listed = instance.ctr(&["--namespace", tenant, "images", "ls", "-q"]);
    listed.ok().lines().map(str::to_owned).collect()
}

/// S-116: archives of both forms in, with their names; unpacked, run by `ctr`; out again, and into Docker's face.
#[test]
fn s116_transfer_archives() {
    let instance = Instance::start();
    let image = Image::busybox();
    block_on(async {
        for (tenant, archive) in [("oci", image.oci_archive()), ("dock", image.docker_archive())] {
            let client = Client::connect(&instance, tenant).await;
            import(&client, archive, &prefixed("example.org/app")).await.unwrap();
            assert_eq!(names(&instance, tenant), [super::BUSYBOX], "{tenant}");
            let snapshots = instance.ctr(&["--namespace", tenant, "snapshots", "ls"]);
            assert!(rows(snapshots.ok()).iter().all(|row| row.last() == Some(&"Committed")), "{snapshots:?}");
            assert!(!rows(snapshots.ok()).is_empty());
        }
        let client = Client::connect(&instance, "oci").await;
        let out = export(&client, super::BUSYBOX).await;
        // Docker's readers take it, and so does another tenant of ours, under another name.
        assert!(instance.load(&out).ok().contains("busybox:latest"));
        let docker = Client::connect(&instance, "default").await;
        import(&docker, out, &unpacked(APP)).await.unwrap();
    });
    assert_eq!(ctr_run(&instance, &["--rm"], "c1", &["echo", "from a transfer"]).ok(), "from a transfer");
    // The lease of a transfer ends with it.
    assert_eq!(rows(instance.ctr(&["--namespace", "oci", "leases", "ls"]).ok()), [[""; 0]; 0]);
    instance.ctr(&["--namespace", "oci", "images", "rm", "--sync", super::BUSYBOX]).ok();
    assert_eq!(rows(instance.ctr(&["--namespace", "oci", "content", "ls"]).ok()), [[""; 0]; 0]);
}

/// S-116: what an import is asked to leave out is not there when it is over; an image for nobody here is refused.
#[test]
fn s116_import_filters() {
    let instance = Instance::start();
    let platform = |architecture: &str| Platform {
        os: "linux".to_owned(),
        architecture: architecture.to_owned(),
        ..Default::default()
    };
    let archive = two_architectures();
    block_on(async {
        for (tenant, to, layers) in [
            ("all", store(APP), 2),
            ("arm", ImageStore { platforms: vec![platform("arm64")], ..store(APP) }, 1),
            ("one", ImageStore { manifest_limit: 1, ..store(APP) }, 1),
            ("meta", ImageStore { platforms: vec![platform("arm64")], all_metadata: true, ..store(APP) }, 1),
        ] {
            let client = Client::connect(&instance, tenant).await;
            import(&client, archive.clone(), &to).await.unwrap();
            let content = || instance.ctr(&["--namespace", tenant, "content", "ls", "-q"]).ok().lines().count();
            // The layout's index; of each architecture manifest and config; layers.
            let documents = if matches!(tenant, "all" | "meta") { 5 } else { 3 };
            wait_until("what was not asked for has gone", || (content() == documents + layers).then_some(()));
        }
        let client = Client::connect(&instance, "none").await;
        let to = ImageStore { platforms: vec![platform("s390x")], ..store(APP) };
        let refused = import(&client, archive, &to).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{refused:?}");
        assert!(refused.message().contains("linux/s390x"), "{refused:?}");
        assert_eq!(names(&instance, "none"), [""; 0]);
    });
}

/// An OCI layout whose index has one image for each of two architectures.
fn two_architectures() -> Vec<u8> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut entries = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let mut blob = |kind: &str, bytes: String| {
            let digest = berth_testkit::archive::digest(bytes.as_bytes());
            let described = serde_json::json!({ "mediaType": kind, "digest": digest, "size": bytes.len() });
            files.push((format!("blobs/{}", digest.replace(':', "/")), bytes.into_bytes()));
            described
        };
        let layer = blob("application/vnd.oci.image.layer.v1.tar", format!("for {architecture}"));
        let config = serde_json::json!({ "architecture": architecture, "os": "linux" }).to_string();
        let config = blob("application/vnd.oci.image.config.v1+json", config);
        let manifest = "application/vnd.oci.image.manifest.v1+json";
        let document = serde_json::json!({
            "schemaVersion": 2, "mediaType": manifest, "config": config, "layers": [layer],
        });
        let mut entry = blob(manifest, document.to_string());
        entry["platform"] = serde_json::json!({ "os": "linux", "architecture": architecture });
        entries.push(entry);
    }
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": entries }).to_string();
    files.push(("index.json".to_owned(), index.into_bytes()));
    files.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    berth_testkit::archive::outer(&files)
}

/// S-116: a pull that cannot fit is refused before a layer comes.
#[test]
fn s116_pulls_are_refused_without_space() {
    let registry = DockerRegistry::start();
    let layer = LayerFile::program("noise", berth_testkit::registry::noise(14 << 20, 1));
    registry.put(&Image::new("big:1").layer(vec![layer]).oci_archive(), "big:1");
    let disk = SmallDisk::mount(24);
    let instance = disk.instance(&[]);
    let name = registry.name("big:1");
    block_on(async {
        let client = Client::connect(&instance, "t").await;
        let from = OciRegistry { reference: name.clone(), resolver: None };
        let refused = transfer(&client, pack(&from), pack(&store(&name)), "").await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
        assert!(refused.message().contains("no space for"), "{refused:?}");
    });
    assert_eq!(names(&instance, "t"), [""; 0]);
}

/// A damaged archive, a stream nobody opened, a pair nobody serves: refused by class, and nothing stays.
#[test]
fn transfer_refusals() {
    let instance = Instance::start();
    block_on(async {
        let client = Client::connect(&instance, "t").await;
        let from = ImageImportStream { stream: "nobody".to_owned(), ..Default::default() };
        let missing = transfer(&client, pack(&from), pack(&store(APP)), "").await.unwrap_err();
        assert_eq!((missing.code(), missing.message()), (Code::NotFound, "stream \"nobody\": not found"));
        let rubbish = import(&client, vec![b'x'; 100_000], &store(APP)).await.unwrap_err();
        assert_eq!(rubbish.code(), Code::InvalidArgument, "{rubbish:?}");
        // Also to a client that has nothing more to say, and waits.
        for (id, force_compress) in [("rubbish", false), ("untouched", true)] {
            let mut stream = client.stream(id).await.unwrap();
            let rubbish = pack(&Data { data: vec![b'x'; 4096] });
            stream.outgoing.as_ref().unwrap().send(rubbish).await.unwrap();
            let from = ImageImportStream { stream: id.to_owned(), force_compress, ..Default::default() };
            let refused = transfer(&client, pack(&from), pack(&store(APP)), "").await.unwrap_err();
            let told = loop {
                match stream.incoming.message().await {
                    Ok(window) => assert!(window.is_some(), "the stream of a refused import ended without a reason"),
                    Err(told) => break told,
                }
            };
            assert_eq!((told.code(), told.message()), (refused.code(), refused.message()));
        }
        let mut archive = Image::busybox().oci_archive();
        let at = archive.len() / 2;
        archive[at] ^= 1;
        let damaged = import(&client, archive, &store(APP)).await.unwrap_err();
        assert_eq!(damaged.code(), Code::InvalidArgument, "{damaged:?}");
        let pair = transfer(&client, pack(&from), pack(&from), "").await.unwrap_err();
        assert_eq!(pair.code(), Code::Unimplemented, "{pair:?}");
        let _open = client.stream("twice").await.unwrap();
        let twice = client.stream("twice").await.map(|_| ()).unwrap_err();
        assert_eq!(twice.code(), Code::AlreadyExists, "{twice:?}");
        let other = Client::connect(&instance, "other").await;
        drop(other.stream("twice").await.unwrap());
    });
    assert_eq!(names(&instance, "t"), [""; 0]);
    assert_eq!(rows(instance.ctr(&["--namespace", "t", "leases", "ls"]).ok()), [[""; 0]; 0]);
}

/// Answers the daemon's questions with a user and a password; how often it was asked.
async fn answer_credentials(mut stream: super::client::Stream, password: &'static str) -> usize {
    let mut asked = 0;
    while let Ok(Some(message)) = stream.incoming.message().await {
        let request: AuthRequest = unpack(&message);
        assert!(request.host.starts_with("127.0.0.1:"), "{request:?}");
        asked += 1;
        let answer = AuthResponse {
            auth_type: AuthType::Credentials.into(),
            username: USER.to_owned(),
            secret: password.to_owned(),
            expire_at: None,
        };
        stream.outgoing.as_ref().unwrap().send(pack(&answer)).await.unwrap();
    }
    asked
}

/// S-116: push to a registry that asks for a password, pull from it into another tenant with progress, tag; run what came.
#[test]
fn s116_transfer_registries() {
    let instance = Instance::start();
    let registry = DockerRegistry::start_with(true);
    let name = registry.name("app:v1");
    let run = async |client: &Client, source: Any, destination: Any, auth: &str, progress: &str, password| {
        let stream = client.stream(auth).await.unwrap();
        let answering = tokio::spawn(answer_credentials(stream, password));
        let done = transfer(client, source, destination, progress).await;
        assert_eq!(answering.await.unwrap(), 1);
        done
    };
    let at = |auth: &str| {
        let resolver = RegistryResolver { auth_stream: auth.to_owned(), ..Default::default() };
        pack(&OciRegistry { reference: name.clone(), resolver: Some(resolver) })
    };
    block_on(async {
        let client = Client::connect(&instance, "one").await;
        import(&client, Image::busybox().oci_archive(), &store(APP)).await.unwrap();
        let wrong = run(&client, pack(&store(APP)), at("wrong"), "wrong", "", "guess").await.unwrap_err();
        // In Docker's words, which leave open whether there is such a repository.
        assert_eq!(wrong.code(), Code::NotFound, "{wrong:?}");
        assert!(wrong.message().contains("push access denied"), "{wrong:?}");
        run(&client, pack(&store(APP)), at("push"), "push", "", PASSWORD).await.unwrap();

        let client = Client::connect(&instance, "default").await;
        let mut progress = client.stream("progress").await.unwrap();
        let told = tokio::spawn(async move {
            let mut events = Vec::new();
            while let Ok(Some(message)) = progress.incoming.message().await {
                events.push(unpack::<Progress>(&message));
            }
            events
        });
        run(&client, at("pull"), pack(&unpacked(&name)), "pull", "progress", PASSWORD).await.unwrap();
        let told = told.await.unwrap();
        let saved = told.iter().find(|step| step.event == "saved").unwrap();
        assert_eq!(saved.name, name);
        assert!(told.last().unwrap().event.starts_with("Completed pull from OCI Registry"), "{told:?}");
        let layers =
            |event: &str| told.iter().filter(|s| s.event == event && s.name.starts_with("layer-sha256:")).count();
        assert!(layers("complete") + layers("already exists") > 0, "{told:?}");

        transfer(&client, pack(&store(&name)), pack(&store(super::BUSYBOX)), "").await.unwrap();
        let headers = RegistryResolver { headers: [("x".to_owned(), "y".to_owned())].into(), ..Default::default() };
        let refused = pack(&OciRegistry { reference: name.clone(), resolver: Some(headers) });
        let refused = transfer(&client, refused, pack(&store("x.org/y:1")), "").await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        assert!(refused.message().contains("headers"), "{refused:?}");
    });
    assert_eq!(ctr_run(&instance, &["--rm"], "c1", &["echo", "pulled"]).ok(), "pulled");
    assert_eq!(instance.berth(&["run", "--rm", &name, "echo", "in both faces"]).ok(), "in both faces");
}

/// CVE-2023-25153, CVE-2017-14992: what an archive or a layer says of itself costs the daemon at most 64 MiB when the transfer service imports and
/// unpacks it; what is refused leaves nothing.
#[test]
fn s116_no_transfer_costs_more_than_64_mib() {
    let instance = Instance::start();
    let hostile = "docker.io/library/hostile:latest";
    let nothing_is_left = |what: &str| {
        assert_eq!(names(&instance, "t"), [""; 0], "{what}");
        let content = || instance.ctr(&["--namespace", "t", "content", "ls", "-q"]).ok().lines().count();
        wait_until(&format!("{what}: its content has gone"), || (content() == 0).then_some(()));
        let snapshots = instance.ctr(&["--namespace", "t", "snapshots", "ls"]);
        assert_eq!(rows(snapshots.ok()), [[""; 0]; 0], "{what}");
    };
    block_on(async {
        let client = Client::connect(&instance, "t").await;
        let measured = async |what: &str, archive: Vec<u8>, to: ImageStore| {
            let growth = Growth::begin(instance.daemon_pid());
            let done = import(&client, archive, &to).await;
            println!("transfer of {what}: {} MiB", growth.mib());
            assert!(growth.mib() <= 64, "{what}: {} MiB", growth.mib());
            done
        };
        // Threads, buffers and code that every import needs once are there.
        import(&client, Image::busybox().oci_archive(), &unpacked(APP)).await.unwrap();
        instance.ctr(&["--namespace", "t", "images", "rm", "--sync", APP]).ok();
        for (n, bomb) in bombs::headers().into_iter().chain(bombs::entries(1)).enumerate() {
            let what = bomb.what;
            let archive = if n % 2 == 0 { bomb.oci_archive() } else { bomb.docker_archive() };
            match (measured(what, archive, unpacked(hostile)).await, bomb.fate) {
                (Ok(()), Fate::Taken) => {
                    instance.ctr(&["--namespace", "t", "images", "rm", "--sync", hostile]).ok();
                }
                (Err(refused), Fate::Refused(words)) => {
                    assert!(refused.message().contains(words), "{what}: {refused:?}");
                    assert_ne!(refused.code(), Code::Internal, "{what}: {refused:?}");
                }
                (done, fate) => panic!("{what} is to be {fate:?}: {done:?}"),
            }
            nothing_is_left(what);
        }
        for (what, archive, words) in bombs::archives() {
            // Nobody reads a config before the image is unpacked: as bytes it is as good as any. However often it is named, it is read once.
            let to = if what.contains("config") { unpacked(hostile) } else { store(hostile) };
            match measured(what, archive, to).await {
                Err(refused) => assert!(refused.message().contains(words), "{what}: {refused:?}"),
                Ok(()) => {
                    assert!(what.contains("named 1,000 times"), "{what}");
                    instance.ctr(&["--namespace", "t", "images", "rm", "--sync", hostile]).ok();
                }
            }
            nothing_is_left(what);
        }
        measured("two windows of 32 MiB", bombs::wide_windows(), unpacked(hostile)).await.unwrap();
    });
}
