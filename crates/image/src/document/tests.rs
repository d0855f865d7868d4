use berth_types::{Classify as _, ErrorClass};

use super::*;

fn digest(n: u8) -> Digest {
    Digest::from_bytes([n; 32])
}

fn descriptor(media_type: &str) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":1}}"#, digest(1))
}

fn refused(json: &str, described_as: &str) -> String {
    let error = Document::parse(json.as_bytes(), "the manifest", described_as).unwrap_err();
    assert_eq!(error.class(), ErrorClass::InvalidArgument);
    berth_types::report(&error)
}

/// CVE-2021-41190: a document that is a manifest for one reader and an index for another.
#[test]
fn cve_2021_41190_both_kinds_at_once() {
    let config = descriptor(OCI_CONFIG);
    let both = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"manifests":[]}}"#);
    assert_eq!(refused(&both, OCI_MANIFEST), "invalid image archive: the manifest is both an index and a manifest");
    let other = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","config":{config},"layers":[]}}"#);
    assert!(refused(&other, OCI_MANIFEST).contains("is described as"));
    assert!(refused(&other, "").contains("which is not supported"));
    let index = r#"{"schemaVersion":2,"manifests":[]}"#;
    assert!(refused(index, OCI_MANIFEST).contains("which is not supported"));
    assert!(refused(r#"{"schemaVersion":2}"#, OCI_INDEX).contains("neither"));
    assert!(refused(r#"{"schemaVersion":1,"fsLayers":[]}"#, "").contains("schema 1"));
    let twice = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"layers":[]}}"#);
    assert!(refused(&twice, OCI_MANIFEST).contains("duplicate key \"layers\""));
    let spelt = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"Manifests":[]}}"#);
    assert!(refused(&spelt, OCI_MANIFEST).contains("ambiguous spelling"));
}

#[test]
fn good_manifests_of_both_families() {
    for (manifest, config) in [(OCI_MANIFEST, OCI_CONFIG), (DOCKER_MANIFEST, DOCKER_CONFIG)] {
        let json = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{}],"annotations":{{"Layers":"x"}}}}"#,
            descriptor(config),
            descriptor("application/vnd.oci.image.layer.v1.tar+zstd")
        );
        let Document::Manifest(parsed) = Document::parse(json.as_bytes(), "m", manifest).unwrap() else {
            panic!("an index")
        };
        assert_eq!(parsed.media_type, manifest);
        assert_eq!(parsed.layers.len(), 1);
    }
}

#[test]
fn media_types_of_layers() {
    for (media_type, expect) in [
        ("application/vnd.oci.image.layer.v1.tar", Some(Compression::None)),
        ("application/vnd.oci.image.layer.v1.tar+gzip", Some(Compression::Gzip)),
        ("application/vnd.oci.image.layer.v1.tar+zstd", Some(Compression::Zstd)),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Some(Compression::Gzip)),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", Some(Compression::Gzip)),
        ("application/vnd.docker.image.rootfs.diff.tar", Some(Compression::None)),
        ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", None),
        ("application/vnd.oci.image.layer.v1.targzip", None),
        ("text/plain", None),
        ("", None),
    ] {
        assert_eq!(layer_compression(media_type, "layer 1").ok(), expect, "{media_type}");
    }
    let error = layer_compression("text/plain", "layer 1").unwrap_err();
    assert_eq!(error.to_string(), "layer 1 has media type \"text/plain\", which is not supported");
}

fn config(rootfs: &str, history: &str) -> Result<ConfigDocument> {
    let json = format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{rootfs},"history":{history}}}"#);
    ConfigDocument::parse(json.as_bytes(), "the config")
}

#[test]
fn configs() {
    let one = format!(r#"{{"type":"layers","diff_ids":["{}"]}}"#, digest(7));
    let parsed = config(&one, r#"[{"created_by":"a"},{"empty_layer":true}]"#).unwrap();
    assert_eq!(parsed.diff_ids, [digest(7)]);
    assert_eq!(parsed.platform().architecture, "amd64");
    assert!(config(&one, "null").is_ok());
    for (rootfs, history, why) in [
        (one.as_str(), "[{},{}]", "has 1 layers but its history names 2"),
        (r#"{"type":"layers","diff_ids":["sha256:../../x"]}"#, "[]", "bad diff id"),
        (r#"{"type":"base","diff_ids":[]}"#, "[]", "rootfs type"),
        ("null", "[]", "invalid"),
        (one.as_str(), "[null]", "invalid"),
    ] {
        let error = berth_types::report(&config(rootfs, history).unwrap_err());
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn chain_ids_of_three() {
    let chain = chain_ids(&[digest(0), digest(1), digest(2)]);
    assert_eq!(chain[0], digest(0));
    let second = sha2::Sha256::digest(format!("{} {}", digest(0), digest(1)));
    assert_eq!(chain[1], Digest::from_bytes(second.into()));
    assert_eq!(chain.len(), 3);
    assert!(chain_ids(&[]).is_empty());
}
