//! Pulling from a source whose bytes turn out wrong on the way and come again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use berth_image::{Incoming, LayerSource, RemoteDocument};
use berth_testkit::archive::{LayerFile, digest, gzip, layer_tar};
use berth_types::Digest;
use serde_json::json;
use support::*;

/// One layer; the first edition of it is wrong, which is known only when a reader had its end, or nobody reads it any more.
struct TwoEditions {
    wrong: Vec<u8>,
    right: Vec<u8>,
    file: PathBuf,
    edition: AtomicU64,
    opened: AtomicU64,
}

struct Shared(Arc<TwoEditions>);

impl LayerSource for Shared {
    fn open(&self, _: &Digest) -> io::Result<Box<dyn Read + Send>> {
        self.0.opened.fetch_add(1, Ordering::Relaxed);
        let is_wrong = self.0.edition.load(Ordering::Relaxed) == 0;
        Ok(Box::new(io::Cursor::new(if is_wrong { self.0.wrong.clone() } else { self.0.right.clone() })))
    }

    fn edition(&self, _: &Digest) -> u64 {
        self.0.edition.load(Ordering::Relaxed)
    }

    fn was_wrong(&self, _: &Digest, edition: u64, _: &dyn Fn() -> bool) -> bool {
        self.0.edition.store(1, Ordering::Relaxed);
        edition == 0
    }

    fn whole(&self, _: &Digest) -> io::Result<PathBuf> {
        self.0.edition.store(1, Ordering::Relaxed);
        Ok(self.0.file.clone())
    }
}

fn incoming(tar: &[u8], blob: &[u8], kind: &str) -> Incoming {
    let config = bytes(&config(&[tar.to_vec()]));
    let described = |kind: &str, bytes: &[u8]| {
        let media_type = format!("application/vnd.oci.image.{kind}");
        json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
    };
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type,
        "config": described("config.v1+json", &config), "layers": [described(kind, blob)],
    });
    let RemoteDocument::Manifest(manifest) = RemoteDocument::parse(bytes(&manifest), media_type, "app:1").unwrap()
    else {
        unreachable!("it is a manifest")
    };
    Incoming::new(manifest, config, vec!["app:1".parse().unwrap()]).unwrap()
}

/// A layer that was unpacked, or could not be, of bytes that were wrong is unpacked anew: also a plain one, whose archive is fine but not the one
/// that was promised, and one that goes on behind its end.
#[test]
fn wrong_bytes_are_never_what_a_layer_is_made_of() {
    let right = layer_tar(&[LayerFile::text("file", "right"), LayerFile::text("other", "right")]);
    let wrong = layer_tar(&[LayerFile::text("file", "wrong"), LayerFile::text("extra", "wrong")]);
    let behind_the_end = [&right[..], &[0; 200_000]].concat();
    let wrong_before = [&wrong[..], &[0; 200_000]].concat();
    // What it is, its kind, the archive in it, the blob, and what comes first in its place.
    type Case<'c> = (&'c str, &'c str, &'c [u8], Vec<u8>, Vec<u8>);
    let cases: [Case<'_>; 5] = [
        ("plain, another archive", "layer.v1.tar", &right, right.clone(), wrong.clone()),
        ("plain, no archive", "layer.v1.tar", &right, right.clone(), vec![b'x'; right.len()]),
        ("plain, with more behind its end", "layer.v1.tar", &behind_the_end, behind_the_end.clone(), wrong_before),
        ("packed, another archive", "layer.v1.tar+gzip", &right, gzip(&right), gzip(&wrong)),
        ("packed, no gzip", "layer.v1.tar+gzip", &right, gzip(&right), vec![b'x'; 100]),
    ];
    for (what, kind, tar, blob, spoilt) in cases {
        let fixture = Fixture::new();
        let file = fixture.root().join("arrived");
        std::fs::write(&file, &blob).unwrap();
        let source = TwoEditions {
            wrong: spoilt,
            right: blob.clone(),
            file,
            edition: AtomicU64::new(0),
            opened: AtomicU64::new(0),
        };
        let source = Arc::new(source);
        let given = Shared(Arc::clone(&source));
        let pulled = fixture.store.pull(incoming(tar, &blob, kind), |_| Ok(given), &|_, _, _, _| {});
        assert!(pulled.as_ref().is_ok_and(|is_new| *is_new), "{what}: {pulled:?}");
        assert_eq!(source.opened.load(Ordering::Relaxed), 2, "{what}");
        let layer = fixture.store.get("app:1").unwrap().layers.remove(0);
        let mut files: Vec<_> = std::fs::read_dir(&layer.directory).unwrap().map(|f| f.unwrap().file_name()).collect();
        files.sort();
        assert_eq!(files, ["file", "other"], "{what}");
        assert_eq!(std::fs::read_to_string(layer.directory.join("file")).unwrap(), "right", "{what}");
        let pending = std::fs::read_dir(fixture.root().join("snapshots/overlay/pending")).unwrap();
        assert_eq!(pending.count(), 0, "{what}: nothing of the first is left");
    }
}
