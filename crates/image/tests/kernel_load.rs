//! Loading archives of every form: what is in the store afterwards.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use berth_testkit::archive::{LayerFile, digest, gzip, layer_tar, outer};
use berth_types::{Classify as _, ErrorClass};
use serde_json::json;
use support::*;

/// S-006 (archive half), S-002, S-080, S-081: each layer of a docker-archive is a directory of its own with its own files.
#[test]
fn s080_docker_archive_layers_are_directories() {
    let fixture = Fixture::new();
    let tars = [one_file("one", "1"), one_file("two", "2"), one_file("three", "3")];
    let names = fixture.load(&Docker::new("app:v1", &tars).archive()).unwrap();
    assert_eq!(printed(&names), ["app:v1"]);
    let image = fixture.store.get("app:v1").unwrap();
    assert_eq!(image.id.to_string(), digest(&bytes(&config(&tars))));
    assert_eq!(image.config_json, config(&tars));
    assert_eq!(image.size_bytes, 3);
    assert!(image.last_tagged.is_some());
    for (layer, (tar, name)) in image.layers.iter().zip(tars.iter().zip(["one", "two", "three"])) {
        assert_eq!(layer.diff_id.to_string(), digest(tar));
        assert_eq!(layer.blob, layer.diff_id, "kept as it came");
        assert_eq!(layer.size_bytes, 1);
        let files: Vec<_> = tree(&layer.directory).into_iter().map(|(path, _)| path).collect();
        assert_eq!(files, [std::path::Path::new(name)]);
        let blob = fixture.root().join("content/blobs/sha256").join(layer.blob.hex());
        assert_eq!(std::fs::read(blob).unwrap(), *tar);
    }
    assert_eq!(fixture.holdings().len(), 3 + 3 + 2, "three layers, three blobs, config and manifest");
    let fixture = fixture.reopened();
    assert_eq!(fixture.store.list().unwrap().len(), 1);
    assert_eq!(fixture.holdings().len(), 8);
}

/// An image without a name has its time, too: it is not collected before everything else.
#[test]
fn an_image_without_a_name_has_its_time() {
    let fixture = Fixture::new();
    let tars = [one_file("one", "1")];
    let manifest = bytes(&json!([{ "Config": "c", "RepoTags": null, "Layers": ["l"] }]));
    let entries = [
        ("c".to_owned(), bytes(&config(&tars))),
        ("l".to_owned(), tars[0].clone()),
        ("manifest.json".to_owned(), manifest),
    ];
    fixture.load(&outer(&entries)).unwrap();
    let image = fixture.store.list().unwrap().remove(0);
    assert_eq!(image.last_tagged, None);
    let first = image.wanted.unwrap();
    fixture.load(&outer(&entries)).unwrap();
    assert!(fixture.store.list().unwrap()[0].wanted.unwrap() > first, "loaded again, it is wanted again");
}

#[test]
fn names_and_ids_find_an_image() {
    let fixture = Fixture::new();
    fixture.load(&Docker::new("app:v1", &[one_file("a", "1")]).archive()).unwrap();
    let image = fixture.store.get("app:v1").unwrap();
    let hex = image.id.hex();
    for name in [
        "docker.io/library/app:v1",
        &hex,
        &hex[..12],
        &hex[..3],
        &format!("sha256:{hex}"),
        &format!("sha256:{}", &hex[..7]),
    ] {
        assert_eq!(fixture.store.get(name).unwrap().id, image.id, "{name}");
    }
    let by_digest = format!("app@{}", image.manifest);
    assert_eq!(fixture.store.get(&by_digest).unwrap().id, image.id);
    for name in ["app", "app:v2", "other", "sha256:", "", "UPPER", &"0".repeat(64), "zz"] {
        let error = fixture.store.get(name).unwrap_err();
        assert_eq!(error.class(), ErrorClass::NotFound, "{name}");
        assert_eq!(error.to_string(), format!("No such image: {name}"));
    }
}

#[test]
fn an_ambiguous_prefix_says_so() {
    let fixture = Fixture::new();
    // Seventeen ids have sixteen first digits between them.
    for i in 0..17 {
        fixture.load(&Docker::new(&format!("app:{i}"), &[one_file("a", &i.to_string())]).archive()).unwrap();
    }
    let mut firsts: Vec<String> = fixture.store.list().unwrap().iter().map(|i| i.id.hex()[..1].to_owned()).collect();
    firsts.sort();
    let twice = firsts.windows(2).find(|w| w[0] == w[1]).unwrap()[0].clone();
    let error = fixture.store.get(&twice).unwrap_err();
    assert_eq!(error.class(), ErrorClass::InvalidArgument);
    assert!(error.to_string().starts_with(&format!("image id {twice:?} is ambiguous: ")), "{error}");
}

/// S-082: a second image with the same base stores only the rest, and says which layers it had.
#[test]
fn s082_common_base_is_stored_once() {
    let fixture = Fixture::new();
    let (base, one, two) = (one_file("base", &"b".repeat(9000)), one_file("one", "1"), one_file("two", "2"));
    fixture.load(&Docker::new("one", &[base.clone(), one]).archive()).unwrap_err();
    let (_, told) = fixture.load_told(&Docker::new("one:latest", &[base.clone(), one_file("one", "1")]).archive());
    assert_eq!(told.iter().filter(|(_, what)| what == "Loading layer").count(), 2);
    let before = fixture.holdings();
    let (_, told) = fixture.load_told(&Docker::new("two:latest", &[base.clone(), two.clone()]).archive());
    let short = digest(&base)[7..19].to_owned();
    assert!(told.contains(&(short, "Layer already exists".to_owned())), "{told:?}");
    assert_eq!(fixture.holdings().difference(&before).count(), 1 + 1 + 2, "one layer, its blob, config and manifest");
    let (one, two) = (fixture.store.get("one").unwrap(), fixture.store.get("two").unwrap());
    assert_eq!(one.layers[0].directory, two.layers[0].directory);
    assert_eq!(one.layers[0].blob, two.layers[0].blob);
    // The same base gzipped, from an OCI archive: verified, its own blob kept for its manifest, the directory shared.
    let before = fixture.layer_names();
    fixture.load(&Oci::named("three:latest", &[base, one_file("three", "3")]).archive()).unwrap();
    assert_eq!(fixture.layer_names().difference(&before).count(), 1);
    // The whole image again: nothing new.
    let before = fixture.holdings();
    let (names, told) = fixture.load_told(
        &Oci::named("four:latest", &[one_file("base", &"b".repeat(9000)), one_file("three", "3")]).archive(),
    );
    assert_eq!(printed(&names), ["four:latest"]);
    assert!(told.iter().all(|(_, what)| what == "Layer already exists"), "{told:?}");
    assert_eq!(fixture.holdings(), before);
}

/// The same layer on two bases is one blob and two directories (chain ids differ).
#[test]
fn a_layer_twice_in_one_image() {
    let fixture = Fixture::new();
    let layer = one_file("a", "1");
    fixture.load(&Docker::new("twice:latest", &[layer.clone(), layer.clone()]).archive()).unwrap();
    let image = fixture.store.get("twice").unwrap();
    assert_eq!(image.layers[0].blob, image.layers[1].blob);
    assert_ne!(image.layers[0].directory, image.layers[1].directory);
    assert_eq!(tree(&image.layers[1].directory).len(), 1);
}

/// A moved tag leaves the old image under its id.
#[test]
fn a_moved_tag_leaves_the_old_image_its_id() {
    let fixture = Fixture::new();
    fixture.load(&Docker::new("app:latest", &[one_file("a", "old")]).archive()).unwrap();
    let old = fixture.store.get("app").unwrap().id;
    fixture.load(&Docker::new("app:latest", &[one_file("a", "new")]).archive()).unwrap();
    let new = fixture.store.get("app").unwrap();
    assert_ne!(new.id, old);
    let old = fixture.store.get(&old.to_string()).unwrap();
    assert_eq!(old.references, []);
    assert_eq!(tree(&old.layers[0].directory)[0].1, "old");
}

#[test]
fn oci_archives_plain_gzip_and_zstd() {
    for (pack, suffix) in [(plain as fn(&[u8]) -> Vec<u8>, ""), (gzip, "+gzip"), (zstd, "+zstd")] {
        let fixture = Fixture::new();
        let tars = [layer_tar(&[LayerFile::text("a", &"x".repeat(700_000))]), one_file("b", "2")];
        let mut oci = Oci::new();
        let image = oci.image(&tars, &config(&tars), pack, suffix);
        oci.index.push(name(image.clone(), "app:v1"));
        let names = fixture.load(&oci.archive()).unwrap();
        assert_eq!(printed(&names), ["app:v1"], "{suffix}");
        let image = (image["digest"].as_str().unwrap().to_owned(), fixture.store.get("app:v1").unwrap());
        assert_eq!(image.1.manifest.to_string(), image.0, "the manifest is kept as it came");
        assert_eq!(image.1.size_bytes, 700_001);
        assert_eq!(tree(&image.1.layers[0].directory)[0].1.len(), 700_000);
        assert_eq!(image.1.layers[0].blob.to_string(), digest(&pack(&tars[0])));
    }
}

#[test]
fn the_whole_archive_may_be_compressed() {
    let archive = Docker::new("app:v1", &[one_file("a", "1")]).archive();
    for packed in [gzip(&archive), zstd(&archive)] {
        let fixture = Fixture::new();
        fixture.load(&packed).unwrap();
        assert_eq!(fixture.store.get("app:v1").unwrap().size_bytes, 1);
    }
}

#[test]
fn several_images_and_untagged_ones() {
    let fixture = Fixture::new();
    let (one, two) =
        (Docker::new("one:latest", &[one_file("a", "1")]), Docker::new("two:latest", &[one_file("a", "2")]));
    let mut manifest = one.manifest.as_array().unwrap().clone();
    manifest.extend(two.manifest.as_array().unwrap().clone());
    manifest[0]["RepoTags"] = json!(["one:latest", "registry.example:5000/me/one:x"]);
    manifest[1]["RepoTags"] = json!(null);
    let mut entries = one.entries;
    entries.extend(two.entries);
    let names = fixture.load(&Docker { manifest: json!(manifest), entries }.archive()).unwrap();
    let untagged = fixture.store.list().unwrap().into_iter().find(|i| i.references.is_empty()).unwrap();
    assert_eq!(printed(&names), ["one:latest", "registry.example:5000/me/one:x", &untagged.id.to_string()]);
    assert_eq!(untagged.last_tagged, None);
}

/// Older writers store equal layers once and link to them, and add files nobody needs.
#[test]
fn old_docker_archives_with_linked_layers() {
    let fixture = Fixture::new();
    let layer = one_file("a", "1");
    let config = bytes(&config(&[layer.clone(), layer.clone()]));
    let config_name = format!("{}.json", hex(&config));
    let manifest =
        json!([{ "Config": config_name, "RepoTags": ["old:latest"], "Layers": ["aa/layer.tar", "bb/layer.tar"] }]);
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |kind: tar::EntryType, name: &str, body: &[u8], target: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(body.len() as u64);
        if !target.is_empty() {
            header.set_link_name(target).unwrap();
        }
        builder.append_data(&mut header, name, body).unwrap();
    };
    add(tar::EntryType::Directory, "aa/", b"", "");
    add(tar::EntryType::Regular, "aa/VERSION", b"1.0", "");
    add(tar::EntryType::Regular, "aa/json", b"{}", "");
    add(tar::EntryType::Regular, "aa/layer.tar", &layer, "");
    add(tar::EntryType::Symlink, "bb/layer.tar", b"", "../aa/layer.tar");
    add(tar::EntryType::Regular, &config_name, &config, "");
    add(tar::EntryType::Regular, "manifest.json", &bytes(&manifest), "");
    add(tar::EntryType::Regular, "repositories", b"{}", "");
    let names = fixture.load(&builder.into_inner().unwrap()).unwrap();
    assert_eq!(printed(&names), ["old:latest"]);
    assert_eq!(fixture.store.get("old").unwrap().layers.len(), 2);
}

/// Of several platforms the host's is taken, whether they stand in the index itself or in one below it.
#[test]
fn the_platform_of_this_host_is_taken() {
    let foreign = if architecture() == "amd64" { "arm64" } else { "amd64" };
    for is_nested in [false, true] {
        let fixture = Fixture::new();
        let mut oci = Oci::new();
        let mut both = Vec::new();
        for arch in [foreign, architecture()] {
            let tars = [one_file("arch", arch)];
            let mut config = config(&tars);
            config["architecture"] = json!(arch);
            both.push(platform(oci.image(&tars, &config, gzip, "+gzip"), arch));
        }
        let attestation = json!({ "mediaType": MANIFEST, "digest": digest(b"absent"), "size": 6,
            "annotations": { "vnd.docker.reference.type": "attestation-manifest" } });
        both.push(platform(attestation, "unknown"));
        // A platform the archive does not carry.
        if is_nested {
            both.push(platform(json!({ "mediaType": MANIFEST, "digest": digest(b"gone"), "size": 4 }), "s390x"));
            let inner = bytes(&json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": both }));
            both = vec![oci.blob(&inner, INDEX)];
        }
        oci.index =
            both.into_iter().map(|d| if d["annotations"].is_null() { name(d, "multi:latest") } else { d }).collect();
        assert_eq!(printed(&fixture.load(&oci.archive()).unwrap()), ["multi:latest"]);
        let image = fixture.store.get("multi").unwrap();
        assert_eq!(tree(&image.layers[0].directory)[0].1, architecture());
        assert_eq!(fixture.store.list().unwrap().len(), 1);
        assert_eq!(fixture.layer_names().len(), 1);
    }
}

#[test]
fn a_single_image_of_another_platform_is_loaded_two_are_refused() {
    let mut oci = Oci::new();
    let mut descriptors = Vec::new();
    for arch in ["s390x", "riscv64"] {
        let tars = [one_file("arch", arch)];
        let mut config = config(&tars);
        config["architecture"] = json!(arch);
        descriptors.push(platform(oci.image(&tars, &config, gzip, "+gzip"), arch));
    }
    let one = Oci { entries: oci.entries.clone(), index: descriptors[..1].to_vec() };
    let fixture = Fixture::new();
    assert_eq!(fixture.load(&one.archive()).unwrap().len(), 1);
    let fixture = Fixture::new();
    let error = fixture.load(&Oci { entries: oci.entries, index: descriptors }.archive()).unwrap_err();
    let text = error.to_string();
    assert!(text.ends_with("it has linux/s390x, linux/riscv64"), "{text}");
}

/// Docker's newer archives are both forms at once; their names are put together.
#[test]
fn both_forms_in_one_archive() {
    let fixture = Fixture::new();
    let tars = [one_file("a", "1")];
    let mut oci = Oci::new();
    let image = oci.image(&tars, &config(&tars), plain, "");
    oci.index.push(name(image, "one:latest"));
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", hex(bytes));
    let manifest = json!([{ "Config": blob(&bytes(&config(&tars))), "RepoTags": ["one:latest", "two:latest"], "Layers": [blob(&tars[0])] }]);
    oci.entries.push(("manifest.json".to_owned(), bytes(&manifest)));
    assert_eq!(printed(&fixture.load(&oci.archive()).unwrap()), ["one:latest", "two:latest"]);
    assert_eq!(fixture.store.list().unwrap().len(), 1);
}

#[test]
fn an_image_without_layers() {
    let fixture = Fixture::new();
    fixture.load(&Docker::new("empty:latest", &[]).archive()).unwrap();
    let image = fixture.store.get("empty").unwrap();
    assert_eq!((image.layers.len(), image.size_bytes), (0, 0));
}

/// Many at once, the same and different ones: each load ends as if it were alone.
#[test]
fn loads_at_the_same_time() {
    let fixture = Fixture::new();
    let base = one_file("base", &"b".repeat(100_000));
    std::thread::scope(|scope| {
        for i in 0..8 {
            let (fixture, base) = (&fixture, base.clone());
            scope.spawn(move || {
                let tars = [base, one_file("own", &(i / 2).to_string())];
                let archive = if i % 2 == 0 {
                    Docker::new(&format!("app:{i}"), &tars).archive()
                } else {
                    Oci::named(&format!("app:{i}"), &tars).archive()
                };
                fixture.load(&archive).unwrap();
                if i < 4 {
                    fixture.store.remove(&format!("app:{i}"), false, &unused).unwrap();
                }
            });
        }
    });
    let images = fixture.store.list().unwrap();
    assert_eq!(images.len(), 2);
    assert_eq!(images.iter().map(|i| i.references.len()).sum::<usize>(), 4);
    assert_eq!(fixture.layer_names().len(), 3);
    for image in images {
        assert_eq!(tree(&image.layers[0].directory)[0].1.len(), 100_000);
        assert_eq!(tree(&image.layers[1].directory).len(), 1);
        for layer in image.layers {
            assert!(fixture.root().join("content/blobs/sha256").join(layer.blob.hex()).exists());
        }
    }
    // Removing the rest leaves an empty store.
    for i in 4..8 {
        fixture.store.remove(&format!("app:{i}"), false, &unused).unwrap();
    }
    assert!(fixture.holdings().is_empty(), "{:?}", fixture.holdings());
}

/// A layer directory that is gone (a power failure before it was flushed) is made again from its blob when it is needed.
#[test]
fn a_lost_layer_is_unpacked_again() {
    let fixture = Fixture::new();
    let tars = [one_file("a", "1"), one_file("b", "2")];
    fixture.load(&Oci::named("app:latest", &tars).archive()).unwrap();
    let image = fixture.store.get("app").unwrap();
    let lose = |layer: &berth_image::Layer, i: usize| {
        let home = layer.directory.parent().unwrap();
        std::fs::rename(home, fixture.root().join(format!("lost-{}-{i}", layer.chain_id.short()))).unwrap();
    };
    image.layers.iter().for_each(|layer| lose(layer, 1));
    let rootfs = fixture.store.prepare("c1", &image, true).unwrap();
    let found: Vec<_> = rootfs.lowers.iter().flat_map(|lower| tree(lower)).map(|(_, text)| text).collect();
    assert_eq!(found, ["2", "1"], "top to bottom");
    fixture.store.discard("c1").unwrap();
    assert!(fixture.store.prepared().unwrap().is_empty());
    // But not from a blob that was damaged too.
    for layer in &image.layers {
        lose(layer, 2);
        let blob = fixture.root().join("content/blobs/sha256").join(layer.blob.hex());
        std::fs::remove_file(&blob).unwrap();
        std::fs::write(&blob, "rubbish").unwrap();
    }
    let error = fixture.store.prepare("c2", &image, true).unwrap_err();
    assert_eq!(error.class(), ErrorClass::DataLoss);
    assert!(fixture.store.prepared().unwrap().is_empty());
}

/// What a crash left half done is gone after the next start; what is whole stays.
#[test]
fn opening_sweeps_what_has_no_record() {
    let fixture = Fixture::new();
    fixture.load(&Docker::new("app:latest", &[one_file("a", "1")]).archive()).unwrap();
    let before = fixture.holdings();
    let orphan = fixture.root().join("content/blobs/sha256").join("a".repeat(64));
    std::fs::write(orphan, "no record").unwrap();
    std::fs::write(fixture.root().join("content/ingest/99"), "half").unwrap();
    let image = fixture.store.get("app").unwrap();
    let layers = image.layers[0].directory.parent().unwrap().parent().unwrap().to_owned();
    std::fs::create_dir_all(layers.join("b".repeat(64)).join("fs")).unwrap();
    let fixture = fixture.reopened();
    assert_eq!(fixture.holdings(), before);
    assert_eq!(fixture.store.get("app").unwrap().id, image.id);
}

/// Tars from elsewhere may leave the end marker out.
#[test]
fn an_archive_without_an_end_marker() {
    let archive = Docker::new("app:latest", &[one_file("a", "1")]).archive();
    let end = archive.len() - 1024;
    assert!(archive[end..].iter().all(|b| *b == 0));
    Fixture::new().load(&archive[..end]).unwrap();
}
