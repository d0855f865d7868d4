//! Writes the image `hello` as an OCI archive: the same bytes for the same program, wherever and whenever it is made.
//!
//! ```text
//! oci-layout, index.json -> manifest -> config, layer "files" (/etc, mount points), layer "program" (/hello)
//! ```

use std::error::Error;
use std::io::Write as _;
use std::path::Path;

use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const NAME: &str = "docker.io/library/hello:latest";
/// When the image says it was made; a clock would make each build another image.
const CREATED: &str = "2026-11-01T00:00:00Z";

const OS_RELEASE: &str = "NAME=\"Berth hello\"\nID=berth-hello\nPRETTY_NAME=\"Berth hello\"\n";
const PASSWD: &str = "root:x:0:0:root:/:/hello\nnobody:x:65534:65534:nobody:/:/hello\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
}

/// Something stored under its digest.
struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

struct Layer {
    diff_id: String,
    blob: Blob,
    created_by: &'static str,
}

pub(crate) fn write(program: &str, out: &str, compression: Compression) -> Result<(), Box<dyn Error>> {
    let program = std::fs::read(program).map_err(|error| format!("cannot read {program}: {error}"))?;
    let archive = archive(&program, compression)?;
    std::fs::write(Path::new(out), archive).map_err(|error| format!("cannot write {out}: {error}").into())
}

fn archive(program: &[u8], compression: Compression) -> Result<Vec<u8>, Box<dyn Error>> {
    let layers = [
        layer(files()?, compression, "COPY files /")?,
        layer(program_layer(program)?, compression, "COPY hello /hello")?,
    ];
    let config = json_blob(&config(architecture(program)?, &layers))?;
    let manifest = json_blob(&manifest(&config, &layers, compression))?;
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": manifest.digest,
            "size": manifest.bytes.len(),
            "annotations": { "io.containerd.image.name": NAME, "org.opencontainers.image.ref.name": NAME },
        }],
    });
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    add(&mut tar, "index.json", &serde_json::to_vec(&index)?, 0o644)?;
    directory(&mut tar, "blobs/")?;
    directory(&mut tar, "blobs/sha256/")?;
    let [files, program] = layers;
    for blob in [manifest, config, files.blob, program.blob] {
        let hex = blob.digest.trim_start_matches("sha256:");
        add(&mut tar, &format!("blobs/sha256/{hex}"), &blob.bytes, 0o644)?;
    }
    Ok(tar.into_inner()?)
}

fn files() -> Result<Vec<u8>, Box<dyn Error>> {
    let mut tar = tar::Builder::new(Vec::new());
    // The mount points every container gets, so that no start has to make them.
    for path in ["dev/", "etc/", "proc/", "sys/"] {
        directory(&mut tar, path)?;
    }
    append(&mut tar, "tmp/", &[], 0o1777, tar::EntryType::Directory)?;
    add(&mut tar, "etc/group", GROUP.as_bytes(), 0o644)?;
    add(&mut tar, "etc/os-release", OS_RELEASE.as_bytes(), 0o644)?;
    add(&mut tar, "etc/passwd", PASSWD.as_bytes(), 0o644)?;
    Ok(tar.into_inner()?)
}

fn program_layer(program: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, "hello", program, 0o755)?;
    Ok(tar.into_inner()?)
}

fn layer(tar: Vec<u8>, compression: Compression, created_by: &'static str) -> Result<Layer, Box<dyn Error>> {
    let diff_id = digest(&tar);
    let bytes = match compression {
        Compression::None => tar,
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(&tar)?;
            encoder.finish()?
        }
    };
    Ok(Layer { diff_id, blob: Blob { digest: digest(&bytes), bytes }, created_by })
}

fn config(architecture: &str, layers: &[Layer]) -> Value {
    let history: Vec<Value> = layers
        .iter()
        .map(|layer| json!({ "created": CREATED, "created_by": layer.created_by }))
        .chain([json!({ "created": CREATED, "created_by": "ENTRYPOINT [\"/hello\"]", "empty_layer": true })])
        .collect();
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    json!({
        "created": CREATED,
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Entrypoint": ["/hello"],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/"],
            "WorkingDir": "/",
            "Labels": {
                "org.opencontainers.image.title": "hello",
                "org.opencontainers.image.description": "What a container sees from inside",
                "org.opencontainers.image.licenses": "Apache-2.0",
            },
        },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": history,
    })
}

fn manifest(config: &Blob, layers: &[Layer], compression: Compression) -> Value {
    let media_type = match compression {
        Compression::None => "application/vnd.oci.image.layer.v1.tar",
        Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
    };
    let layers: Vec<Value> = layers
        .iter()
        .map(|layer| json!({ "mediaType": media_type, "digest": layer.blob.digest, "size": layer.blob.bytes.len() }))
        .collect();
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config.digest,
            "size": config.bytes.len(),
        },
        "layers": layers,
    })
}

/// The architecture the program was compiled for, in the words of image configs: from the ELF header, not from this host.
fn architecture(program: &[u8]) -> Result<&'static str, Box<dyn Error>> {
    if !program.starts_with(b"\x7fELF") || program.len() < 20 {
        return Err("the program is not an ELF file".into());
    }
    match (program[5], program[18], program[19]) {
        (1, 62, 0) => Ok("amd64"),
        (1, 183, 0) => Ok("arm64"),
        (1, 243, 0) => Ok("riscv64"),
        _ => Err("the program is for an architecture that has no name here".into()),
    }
}

fn json_blob(value: &Value) -> Result<Blob, Box<dyn Error>> {
    let bytes = serde_json::to_vec(value)?;
    Ok(Blob { digest: digest(&bytes), bytes })
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn directory(tar: &mut tar::Builder<Vec<u8>>, path: &str) -> Result<(), Box<dyn Error>> {
    append(tar, path, &[], 0o755, tar::EntryType::Directory)
}

fn add(tar: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8], mode: u32) -> Result<(), Box<dyn Error>> {
    append(tar, path, bytes, mode, tar::EntryType::Regular)
}

fn append(
    tar: &mut tar::Builder<Vec<u8>>,
    path: &str,
    bytes: &[u8],
    mode: u32,
    kind: tar::EntryType,
) -> Result<(), Box<dyn Error>> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(u64::try_from(bytes.len())?);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    tar.append_data(&mut header, path, bytes)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::*;

    fn program() -> Vec<u8> {
        let mut program = b"\x7fELF\x02\x01".to_vec();
        program.resize(64, 0);
        program[18] = 62;
        program
    }

    fn entries(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut tar = tar::Archive::new(archive);
        let entries = tar.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().display().to_string(), bytes)
        });
        entries.collect()
    }

    #[test]
    fn every_blob_has_its_digest_and_every_reference_is_there() {
        for compression in [Compression::None, Compression::Gzip] {
            let entries = entries(&archive(&program(), compression).unwrap());
            for (path, bytes) in entries.iter().filter(|(path, _)| path.starts_with("blobs/sha256/") && path.len() > 13)
            {
                assert_eq!(digest(bytes), format!("sha256:{}", &path[13..]));
            }
            let blob = |descriptor: &Value| {
                let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
                let bytes = &entries[&format!("blobs/{digest}")];
                assert_eq!(descriptor["size"].as_u64(), Some(bytes.len() as u64));
                bytes
            };
            let index: Value = serde_json::from_slice(&entries["index.json"]).unwrap();
            let manifest: Value = serde_json::from_slice(blob(&index["manifests"][0])).unwrap();
            let config: Value = serde_json::from_slice(blob(&manifest["config"])).unwrap();
            assert_eq!(config["architecture"], "amd64");
            for (layer, diff_id) in [(0, 0), (1, 1)] {
                let bytes = blob(&manifest["layers"][layer]);
                let mut tar = Vec::new();
                match compression {
                    Compression::None => tar.clone_from(bytes),
                    Compression::Gzip => {
                        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut tar).unwrap();
                    }
                }
                assert_eq!(config["rootfs"]["diff_ids"][diff_id], digest(&tar));
            }
        }
    }

    #[test]
    fn the_same_program_gives_the_same_bytes() {
        assert_eq!(archive(&program(), Compression::Gzip).unwrap(), archive(&program(), Compression::Gzip).unwrap());
    }

    #[test]
    fn a_script_is_refused() {
        assert!(archive(b"#!/bin/sh\n", Compression::None).is_err());
    }
}
