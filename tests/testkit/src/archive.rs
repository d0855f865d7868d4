//! Image archives built in the test: docker-archive and OCI archive, plain or gzip, honest by default.

use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// One entry of a layer.
#[derive(Debug, Clone)]
pub enum LayerFile {
    Directory { path: String, mode: u32 },
    File { path: String, mode: u32, bytes: Vec<u8> },
    Symlink { path: String, target: String },
    Hardlink { path: String, target: String },
}

impl LayerFile {
    pub fn directory(path: &str) -> Self {
        Self::Directory { path: path.to_owned(), mode: 0o755 }
    }

    pub fn text(path: &str, text: &str) -> Self {
        Self::File { path: path.to_owned(), mode: 0o644, bytes: text.as_bytes().to_vec() }
    }

    pub fn program(path: &str, bytes: Vec<u8>) -> Self {
        Self::File { path: path.to_owned(), mode: 0o755, bytes }
    }

    pub fn symlink(path: &str, target: &str) -> Self {
        Self::Symlink { path: path.to_owned(), target: target.to_owned() }
    }
}

/// `sha256:<hex>` of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// An uncompressed layer tar with fixed times and owners.
pub fn layer_tar(files: &[LayerFile]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(1_700_000_000);
        match file {
            LayerFile::Directory { path, mode } => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(*mode);
                header.set_size(0);
                builder.append_data(&mut header, path, std::io::empty()).unwrap();
            }
            LayerFile::File { path, mode, bytes } => {
                header.set_mode(*mode);
                header.set_size(bytes.len() as u64);
                builder.append_data(&mut header, path, bytes.as_slice()).unwrap();
            }
            LayerFile::Symlink { path, target } => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                header.set_size(0);
                builder.append_link(&mut header, path, target).unwrap();
            }
            LayerFile::Hardlink { path, target } => {
                header.set_entry_type(tar::EntryType::Link);
                header.set_mode(0o644);
                header.set_size(0);
                builder.append_link(&mut header, path, target).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

/// An image under construction.
#[derive(Debug, Clone)]
pub struct Image {
    pub reference: String,
    pub layers: Vec<Vec<LayerFile>>,
    /// image-spec `config`.
    pub config: Value,
    /// In Go's words; this machine's when empty.
    pub architecture: String,
}

impl Image {
    pub fn new(reference: &str) -> Self {
        Self {
            reference: reference.to_owned(),
            architecture: String::new(),
            layers: Vec::new(),
            config: json!({ "Cmd": ["/bin/sh"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] }),
        }
    }

    /// Debian's static busybox with links for its applets, `/etc/passwd` with root and `user` (1000:1000), as one layer.
    pub fn busybox() -> Self {
        let program = std::fs::read(crate::peers::busybox()).unwrap();
        let list = std::process::Command::new(crate::peers::busybox()).arg("--list").output().unwrap();
        let mut files: Vec<LayerFile> =
            ["bin", "etc", "root", "tmp", "home", "home/user"].map(LayerFile::directory).to_vec();
        files.push(LayerFile::program("bin/busybox", program));
        for applet in String::from_utf8(list.stdout).unwrap().lines().filter(|a| *a != "busybox") {
            files.push(LayerFile::symlink(&format!("bin/{applet}"), "busybox"));
        }
        files.push(LayerFile::text(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
        ));
        files.push(LayerFile::text("etc/group", "root:x:0:root\nuser:x:1000:\nextra:x:2000:user\n"));
        Self::new("busybox:latest").layer(files)
    }

    #[must_use]
    pub fn layer(mut self, files: Vec<LayerFile>) -> Self {
        self.layers.push(files);
        self
    }

    #[must_use]
    pub fn config(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    fn config_document(&self, tars: &[Vec<u8>]) -> Vec<u8> {
        let history: Vec<Value> = (0..tars.len())
            .map(|n| json!({ "created": "2026-01-01T00:00:00Z", "created_by": format!("layer {n}") }))
            .collect();
        let host = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
        json!({
            "architecture": if self.architecture.is_empty() { host } else { &self.architecture },
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": tars.iter().map(|t| digest(t)).collect::<Vec<_>>() },
            "history": history,
        })
        .to_string()
        .into_bytes()
    }

    fn tars(&self) -> Vec<Vec<u8>> {
        self.layers.iter().map(|files| layer_tar(files)).collect()
    }

    /// The digest of its config.
    pub fn id(&self) -> String {
        digest(&self.config_document(&self.tars()))
    }

    /// As `docker save` of old wrote it.
    pub fn docker_archive(&self) -> Vec<u8> {
        let tars = self.tars();
        let config = self.config_document(&tars);
        let config_name = format!("{}.json", &digest(&config)[7..]);
        let names: Vec<String> = tars.iter().map(|tar| format!("{}/layer.tar", &digest(tar)[7..])).collect();
        let manifest = json!([{ "Config": config_name, "RepoTags": [self.reference], "Layers": names }]).to_string();
        let mut entries: Vec<(String, Vec<u8>)> = vec![(config_name, config)];
        entries.extend(names.into_iter().zip(tars));
        entries.push(("manifest.json".to_owned(), manifest.into_bytes()));
        outer(&entries)
    }

    /// OCI layout in a tar, layers gzipped.
    pub fn oci_archive(&self) -> Vec<u8> {
        let tars = self.tars();
        let config = self.config_document(&tars);
        let mut entries = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
        let mut blob = |bytes: Vec<u8>, media_type: &str| {
            let digest = digest(&bytes);
            let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
            entries.push((format!("blobs/sha256/{}", &digest[7..]), bytes));
            descriptor
        };
        let layers: Vec<Value> =
            tars.iter().map(|tar| blob(gzip(tar), "application/vnd.oci.image.layer.v1.tar+gzip")).collect();
        let config = blob(config, "application/vnd.oci.image.config.v1+json");
        let manifest = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers });
        let mut manifest = blob(manifest.to_string().into_bytes(), "application/vnd.oci.image.manifest.v1+json");
        manifest["annotations"] = json!({ "io.containerd.image.name": format!("docker.io/library/{}", self.reference), "org.opencontainers.image.ref.name": self.reference });
        let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest] });
        entries.push(("index.json".to_owned(), index.to_string().into_bytes()));
        outer(&entries)
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A tar of named byte strings.
pub fn outer(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, Path::new(name), bytes.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}
