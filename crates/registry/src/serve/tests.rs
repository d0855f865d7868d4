//! Our client against our registry. docker-registry and skopeo are met in the end-to-end tests.

use std::io::Read as _;
use std::sync::atomic::{AtomicU64, Ordering};

use berth_content::digest_of;
use berth_types::Reference;

use super::*;
use crate::{Credentials, Partials, Pushed, Registry, RegistryOptions, Session};

struct Served {
    port: u16,
    _root: tempfile::TempDir,
}

async fn served(push: PushPolicy) -> Served {
    let root = tempfile::tempdir().unwrap();
    let server = RegistryServer::open(&ServeOptions { root: root.path().to_owned(), push }).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(server.serve(listener));
    Served { port, _root: root }
}

impl Served {
    fn session(&self, name: &str) -> Arc<Session> {
        let reference: Reference = format!("127.0.0.1:{}/{name}", self.port).parse().unwrap();
        let options = RegistryOptions { range_bytes: 256 << 10, ..RegistryOptions::default() };
        Registry::new(options).session(&reference, Credentials::Anonymous).unwrap()
    }
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 7u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(next).collect()
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

async fn push(session: &Session, bytes: &[u8], sources: &[String]) -> Pushed {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let sent = AtomicU64::new(0);
    let told = |at: u64| sent.store(at, Ordering::Relaxed);
    let size = bytes.len() as u64;
    session.push_blob(&digest_of(bytes), file.path(), size, sources, &told).await.unwrap()
}

fn manifest(config: &[u8], layer: &[u8], subject: Option<&berth_types::Digest>) -> Vec<u8> {
    let mut document = serde_json::json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest_of(config), "size": config.len() },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest_of(layer), "size": layer.len() }],
    });
    if let Some(digest) = subject {
        document["subject"] = serde_json::json!({ "mediaType": MANIFEST, "digest": digest, "size": 1 });
        document["artifactType"] = serde_json::json!("application/x-signature");
    }
    document.to_string().into_bytes()
}

#[tokio::test]
async fn what_is_pushed_is_pulled() {
    let served = served(PushPolicy::Loopback).await;
    let session = served.session("team/app");
    // More than one chunk of an upload, more than one range of a fetch.
    let (config, layer) = (b"{}".to_vec(), noise(5 << 20));
    assert_eq!(push(&session, &config, &[]).await, Pushed::Uploaded);
    assert_eq!(push(&session, &layer, &[]).await, Pushed::Uploaded);
    assert_eq!(push(&session, &layer, &[]).await, Pushed::Existed);
    let document = manifest(&config, &layer, None);
    let digest = session.put_manifest("1", MANIFEST, &document).await.unwrap();
    assert_eq!(session.describe("1").await.unwrap().unwrap().digest, digest);
    assert_eq!(session.manifest(&digest.to_string()).await.unwrap().bytes, document);
    let root = tempfile::tempdir().unwrap();
    let partials = Partials::open(Arc::new(berth_content::ContentStore::open(root.path()).unwrap())).unwrap();
    let fetch = session.fetch(&partials, &digest_of(&layer), layer.len() as u64).unwrap();
    fetch.partial().verified().await.unwrap();
    let mut got = Vec::new();
    fetch.partial().reader().read_to_end(&mut got).unwrap();
    assert!(got == layer);
    // A second repository mounts, and its tags come in pages.
    let other = served.session("copy");
    let sources = ["team/app".to_owned()];
    assert_eq!(push(&other, &layer, &sources).await, Pushed::Mounted("team/app".to_owned()));
    assert_eq!(push(&other, &config, &sources).await, Pushed::Mounted("team/app".to_owned()));
    for tag in ["c", "a", "b"] {
        other.put_manifest(tag, MANIFEST, &document).await.unwrap();
    }
    assert_eq!(other.tags().await.unwrap(), ["a", "b", "c"]);
    assert!(served.session("nobody").tags().await.is_err());
    // Who refers to the image.
    assert!(session.referrers(&digest).await.unwrap().is_some_and(|found| !contains(&found.bytes, "x-signature")));
    session.put_manifest("sig", MANIFEST, &manifest(&config, &layer, Some(&digest))).await.unwrap();
    assert!(session.referrers(&digest).await.unwrap().is_some_and(|found| contains(&found.bytes, "x-signature")));
}

fn contains(bytes: &[u8], text: &str) -> bool {
    String::from_utf8_lossy(bytes).contains(text)
}

#[tokio::test]
async fn what_is_wrong_is_refused() {
    let served = served(PushPolicy::Loopback).await;
    let session = served.session("app");
    let (config, layer) = (b"{}".to_vec(), b"layer".to_vec());
    push(&session, &config, &[]).await;
    let missing = session.put_manifest("1", MANIFEST, &manifest(&config, &layer, None)).await.unwrap_err();
    assert!(missing.to_string().contains("manifest_blob_unknown"), "{missing}");
    push(&session, &layer, &[]).await;
    let good = manifest(&config, &layer, None);
    let both = String::from_utf8(good.clone()).unwrap().replace("\"layers\"", "\"manifests\":[],\"layers\"");
    for (document, kind, why) in [
        (both.as_bytes(), MANIFEST, "both an index and a manifest"),
        (&good[..], "application/vnd.docker.distribution.manifest.v2+json", "media type is not the one"),
        (b"{\"schemaVersion\":1}", MANIFEST, "schema 1"),
        (b"rubbish", MANIFEST, "manifest is not valid"),
    ] {
        let error = session.put_manifest("1", kind, document).await.unwrap_err();
        assert!(error.to_string().contains(why), "{error} | {why}");
    }
    let large = session.put_manifest("1", MANIFEST, &vec![b' '; 5 << 20]).await.unwrap_err();
    assert!(large.to_string().contains("413") || large.to_string().contains("cannot push"), "{large}");
    // A blob that is not what it is said to be leaves nothing.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"other").unwrap();
    let error = session.push_blob(&digest_of(b"this"), file.path(), 5, &[], &|_| {}).await.unwrap_err();
    assert!(error.to_string().contains("digest_invalid"), "{error}");
    assert!(session.document(&digest_of(b"this"), 100).await.is_err());
}

#[tokio::test]
async fn a_read_only_registry_takes_nothing() {
    let served = served(PushPolicy::Never).await;
    let session = served.session("app");
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = session.push_blob(&digest_of(b""), file.path(), 0, &[], &|_| {}).await.unwrap_err();
    assert!(error.to_string().contains("read-only"), "{error}");
    assert!(matches!(session.manifest("1").await, Err(RegistryError::NoManifest { .. })));
}

/// CVE-2026-41888, CVE-2026-35172, CVE-2025-24976: nobody deletes here, by no way of asking, so nothing is served that was deleted; and no token
/// makes anybody more than where he comes from makes him.
#[tokio::test]
async fn cve_2026_41888_nothing_is_deleted_and_no_token_counts() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let served = served(PushPolicy::Loopback).await;
    let session = served.session("app");
    let (config, layer) = (b"{}".to_vec(), b"layer".to_vec());
    push(&session, &config, &[]).await;
    push(&session, &layer, &[]).await;
    let document = manifest(&config, &layer, None);
    let digest = session.put_manifest("1", MANIFEST, &document).await.unwrap();
    // `alg: none`, as anybody can make it.
    let token = "authorization: Bearer eyJhbGciOiJub25lIn0.eyJhY2Nlc3MiOlt7InR5cGUiOiJyZWdpc3RyeSIsIm5hbWUiOiIqIiwiYWN0aW9ucyI6WyIqIl19XX0.\r\n";
    let ask = |port: u16, method: &str, path: &str, more: &str| {
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n{more}\r\n");
        async move {
            let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer.split(' ').nth(1).unwrap().to_owned()
        }
    };
    for path in [
        "/v2/app/manifests/1".to_owned(),
        format!("/v2/app/manifests/{digest}"),
        format!("/v2/app/blobs/{}", digest_of(&layer)),
    ] {
        for more in ["", token] {
            assert_eq!(ask(served.port, "DELETE", &path, more).await, "405", "{path} {more}");
            let method = format!("x-http-method-override: DELETE\r\n{more}");
            assert_ne!(ask(served.port, "POST", &path, &method).await, "202", "{path}");
        }
    }
    assert_eq!(session.manifest("1").await.unwrap().bytes, document);
    assert_eq!(push(&session, &layer, &[]).await, Pushed::Existed);
    // A tag that moved is asked for anew each time.
    let other = manifest(&config, &layer, Some(&digest));
    session.put_manifest("1", MANIFEST, &other).await.unwrap();
    assert_eq!(session.manifest("1").await.unwrap().bytes, other);

    let reading = super::tests::served(PushPolicy::Never).await;
    for more in ["", token] {
        assert_eq!(ask(reading.port, "POST", "/v2/app/blobs/uploads/", more).await, "403", "{more}");
    }
}

#[test]
fn one_process_at_a_time() {
    let root = tempfile::tempdir().unwrap();
    let options = ServeOptions { root: root.path().to_owned(), push: PushPolicy::Always };
    let _first = RegistryServer::open(&options).unwrap();
    assert!(RegistryServer::open(&options).unwrap_err().to_string().starts_with("cannot lock "));
}
