//! Mirrors with wrong bytes: the next host is asked, and nothing of what they gave is taken for right.

use super::*;

/// A registry with mirrors before it, by `hosts.toml`.
struct Mirrored {
    _root: tempfile::TempDir,
    origin: Rogue,
    mirrors: Vec<Rogue>,
    session: Arc<Session>,
}

impl Mirrored {
    fn new(origin: Rogue, mirrors: Vec<Rogue>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join(format!("127.0.0.1:{}", origin.port));
        std::fs::create_dir(&directory).unwrap();
        let host = |mirror: &Rogue| {
            format!("[host.\"http://127.0.0.1:{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n", mirror.port)
        };
        let text: String = mirrors.iter().map(host).collect();
        std::fs::write(directory.join("hosts.toml"), text).unwrap();
        let options = RegistryOptions { hosts_directories: vec![root.path().to_owned()], ..options() };
        let session = origin.session_with(Credentials::Anonymous, options);
        Self { _root: root, origin, mirrors, session }
    }
}

fn honest(blob: &[u8]) -> Rogue {
    let content = blob.to_vec();
    Rogue::new(move |seen, wire| wire.blob(&content, seen, usize::MAX))
}

/// The same length, other bytes from `at`.
fn spoilt(blob: &[u8], at: usize) -> Vec<u8> {
    blob[..at].iter().copied().chain(blob[at..].iter().map(|byte| byte ^ 1)).collect()
}

fn whole_of(wire: &mut Wire<'_>, bytes: &[u8]) {
    wire.answer("200 OK", "", bytes);
}

type Lie = fn(&[u8], &Seen, &mut Wire<'_>);

/// Every way to give wrong bytes: the fetch succeeds all the same, with the right ones.
#[tokio::test]
async fn a_mirror_with_wrong_bytes_is_passed_over() {
    let blob = noise(600_000);
    let lies: [(&str, Lie); 7] = [
        ("all wrong", |blob, seen, wire| wire.blob(&spoilt(blob, 0), seen, usize::MAX)),
        ("the last byte", |blob, seen, wire| wire.blob(&spoilt(blob, blob.len() - 1), seen, usize::MAX)),
        ("no ranges", |blob, _, wire| whole_of(wire, &spoilt(blob, 70_000))),
        ("too many", |blob, _, wire| whole_of(wire, &[blob, b"more"].concat())),
        ("half of them, then nothing", |blob, seen, wire| match seen.range() {
            Some((0, _)) => wire.blob(&spoilt(blob, 0), seen, usize::MAX),
            _ => wire.answer("404 Not Found", "", b""),
        }),
        ("half of them, then another range", |blob, seen, wire| match seen.range() {
            Some((0, _)) => wire.blob(&spoilt(blob, 0), seen, usize::MAX),
            _ => wire.answer("206 Partial Content", "Content-Range: bytes 1-2/3\r\n", b"xx"),
        }),
        ("ranges, then other bytes as a whole", |blob, seen, wire| match seen.range() {
            Some((0, _)) => wire.blob(blob, seen, usize::MAX),
            _ => whole_of(wire, &[&spoilt(&blob[..1000], 0), &blob[1000..]].concat()),
        }),
    ];
    for (what, lie) in lies {
        let content = blob.clone();
        let liar = Rogue::new(move |seen, wire| lie(&content, seen, wire));
        let hosts = Mirrored::new(honest(&blob), vec![liar]);
        let scratch = scratch();
        let found = fetch(&hosts.session, &scratch.partials, &blob).await;
        assert_eq!(found, Ok(()), "{what}");
        assert!(!hosts.mirrors[0].seen().is_empty(), "{what}: the mirror is asked first");
        // At most what is missing, and once more all of it.
        let sent = hosts.origin.sent.load(Ordering::Relaxed);
        assert!(sent <= 2 * blob.len() as u64 + 3000, "{what}: {sent} bytes came from the registry");
    }
}

/// Where nobody has the right bytes, the error names the digest and the last host, and nothing of theirs is kept.
#[tokio::test]
async fn where_all_are_wrong_the_last_is_named() {
    let blob = noise(300_000);
    let liar = || honest(&spoilt(&blob, 1));
    let hosts = Mirrored::new(liar(), vec![liar(), liar()]);
    let scratch = scratch();
    let error = fetch(&hosts.session, &scratch.partials, &blob).await.unwrap_err();
    let (digest, port) = (digest_of(&blob), hosts.origin.port);
    let expected = format!(
        "blob {} from 127.0.0.1:{port} has digest {}, expected {digest}",
        digest.short(),
        digest_of(&spoilt(&blob, 1))
    );
    assert_eq!(error, expected);
    for host in hosts.mirrors.iter().chain([&hosts.origin]) {
        let sent = host.sent.load(Ordering::Relaxed);
        assert!(sent < blob.len() as u64 + 2000, "each is asked once: {sent} bytes of {}", host.port);
    }
    assert_eq!(scratch.partials.kept_bytes(&digest, blob.len() as u64), 0);
}

/// Wrong bytes that were kept of an earlier attempt, and nobody knows of whom: the fetch that finds out gets the right ones.
#[tokio::test]
async fn wrong_bytes_of_an_earlier_attempt_are_fetched_again() {
    let blob = noise(300_000);
    let scratch = scratch();
    let wrong = spoilt(&blob, 0);
    let breaks_off = Rogue::new(move |seen, wire| match seen.range() {
        Some((0, _)) => wire.blob(&wrong, seen, usize::MAX),
        _ => wire.answer("404 Not Found", "", b""),
    });
    let told = fetch(&breaks_off.session(Credentials::Anonymous), &scratch.partials, &blob).await.unwrap_err();
    assert!(told.contains("status 404"), "{told}");
    assert!(scratch.partials.kept_bytes(&digest_of(&blob), blob.len() as u64) > 0);
    fetch(&honest(&blob).session(Credentials::Anonymous), &scratch.partials, &blob).await.unwrap();
}

/// Who follows the bytes while they come from a liar is told before the end, and reads the right ones from the first again; pulls that wait for
/// the same blob share the fetch as ever.
#[tokio::test]
async fn readers_begin_again_with_the_next_host() {
    let blob = noise(600_000);
    let hosts = Mirrored::new(honest(&blob), vec![honest(&spoilt(&blob, 300_000))]);
    let scratch = scratch();
    let (digest, size) = (digest_of(&blob), blob.len() as u64);
    let both = [0, 1].map(|_| hosts.session.fetch(&scratch.partials, &digest, size).unwrap());
    assert!(Arc::ptr_eq(&both[0], &both[1]));
    let readers = both.clone().map(|fetch| {
        let partial = Arc::clone(fetch.partial());
        tokio::task::spawn_blocking(move || {
            let mut attempts = 0;
            loop {
                let (edition, mut got) = (partial.edition(), Vec::new());
                let read = partial.reader().read_to_end(&mut got);
                attempts += 1;
                match read {
                    Ok(_) => return (attempts, got),
                    Err(error) => assert!(partial.was_wrong(edition, &|| true), "{error}"),
                }
            }
        })
    });
    for reader in readers {
        let (attempts, got) = reader.await.unwrap();
        assert!(got == blob && attempts <= 2, "{attempts} attempts");
    }
    let sent = hosts.mirrors[0].sent.load(Ordering::Relaxed);
    assert!(sent < size + 3000, "the mirror gave it once: {sent}");
}

/// The same for documents by digest: manifests and configs.
#[tokio::test]
async fn a_mirror_with_wrong_documents_is_passed_over() {
    let manifest = |bytes: &'static [u8]| {
        let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n";
        Rogue::new(move |_, wire| wire.answer("200 OK", kind, bytes))
    };
    let digest = digest_of(DOCUMENT);
    let hosts = Mirrored::new(manifest(DOCUMENT), vec![manifest(b"{\"schemaVersion\":2}")]);
    assert_eq!(hosts.session.manifest(&digest.to_string()).await.unwrap().bytes, DOCUMENT);
    assert_eq!(hosts.session.document(&digest, 1 << 20).await.unwrap(), DOCUMENT);
    assert_eq!((hosts.mirrors[0].seen().len(), hosts.origin.seen().len()), (2, 2));
    let hosts = Mirrored::new(manifest(b"{}"), vec![manifest(b"[]")]);
    let error = hosts.session.document(&digest, 1 << 20).await.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("blob {} from 127.0.0.1:{} has digest ", digest.short(), hosts.origin.port)),
        "{error}"
    );
    assert!(error.ends_with(&digest.to_string()), "{error}");
    let error = hosts.session.manifest(&digest.to_string()).await.unwrap_err().to_string();
    assert!(error.contains(&format!(" from 127.0.0.1:{} has digest ", hosts.origin.port)), "{error}");
}

/// A list of tags that is none is no reason not to ask the next host.
#[tokio::test]
async fn a_mirror_with_a_damaged_list_of_tags_is_passed_over() {
    let list = |text: &'static [u8]| Rogue::new(move |_, wire| wire.answer("200 OK", "", text));
    let tags = br#"{"name":"app","tags":["1","2"]}"#;
    let hosts = Mirrored::new(list(tags), vec![list(&tags[..20])]);
    assert_eq!(hosts.session.tags().await.unwrap(), ["1", "2"]);
    assert_eq!(hosts.mirrors[0].seen().len(), 1);
    let hosts = Mirrored::new(list(b"["), vec![list(b"")]);
    let error = hosts.session.tags().await.unwrap_err().to_string();
    assert_eq!(error, format!("127.0.0.1:{} misbehaves: its list of tags is not valid JSON", hosts.origin.port));
}
