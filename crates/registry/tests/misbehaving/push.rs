//! Registries that are pushed to: what was not taken is never said to be there, and what a push costs them and us is bounded.

use super::*;

fn file_of(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

async fn push(session: &Arc<Session>, bytes: &[u8], sources: &[String]) -> Result<berth_registry::Pushed, String> {
    let (file, digest) = (file_of(bytes), digest_of(bytes));
    let pushing = session.push_blob(&digest, file.path(), bytes.len() as u64, sources, &|_| {});
    let within = tokio::time::timeout(Duration::from_secs(20), pushing).await.expect("it ends");
    within.map_err(|error| berth_types::report(&error))
}

/// A browser may take a redirect for an answer to what it sent: nothing was taken here. One that says to send the same elsewhere is followed.
#[tokio::test]
async fn a_write_that_is_redirected_was_not_taken() {
    for (status, is_followed) in
        [("301 Moved", false), ("302 Found", false), ("303 See Other", false), ("304 No", false), ("308 There", true)]
    {
        let there = Rogue::new(|_, wire| wire.answer("201 Created", "", b""));
        let location = format!("Location: http://127.0.0.1:{}/there\r\n", there.port);
        let rogue = Rogue::new(move |_, wire| wire.answer(status, &location, b""));
        let session = rogue.session(Credentials::Anonymous);
        let put = session.put_manifest("1", "application/vnd.oci.image.manifest.v1+json", DOCUMENT).await;
        assert_eq!(put.is_ok(), is_followed, "{status}: {put:?}");
        let Err(error) = put else {
            let seen = there.seen();
            assert_eq!((seen[0].method.as_str(), seen[0].body.as_bytes()), ("PUT", DOCUMENT));
            continue;
        };
        let expected = format!("127.0.0.1:{} misbehaves: it answers PUT http://127.0.0.1:", rogue.port);
        assert!(error.to_string().starts_with(&expected), "{error}");
        assert!(error.to_string().contains(&status[..3]) && there.seen().is_empty(), "{error}");
    }
    // The same at each step of a blob.
    for refused in ["POST", "PATCH", "PUT"] {
        let rogue = Rogue::new(move |seen, wire| match seen.method.as_str() {
            "HEAD" => wire.answer("404 Not Found", "", b""),
            method if method == refused => wire.answer("302 Found", "Location: /v2/app/blobs/uploads/1\r\n", b""),
            "PUT" => wire.answer("201 Created", "", b""),
            _ => wire.answer("202 Accepted", "Location: /v2/app/blobs/uploads/1\r\n", b""),
        });
        let error = push(&rogue.session(Credentials::Anonymous), b"some", &[]).await.unwrap_err();
        assert!(error.contains(&format!("misbehaves: it answers {refused} ")), "{refused}: {error}");
    }
}

/// How far an upload is: numbers that cannot be end in an error, not in a panic or in a blob that is said to be there.
#[tokio::test]
async fn more_than_was_sent() {
    let range = format!("Location: /v2/app/blobs/uploads/1\r\nRange: 0-{}\r\n", u64::MAX);
    let breaks = AtomicUsize::new(0);
    let rogue = Rogue::new(move |seen, wire| match seen.method.as_str() {
        "HEAD" => wire.answer("404 Not Found", "", b""),
        // Asked how far it is after the first chunk broke off.
        "PATCH" if breaks.fetch_add(1, Ordering::Relaxed) == 0 => {}
        "PUT" => wire.answer("400 Bad", "", br#"{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}"#),
        _ => wire.answer("202 Accepted", &range, b""),
    });
    let error = push(&rogue.session(Credentials::Anonymous), b"some", &[]).await.unwrap_err();
    assert!(error.ends_with("status 400: digest_invalid: no"), "{error}");
}

/// A registry that mounts nothing begins an upload each time: it is asked a few times only, and told of each upload that is not gone on with.
#[tokio::test]
async fn uploads_begun_instead_of_a_mount_are_few_and_cancelled() {
    let sources: Vec<String> = (0..20).map(|n| format!("other/{n}")).collect();
    for (mounts_at, expected_deletes) in [(usize::MAX, 3), (2, 2)] {
        let begun = AtomicUsize::new(0);
        let rogue = Rogue::new(move |seen, wire| match seen.method.as_str() {
            "HEAD" => wire.answer("404 Not Found", "", b""),
            "DELETE" => wire.answer("204 No Content", "", b""),
            "PUT" => wire.answer("201 Created", "", b""),
            "POST" if begun.load(Ordering::Relaxed) == mounts_at => wire.answer("201 Created", "", b""),
            _ => {
                let number = begun.fetch_add(1, Ordering::Relaxed);
                wire.answer("202 Accepted", &format!("Location: /v2/app/blobs/uploads/{number}\r\n"), b"");
            }
        });
        push(&rogue.session(Credentials::Anonymous), b"some", &sources).await.unwrap();
        let count = |method: &str| rogue.seen().iter().filter(|seen| seen.method == method).count();
        assert!(count("POST") <= 4, "{} mounts were tried", count("POST"));
        assert_eq!(count("DELETE"), expected_deletes);
    }
}

/// However many layers an image has: few of them are asked for, open and sent at the same time.
#[tokio::test]
async fn few_blobs_are_pushed_at_the_same_time() {
    const BLOBS_MAX: usize = 5;
    let asked = Arc::new(AtomicUsize::new(0));
    let (is_open, opened) = (Arc::new((Mutex::new(false), std::sync::Condvar::new())), Arc::clone(&asked));
    let gate = Arc::clone(&is_open);
    let rogue = Rogue::new(move |seen, wire| {
        // Nobody is answered before all were counted that come at the same time.
        if seen.method == "HEAD" {
            opened.fetch_add(1, Ordering::Relaxed);
            drop(gate.1.wait_while(gate.0.lock().unwrap(), |is_open| !*is_open).unwrap());
        }
        wire.answer("200 OK", "", b"");
    });
    let options = RegistryOptions { blobs_max: BLOBS_MAX, stall: Duration::from_secs(30), ..options() };
    let session = rogue.session_with(Credentials::Anonymous, options);
    let mut jobs = tokio::task::JoinSet::new();
    for number in 0..60_u32 {
        let session = Arc::clone(&session);
        jobs.spawn(async move { push(&session, &number.to_le_bytes(), &[]).await.unwrap() });
    }
    while asked.load(Ordering::Relaxed) < BLOBS_MAX {
        tokio::task::yield_now().await;
    }
    // Who comes later is answered, so those who came before have been heard.
    for _ in 0..20 {
        rogue.session(Credentials::Anonymous).manifest("1").await.unwrap();
    }
    assert_eq!(asked.load(Ordering::Relaxed), BLOBS_MAX);
    *is_open.0.lock().unwrap() = true;
    is_open.1.notify_all();
    while let Some(pushed) = jobs.join_next().await {
        assert_eq!(pushed.unwrap(), berth_registry::Pushed::Existed);
    }
}
