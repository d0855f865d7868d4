use std::sync::Arc;

use berth_metadata::Metadata;
use berth_types::{Classify as _, ErrorClass};

use super::*;
use crate::store::ImageStore;
use crate::tar_stream::{Entry, EntryKind, TarWriter};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An archive of one image for three architectures: `index.json` leads to an index, that to manifests.
struct Archive {
    tar: Vec<u8>,
    /// Of each architecture: manifest, config, layer.
    of: Vec<[Digest; 3]>,
}

fn archive(architectures: &[&str]) -> Archive {
    let mut blobs: Vec<Vec<u8>> = Vec::new();
    let mut of = Vec::new();
    let mut entries = Vec::new();
    for name in architectures {
        let layer = format!("layer of {name}").into_bytes();
        let config = format!(r#"{{"architecture":"{name}","os":"linux"}}"#).into_bytes();
        let described = |kind: &str, bytes: &[u8]| {
            format!(r#"{{"mediaType":"{kind}","digest":"{}","size":{}}}"#, berth_content::digest_of(bytes), bytes.len())
        };
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{},"layers":[{}]}}"#,
            described("application/vnd.oci.image.config.v1+json", &config),
            described("application/vnd.oci.image.layer.v1.tar", &layer)
        )
        .into_bytes();
        of.push([&manifest, &config, &layer].map(|bytes| berth_content::digest_of(bytes)));
        let entry = described(MANIFEST, &manifest);
        let platform = format!(r#","platform":{{"os":"linux","architecture":"{name}"}}}}"#);
        entries.push(format!("{}{platform}", entry.strip_suffix('}').unwrap()));
        blobs.extend([layer, config, manifest]);
    }
    let index = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, entries.join(","));
    let top = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{INDEX}","digest":"{}","size":{}}}]}}"#,
        berth_content::digest_of(index.as_bytes()),
        index.len()
    );
    blobs.push(index.into_bytes());
    let mut files: Vec<(String, Vec<u8>)> = blobs
        .into_iter()
        .map(|b| (format!("blobs/{}", berth_content::digest_of(&b).to_string().replace(':', "/")), b))
        .collect();
    files.push(("index.json".to_owned(), top.into_bytes()));
    files.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    let mut tar = Vec::new();
    let mut writer = TarWriter::new(&mut tar);
    for (name, bytes) in files {
        let size = bytes.len() as u64;
        let entry = Entry { kind: EntryKind::File, path: name.into_bytes(), mode: 0o644, size, ..Entry::default() };
        writer.start(&entry).unwrap();
        writer.data(&bytes).unwrap();
    }
    writer.finish().unwrap();
    Archive { tar, of }
}

fn filter(platforms: &[&str], keeps_metadata: bool, manifests_max: usize) -> ManifestFilter {
    ManifestFilter {
        platforms: platforms.iter().map(|text| text.parse().unwrap()).collect(),
        keeps_metadata,
        manifests_max,
    }
}

/// Imports under a lease, names what came, and ends the lease; which of each architecture's manifest, config and layer are left.
fn import(archive: &Archive, filter: &ManifestFilter) -> Result<Vec<[bool; 3]>> {
    let dir = tempfile::tempdir().unwrap();
    let metadata = Arc::new(Metadata::open(&dir.path().join("metadata.redb")).unwrap());
    let store = ImageStore::open(dir.path(), metadata).unwrap();
    let tenant = store.tenant("t").unwrap();
    tenant.create_lease("work", &Labels::new()).unwrap();
    let imported = tenant.import_archive(&mut archive.tar.as_slice(), "work").unwrap();
    let is_new = |digest: &Digest| imported.new_blobs.iter().any(|(new, _)| new == digest);
    let kept = tenant.keep_suiting(&imported.index, filter, &is_new)?;
    assert_eq!(kept, imported.images);
    tenant.create_image("x.org/app:1", kept[0].clone(), &Labels::new()).unwrap();
    tenant.delete_lease("work", true).unwrap();
    Ok(archive.of.iter().map(|parts| parts.map(|digest| tenant.blob(&digest).is_ok())).collect())
}

const ALL: [bool; 3] = [true; 3];
const METADATA: [bool; 3] = [true, true, false];
const NONE: [bool; 3] = [false; 3];

/// S-116: an import obeys `platforms`, `all_metadata` and `manifest_limit`.
#[test]
fn s116_imports_keep_what_was_asked_for() {
    let three = archive(&["amd64", "arm64", "riscv64"]);
    let kept = |platforms: &[&str], metadata, max| import(&three, &filter(platforms, metadata, max)).unwrap();
    assert_eq!(kept(&[], false, 0), [ALL, ALL, ALL]);
    assert_eq!(kept(&["linux/arm64"], false, 0), [NONE, ALL, NONE]);
    assert_eq!(kept(&["linux/amd64", "linux/riscv64"], false, 0), [ALL, NONE, ALL]);
    assert_eq!(kept(&["linux/arm64"], true, 0), [METADATA, ALL, METADATA]);
    assert_eq!(kept(&[], false, 2), [ALL, ALL, NONE]);
    // The one that is asked for first, not the one that comes first.
    assert_eq!(kept(&["linux/riscv64", "linux/amd64"], false, 1), [NONE, NONE, ALL]);
    let error = import(&three, &filter(&["linux/s390x"], false, 0)).unwrap_err();
    assert_eq!(error.class(), ErrorClass::NotFound);
    assert!(error.to_string().contains("linux/s390x"), "{error}");
}

/// What was here before a narrower import stays whole.
#[test]
fn an_earlier_import_stays_whole() {
    let dir = tempfile::tempdir().unwrap();
    let metadata = Arc::new(Metadata::open(&dir.path().join("metadata.redb")).unwrap());
    let store = ImageStore::open(dir.path(), metadata).unwrap();
    let tenant = store.tenant("t").unwrap();
    let two = archive(&["amd64", "arm64"]);
    for (lease, wanted) in [("first", filter(&[], false, 0)), ("second", filter(&["linux/amd64"], false, 0))] {
        tenant.create_lease(lease, &Labels::new()).unwrap();
        let imported = tenant.import_archive(&mut two.tar.as_slice(), lease).unwrap();
        let is_new = |digest: &Digest| imported.new_blobs.iter().any(|(new, _)| new == digest);
        let kept = tenant.keep_suiting(&imported.index, &wanted, &is_new).unwrap();
        if lease == "first" {
            tenant.create_image("x.org/app:1", kept[0].clone(), &Labels::new()).unwrap();
        }
        tenant.delete_lease(lease, true).unwrap();
    }
    assert!(two.of.iter().flatten().all(|digest| tenant.blob(digest).is_ok()));
}
