//! A store in a directory of its own, archives with any fault, and what the store holds.

#![allow(dead_code, reason = "each test file uses its part")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use berth_image::{ImageError, ImageStore, ImageUse};
use berth_metadata::Metadata;
use berth_testkit::archive::{LayerFile, digest, gzip, layer_tar, outer};
use berth_types::{Digest, Reference};
use serde_json::{Value, json};

pub(crate) struct Fixture {
    pub(crate) store: ImageStore,
    pub(crate) metadata: Arc<Metadata>,
    dir: tempfile::TempDir,
}

pub(crate) type Names = Vec<Result<Reference, Digest>>;

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let metadata = Arc::new(Metadata::open(&dir.path().join("metadata.redb")).unwrap());
        let store = ImageStore::open(dir.path(), Arc::clone(&metadata)).unwrap();
        Self { store, metadata, dir }
    }

    /// Closed and opened again, as after a restart of the daemon.
    pub(crate) fn reopened(self) -> Self {
        let Self { store, metadata, dir } = self;
        drop(store);
        let store = ImageStore::open(dir.path(), Arc::clone(&metadata)).unwrap();
        Self { store, metadata, dir }
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn load(&self, archive: &[u8]) -> Result<Names, ImageError> {
        self.store.load(&mut &*archive, &|_, _, _, _| {})
    }

    /// Loads and returns the progress lines (id, what) without byte counts, each once, sorted.
    pub(crate) fn load_told(&self, archive: &[u8]) -> (Names, Vec<(String, String)>) {
        let told = Mutex::new(BTreeSet::new());
        let tell = |id: &str, what: &str, _: Option<u64>, _: Option<u64>| {
            told.lock().unwrap().insert((id.to_owned(), what.to_owned()));
        };
        let names = self.store.load(&mut &*archive, &tell).unwrap();
        (names, told.into_inner().unwrap().into_iter().collect())
    }

    pub(crate) fn save(&self, names: &[&str]) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut out = Vec::new();
        self.store.save(&names, &mut out, &|_, _, _, _| {}).unwrap();
        out
    }

    /// Every blob, layer, pending layer, ingest and writable pair, by path. (What is in the trash is nobody's any more.)
    pub(crate) fn holdings(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for place in ["content/blobs/sha256", "content/ingest", "snapshots/overlay/layers", "snapshots/overlay/pending"]
        {
            for entry in fs::read_dir(self.root().join(place)).unwrap() {
                found.insert(format!("{place}/{}", entry.unwrap().file_name().to_str().unwrap()));
            }
        }
        found.extend(self.store.prepared().unwrap());
        found
    }

    pub(crate) fn layer_names(&self) -> BTreeSet<String> {
        self.holdings()
            .into_iter()
            .filter_map(|p| p.strip_prefix("snapshots/overlay/layers/").map(str::to_owned))
            .collect()
    }
}

pub(crate) fn unused(_: &Digest) -> ImageUse {
    ImageUse::Unused
}

pub(crate) fn architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }
}

/// One file `name` with the text `text`.
pub(crate) fn one_file(name: &str, text: &str) -> Vec<u8> {
    layer_tar(&[LayerFile::text(name, text)])
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    digest(bytes)[7..].to_owned()
}

/// A config for these uncompressed layers.
pub(crate) fn config(tars: &[Vec<u8>]) -> Value {
    json!({
        "architecture": architecture(),
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": { "Cmd": ["/a"] },
        "rootfs": { "type": "layers", "diff_ids": tars.iter().map(|t| digest(t)).collect::<Vec<_>>() },
        "history": tars.iter().map(|_| json!({ "created_by": "made" })).collect::<Vec<_>>(),
    })
}

pub(crate) fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// A docker-archive whose parts can be spoiled before it is written.
pub(crate) struct Docker {
    pub(crate) manifest: Value,
    pub(crate) entries: Vec<(String, Vec<u8>)>,
}

impl Docker {
    pub(crate) fn new(tag: &str, tars: &[Vec<u8>]) -> Self {
        Self::with_config(tag, tars, &config(tars))
    }

    pub(crate) fn with_config(tag: &str, tars: &[Vec<u8>], config: &Value) -> Self {
        let config = bytes(config);
        let config_name = format!("{}.json", hex(&config));
        let layers: Vec<String> = tars.iter().map(|tar| format!("{}.tar", hex(tar))).collect();
        let manifest = json!([{ "Config": config_name, "RepoTags": [tag], "Layers": layers }]);
        let mut entries = vec![(config_name, config)];
        for (name, tar) in layers.into_iter().zip(tars) {
            if !entries.iter().any(|(n, _)| *n == name) {
                entries.push((name, tar.clone()));
            }
        }
        Self { manifest, entries }
    }

    pub(crate) fn archive(mut self) -> Vec<u8> {
        self.entries.push(("manifest.json".to_owned(), bytes(&self.manifest)));
        outer(&self.entries)
    }
}

/// An OCI layout whose parts can be spoiled before it is written.
#[derive(Default)]
pub(crate) struct Oci {
    pub(crate) entries: Vec<(String, Vec<u8>)>,
    pub(crate) index: Vec<Value>,
}

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

impl Oci {
    pub(crate) fn new() -> Self {
        Self {
            entries: vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())],
            index: Vec::new(),
        }
    }

    pub(crate) fn blob(&mut self, bytes: &[u8], media_type: &str) -> Value {
        let name = format!("blobs/sha256/{}", hex(bytes));
        if !self.entries.iter().any(|(n, _)| *n == name) {
            self.entries.push((name, bytes.to_vec()));
        }
        json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
    }

    /// Adds an image; `pack` says how its layers are compressed.
    pub(crate) fn image(
        &mut self,
        tars: &[Vec<u8>],
        config: &Value,
        pack: fn(&[u8]) -> Vec<u8>,
        suffix: &str,
    ) -> Value {
        let layers: Vec<Value> = tars.iter().map(|tar| self.blob(&pack(tar), &format!("{LAYER}{suffix}"))).collect();
        let config = self.blob(&bytes(config), CONFIG);
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
        self.blob(&bytes(&manifest), MANIFEST)
    }

    pub(crate) fn named(tag: &str, tars: &[Vec<u8>]) -> Self {
        let mut oci = Self::new();
        let image = oci.image(tars, &config(tars), gzip, "+gzip");
        oci.index.push(name(image, tag));
        oci
    }

    pub(crate) fn archive(mut self) -> Vec<u8> {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": self.index });
        self.entries.push(("index.json".to_owned(), bytes(&index)));
        outer(&self.entries)
    }
}

pub(crate) fn name(mut descriptor: Value, tag: &str) -> Value {
    descriptor["annotations"] = json!({ "io.containerd.image.name": format!("docker.io/library/{tag}") });
    descriptor
}

pub(crate) fn platform(mut descriptor: Value, architecture: &str) -> Value {
    descriptor["platform"] = json!({ "os": "linux", "architecture": architecture });
    descriptor
}

pub(crate) fn plain(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// Names as `docker load` prints them.
pub(crate) fn printed(names: &Names) -> Vec<String> {
    names.iter().map(|n| n.as_ref().map_or_else(|id| id.to_string(), Reference::familiar)).collect()
}

/// Files below a directory with their contents.
pub(crate) fn tree(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(at) = todo.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                todo.push(path);
            } else {
                let text = fs::read_to_string(&path).unwrap_or_default();
                found.push((path.strip_prefix(dir).unwrap().to_owned(), text));
            }
        }
    }
    found.sort();
    found
}
