//! Archives that are not what they must be: each is refused for the right reason, and the store holds exactly what it held before.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use berth_image::Expansion;
use berth_testkit::archive::{digest, gzip, outer};
use berth_types::{Classify as _, ErrorClass, report};
use serde_json::{Value, json};
use support::*;

/// A store with an image in it, so that "nothing changed" means more than "empty".
fn fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture.load(&Docker::new("good:latest", &[one_file("a", "good")]).archive()).unwrap();
    fixture
}

#[track_caller]
fn refused_in(fixture: &Fixture, archive: &[u8], why: &str) {
    let before = fixture.holdings();
    let tags = fixture.store.list().unwrap().len();
    let error = fixture.load(archive).expect_err(why);
    let text = report(&error);
    assert_eq!(error.class(), ErrorClass::InvalidArgument, "{text}");
    assert!(text.contains(why), "expected {why:?} in {text:?}");
    assert_eq!(fixture.holdings(), before, "{why}");
    assert_eq!(fixture.store.list().unwrap().len(), tags, "{why}");
    let good = fixture.store.get("good").unwrap();
    assert_eq!(tree(&good.layers[0].directory)[0].1, "good");
}

#[track_caller]
fn refused(archive: &[u8], why: &str) {
    refused_in(&fixture(), archive, why);
}

fn docker() -> Docker {
    Docker::new("bad:latest", &[one_file("a", "1"), one_file("b", "2")])
}

/// Cut anywhere: refused, or (cut behind the last entry) whole.
#[test]
fn truncated_archives() {
    let fixture = fixture();
    for archive in
        [docker().archive(), gzip(&docker().archive()), Oci::named("bad:latest", &[one_file("a", "1")]).archive()]
    {
        let before = fixture.holdings();
        for cut in (0..archive.len()).step_by(997).chain([1, 511, 512, 513]).filter(|cut| *cut < archive.len()) {
            if fixture.load(&archive[..cut]).is_ok() {
                // Only where everything was there already.
                assert_eq!(
                    fixture.store.get("bad").unwrap().size_bytes,
                    fixture.store.get("bad").unwrap().layers.len() as u64
                );
                fixture.store.remove("bad", false, &unused).unwrap();
            }
            assert_eq!(fixture.holdings(), before, "cut at {cut}");
        }
    }
}

#[test]
fn no_image_archive() {
    refused(b"", "neither a manifest.json nor an index.json");
    refused(b"hello", "ends in the middle of entry 1");
    refused(&[b'x'; 2048], "invalid at entry 1: wrong header checksum");
    refused(&gzip(b"hello"), "ends in the middle of entry 1");
    refused(&outer(&[("etc/passwd".to_owned(), b"x".to_vec())]), "neither a manifest.json nor an index.json");
    refused(b"BZh91AY&SY", "compressed with bzip2");
}

#[test]
fn documents_that_are_wrong() {
    for (manifest, why) in [
        (json!([]), "names 0 images"),
        (json!({}), "invalid manifest.json"),
        (json!([{ "RepoTags": ["bad:latest"] }]), "missing field `Config`"),
        (json!([{ "Config": "absent.json", "Layers": [] }]), "lacks \"absent.json\""),
    ] {
        refused(&Docker { manifest, entries: Vec::new() }.archive(), why);
    }
    let mut twice = docker();
    let text = twice.manifest.to_string().replacen("\"Config\"", "\"Layers\":[],\"Config\"", 1);
    twice.entries.push(("manifest.json".to_owned(), text.into_bytes()));
    refused(&outer(&twice.entries), "duplicate key \"Layers\"");
    let mut two = docker();
    two.entries.push(("manifest.json".to_owned(), bytes(&two.manifest)));
    refused(&two.archive(), "two entries named \"manifest.json\"");
    let mut deep = docker();
    deep.entries.push(("manifest.json".to_owned(), "[".repeat(200_000).into_bytes()));
    refused(&outer(&deep.entries), "recursion limit");
}

/// CVE-2023-25153, CVE-2017-11468: documents are read within limits.
#[test]
fn cve_2023_25153_huge_documents() {
    let mut huge = docker();
    huge.entries.push(("manifest.json".to_owned(), vec![b' '; (4 << 20) + 1]));
    refused(&outer(&huge.entries), "manifest.json of the archive is larger than the 4194304 bytes allowed");
    let config = vec![b' '; (8 << 20) + 1];
    let name = format!("{}.json", hex(&config));
    let manifest = json!([{ "Config": name, "RepoTags": null, "Layers": [] }]);
    refused(&Docker { manifest, entries: vec![(name, config)] }.archive(), "is larger than the 8388608 bytes allowed");
    let mut oci = Oci::new();
    oci.entries.push(("index.json".to_owned(), vec![b' '; (8 << 20) + 1]));
    refused(&outer(&oci.entries), "index.json of the archive is larger");
}

/// CVE-2014-9356, CVE-2014-6407: links and names in the outer archive lead nowhere.
#[test]
fn cve_2014_9356_links_and_names_in_the_archive() {
    let with_link = |name: &str, target: &str, kind: tar::EntryType| {
        let good = docker();
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_link_name_literal(target).unwrap();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, std::io::empty()).unwrap();
        let mut archive = builder.into_inner().unwrap();
        archive.truncate(512);
        archive.extend(good.archive());
        archive
    };
    use tar::EntryType::{Char, Link, Symlink};
    refused(&with_link("x", "/etc/passwd", Symlink), "link \"x\" leads out of the archive");
    refused(&with_link("x", "../../etc/passwd", Symlink), "leads out of the archive");
    refused(&with_link("x", "../etc/passwd", Link), "leads out of the archive");
    refused(&with_link("../x", "", tar::EntryType::Regular), "entry name \"../x\" leads out of the archive");
    refused(&with_link("/x", "", tar::EntryType::Regular), "leads out of the archive");
    refused(&with_link("x", "", Char), "has no place there");
    refused(&with_link("manifest.json", "other.json", Symlink), "two entries named \"manifest.json\"");
    // A manifest that is a link, even to a good one.
    let mut hidden = docker();
    hidden.entries.push(("other.json".to_owned(), bytes(&hidden.manifest)));
    let mut archive = with_link("manifest.json", "other.json", Symlink);
    archive.truncate(512);
    archive.extend(outer(&hidden.entries));
    refused(&archive, "\"manifest.json\" is a link");
    // Layers that are links to each other.
    let mut circle = docker();
    circle.manifest[0]["Layers"] = json!(["l1", "l2"]);
    let mut archive = with_link("l1", "l2", Symlink);
    archive.truncate(512);
    archive.extend(&with_link("l2", "l1", Symlink)[..512]);
    archive.extend(circle.archive());
    refused(&archive, "a link to a link without end");
}

/// CVE-2014-9358: an id is what the bytes are, not what a name says; and no name of the archive becomes a path.
#[test]
fn cve_2014_9358_ids_that_lie() {
    let mut renamed = docker();
    let false_name = format!("{}.json", "0".repeat(64));
    renamed.entries[0].0.clone_from(&false_name);
    renamed.manifest[0]["Config"] = json!(false_name);
    refused(&renamed.archive(), "has digest sha256:");
    for path in ["../../../etc/passwd", "/etc/passwd"] {
        let mut outside = docker();
        outside.manifest[0]["Config"] = json!(path);
        refused(&outside.archive(), "it lacks");
        let mut outside = docker();
        outside.manifest[0]["Layers"][0] = json!(path);
        refused(&outside.archive(), "it lacks");
    }
    let mut bad_tag = docker();
    bad_tag.manifest[0]["RepoTags"] = json!(["../../x:latest"]);
    refused(&bad_tag.archive(), "bad image name \"../../x:latest\"");
    bad_tag = docker();
    bad_tag.manifest[0]["RepoTags"] = json!(["notag"]);
    refused(&bad_tag.archive(), "a name with a tag is needed");
}

#[test]
fn digests_that_do_not_match() {
    // A blob whose name lies.
    let mut oci = Oci::named("bad:latest", &[one_file("a", "1")]);
    oci.entries[1].1[20] ^= 1;
    refused(&oci.archive(), "has digest sha256:");
    // A blob that is not there.
    let mut oci = Oci::named("bad:latest", &[one_file("a", "1")]);
    oci.entries.remove(1);
    refused(&oci.archive(), "it lacks layer 1 of image");
    // A size that lies.
    let mut oci = Oci::named("bad:latest", &[one_file("a", "1")]);
    oci.index[0]["size"] = json!(1);
    refused(&oci.archive(), "its descriptor says 1");
}

/// The content of a layer must be what the config says, compressed or not, wherever in the stack.
#[test]
fn wrong_diff_ids() {
    let tars = [one_file("a", "1"), one_file("b", "2")];
    let mut lying = config(&tars);
    lying["rootfs"]["diff_ids"][1] = json!(digest(b"something else"));
    refused(&Docker::with_config("bad:latest", &tars, &lying).archive(), "the content of layer sha256:");
    for (pack, suffix) in [(gzip as fn(&[u8]) -> Vec<u8>, "+gzip"), (zstd, "+zstd"), (plain, "")] {
        let mut oci = Oci::new();
        let image = oci.image(&tars, &lying, pack, suffix);
        oci.index.push(image);
        refused(&oci.archive(), "the content of layer sha256:");
    }
    // A layer whose directory is known from an honest image is not taken over by another blob that only claims to be it.
    let fixture = fixture();
    fixture.load(&Docker::new("honest:latest", &tars).archive()).unwrap();
    let mut oci = Oci::new();
    let other = [tars[0].clone(), one_file("b", "not 2")];
    let image = oci.image(
        &other,
        &{
            let mut c = config(&tars);
            c["author"] = json!("other");
            c
        },
        gzip,
        "+gzip",
    );
    oci.index.push(image);
    refused_in(&fixture, &oci.archive(), "the content of layer sha256:");
}

#[test]
fn configs_that_do_not_fit() {
    let tars = [one_file("a", "1"), one_file("b", "2")];
    let spoil = |change: fn(&mut Value)| {
        let mut config = config(&tars);
        change(&mut config);
        Docker::with_config("bad:latest", &tars, &config).archive()
    };
    refused(&spoil(|c| c["rootfs"]["diff_ids"] = json!([])), "its history names 2");
    refused(
        &spoil(|c| {
            c["rootfs"]["diff_ids"] = json!([]);
            c["history"] = json!([]);
        }),
        "has 2 layers but its config names 0",
    );
    refused(
        &spoil(|c| c["history"].as_array_mut().unwrap().push(json!({ "created_by": "x" }))),
        "has 2 layers but its history names 3",
    );
    refused(&spoil(|c| c["history"] = json!([null])), "invalid ");
    refused(&spoil(|c| c["rootfs"] = json!(null)), "invalid ");
    refused(&spoil(|c| c["rootfs"]["diff_ids"][0] = json!("sha256:../../x")), "bad diff id");
    refused(&spoil(|c| c["os"] = json!("windows")), "not for linux");
    refused(&spoil(|c| c["rootfs"]["diff_ids"] = json!(vec![digest(b""); 501])), "more than 500 layers");
}

/// CVE-2021-41190, and media types nobody promised to understand (CVE-2022-24778: those of encrypted layers).
#[test]
fn cve_2021_41190_ambiguous_and_unknown_documents() {
    let tars = [one_file("a", "1")];
    let with_manifest = |change: fn(&mut Value)| {
        let mut oci = Oci::new();
        let layer = oci.blob(&gzip(&tars[0]), &format!("{LAYER}+gzip"));
        let config = oci.blob(&bytes(&config(&tars)), CONFIG);
        let mut manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
        change(&mut manifest);
        let descriptor = oci.blob(&bytes(&manifest), MANIFEST);
        oci.index.push(descriptor);
        oci.archive()
    };
    Fixture::new().load(&with_manifest(|_| {})).unwrap();
    refused(&with_manifest(|m| m["manifests"] = json!([])), "is both an index and a manifest");
    refused(&with_manifest(|m| m["mediaType"] = json!(INDEX)), "but says it is");
    refused(&with_manifest(|m| m["schemaVersion"] = json!(1)), "schemaVersion 2");
    refused(&with_manifest(|m| m["Layers"] = json!([])), "ambiguous spelling of the key \"Layers\"");
    refused(
        &with_manifest(|m| m["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json")),
        "which is not supported",
    );
    for media_type in [
        "text/plain",
        "",
        "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
        "application/vnd.oci.image.layer.v1.squashfs",
    ] {
        let archive = {
            let mut oci = Oci::new();
            let layer = oci.blob(&gzip(&tars[0]), media_type);
            let config = oci.blob(&bytes(&config(&tars)), CONFIG);
            let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
            let descriptor = oci.blob(&bytes(&manifest), MANIFEST);
            oci.index.push(descriptor);
            oci.archive()
        };
        refused(&archive, &format!("has media type {media_type:?}, which is not supported"));
    }
    // The media type promises one compression, the bytes are another.
    let mut oci = Oci::new();
    let image = oci.image(&tars, &config(&tars), gzip, "");
    oci.index.push(image);
    refused(&oci.archive(), "but its bytes are Gzip");
}

/// Two readers of one archive must see the same image under the same name.
#[test]
fn two_forms_that_disagree() {
    let tars = [one_file("a", "1")];
    let mut oci = Oci::named("bad:latest", &tars);
    let docker = Docker::new("bad:latest", &[one_file("a", "evil")]);
    oci.entries.extend(docker.entries);
    oci.entries.push(("manifest.json".to_owned(), bytes(&docker.manifest)));
    refused(&oci.archive(), "which index.json does not have");
    let (one, two) = (Docker::new("bad:latest", &tars), Docker::new("bad:latest", &[one_file("a", "2")]));
    let mut manifest = one.manifest.as_array().unwrap().clone();
    manifest.extend(two.manifest.as_array().unwrap().clone());
    let mut entries = one.entries;
    entries.extend(two.entries);
    refused(&Docker { manifest: json!(manifest), entries }.archive(), "two of its images claim the name bad:latest");
}

#[test]
fn indexes_without_end() {
    let mut oci = Oci::named("bad:latest", &[one_file("a", "1")]);
    for _ in 0..6 {
        let inner = bytes(&json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": oci.index }));
        oci.index = vec![oci.blob(&inner, INDEX)];
    }
    refused(&oci.archive(), "nested deeper than 4");
    let mut oci = Oci::named("bad:latest", &[one_file("a", "1")]);
    oci.index = vec![oci.index[0].clone(); 5000];
    refused(&oci.archive(), "more than 4096 entries");
    let mut empty = Oci::new();
    empty.entries.push(("x".to_owned(), Vec::new()));
    refused(&empty.archive(), "it has none at all");
    let mut version = Oci::named("bad:latest", &[one_file("a", "1")]);
    version.entries[0].1 = br#"{"imageLayoutVersion":"9.0.0"}"#.to_vec();
    refused(&version.archive(), "its layout version is \"9.0.0\"");
}

/// Little that becomes much is stopped, in a layer and around the archive.
#[test]
fn bombs() {
    let mut fixture = fixture();
    fixture.store.set_expansion(Expansion { ratio_max: 20, bytes_free: 1 << 20 });
    let tars = [one_file("zeros", &"0".repeat(6 << 20))];
    for (pack, suffix) in [(gzip as fn(&[u8]) -> Vec<u8>, "+gzip"), (zstd, "+zstd")] {
        let mut oci = Oci::new();
        let image = oci.image(&tars, &config(&tars), pack, suffix);
        oci.index.push(image);
        refused_in(&fixture, &oci.archive(), "compressed bytes grow to more than");
        refused_in(&fixture, &pack(&Docker::new("bad:latest", &tars).archive()), "compressed bytes grow to more than");
    }
}

/// A layer that is damaged in the middle of its compression.
#[test]
fn damaged_compression() {
    for (pack, suffix) in [(gzip as fn(&[u8]) -> Vec<u8>, "+gzip"), (zstd, "+zstd")] {
        let tar = one_file(
            "a",
            &(0..200_000u32)
                .map(|i| char::from(b'a' + (i.wrapping_mul(2_654_435_761) >> 27) as u8 % 26))
                .collect::<String>(),
        );
        let mut packed = pack(&tar);
        let middle = packed.len() / 2;
        packed[middle] ^= 0xff;
        for packed in [packed.clone(), packed[..middle].to_vec(), [pack(&tar), b"rubbish".to_vec()].concat()] {
            let mut oci = Oci::new();
            let layer = oci.blob(&packed, &format!("{LAYER}{suffix}"));
            let config = oci.blob(&bytes(&config(std::slice::from_ref(&tar))), CONFIG);
            let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
            let descriptor = oci.blob(&bytes(&manifest), MANIFEST);
            oci.index.push(descriptor);
            refused(&oci.archive(), "layer sha256:");
        }
    }
}

/// One bad image spoils the whole archive: its good companions are not loaded either.
#[test]
fn all_or_nothing() {
    let (good, bad) = (Docker::new("fine:latest", &[one_file("a", "1")]), {
        let tars = [one_file("b", "2")];
        let mut lying = config(&tars);
        lying["rootfs"]["diff_ids"][0] = json!(digest(b""));
        Docker::with_config("bad:latest", &tars, &lying)
    });
    let mut manifest = good.manifest.as_array().unwrap().clone();
    manifest.extend(bad.manifest.as_array().unwrap().clone());
    let mut entries = good.entries;
    entries.extend(bad.entries);
    refused(&Docker { manifest: json!(manifest), entries }.archive(), "the content of layer");
}

/// A sender that goes away in the middle.
#[test]
fn a_source_that_fails() {
    struct Fails(Vec<u8>, usize);
    impl std::io::Read for Fails {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let n = buffer.len().min(self.0.len() - self.1);
            if n == 0 {
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
            buffer[..n].copy_from_slice(&self.0[self.1..self.1 + n]);
            self.1 += n;
            Ok(n)
        }
    }
    let fixture = fixture();
    let before = fixture.holdings();
    let archive = docker().archive();
    for at in [0, 3, 700, archive.len() / 2] {
        let error = fixture.store.load(&mut Fails(archive[..at].to_vec(), 0), &|_, _, _, _| {}).unwrap_err();
        let text = report(&error);
        assert!(text.ends_with("connection reset"), "{text}");
        assert_eq!(fixture.holdings(), before);
    }
}
