//! Saving, and what other tools make of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use std::process::Command;

use berth_testkit::archive::{LayerFile, layer_tar};
use berth_types::{Classify as _, ErrorClass};
use serde_json::{Value, json};
use support::*;

fn names_in(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().to_str().unwrap().to_owned()).collect()
}

fn document(archive: &[u8], name: &str) -> Value {
    let mut archive = tar::Archive::new(archive);
    let entry = archive.entries().unwrap().map(Result::unwrap).find(|e| e.path().unwrap() == Path::new(name)).unwrap();
    serde_json::from_reader(entry).unwrap()
}

/// What is loaded again is the same image in every byte, whatever form it came in.
#[test]
fn save_and_load_keeps_every_byte() {
    let tars = [one_file("a", "1"), one_file("b", "2")];
    for archive in [Docker::new("app:v1", &tars).archive(), Oci::named("app:v1", &tars).archive()] {
        let first = Fixture::new();
        first.load(&archive).unwrap();
        let saved = first.save(&["app:v1"]);
        let second = Fixture::new();
        assert_eq!(printed(&second.load(&saved).unwrap()), ["app:v1"]);
        assert_eq!(second.holdings(), first.holdings());
        let (a, b) = (first.store.get("app:v1").unwrap(), second.store.get("app:v1").unwrap());
        assert_eq!((a.id, a.manifest), (b.id, b.manifest));
        assert_eq!(second.save(&["app:v1"]), saved, "the same bytes, later and elsewhere");
    }
}

#[test]
fn several_images_share_their_layers_and_repositories_mean_all_tags() {
    let fixture = Fixture::new();
    let base = one_file("base", "b");
    fixture.load(&Docker::new("app:v1", &[base.clone(), one_file("a", "1")]).archive()).unwrap();
    fixture.load(&Docker::new("app:v2", &[base.clone(), one_file("a", "2")]).archive()).unwrap();
    fixture.load(&Docker::new("other:x", std::slice::from_ref(&base)).archive()).unwrap();
    let archive = fixture.save(&["app", "other:x", "app:v1"]);
    let names = names_in(&archive);
    let blobs = names.iter().filter(|n| n.starts_with("blobs/sha256/") && n.len() > 13).count();
    assert_eq!(blobs, 3 + 3 + 3, "three layers, three configs, three manifests");
    assert_eq!(names[names.len() - 3..], ["index.json", "manifest.json", "oci-layout"]);
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(names, sorted);
    let mut tags: Vec<Value> =
        document(&archive, "manifest.json").as_array().unwrap().iter().map(|i| i["RepoTags"].clone()).collect();
    tags.sort_by_key(Value::to_string);
    assert_eq!(tags, [json!(["app:v1"]), json!(["app:v2"]), json!(["other:x"])]);
    let index = document(&archive, "index.json");
    assert_eq!(index["manifests"].as_array().unwrap().len(), 3);
    // By id: without a name.
    let id = fixture.store.get("other:x").unwrap().id.to_string();
    let archive = fixture.save(&[&id]);
    assert_eq!(document(&archive, "manifest.json")[0]["RepoTags"], Value::Null);
    assert_eq!(document(&archive, "index.json")["manifests"][0].get("annotations"), None);
}

#[test]
fn what_is_not_there_is_told_before_anything_is_written() {
    let fixture = Fixture::new();
    fixture.load(&Docker::new("app:v1", &[one_file("a", "1")]).archive()).unwrap();
    let mut out = Vec::new();
    let error = fixture.store.save(&["app:v1".to_owned(), "none".to_owned()], &mut out, &|_, _, _, _| {}).unwrap_err();
    assert_eq!((error.class(), error.to_string()), (ErrorClass::NotFound, "No such image: none".to_owned()));
    assert!(out.is_empty());
    assert!(fixture.store.save(&[], &mut out, &|_, _, _, _| {}).is_err());
}

fn skopeo(words: &[&str]) -> String {
    let program = berth_testkit::peers::peer("usr/bin/skopeo");
    let libraries = berth_testkit::peers::peer("usr/lib/x86_64-linux-gnu");
    let out =
        Command::new(program).env("LD_LIBRARY_PATH", libraries).arg("--insecure-policy").args(words).output().unwrap();
    assert!(out.status.success(), "skopeo {words:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// S-006 (archive half): an independent tool reads what we write, in both forms, and we read what it writes.
#[test]
fn skopeo_reads_ours_and_we_read_its() {
    let fixture = Fixture::new();
    let tars = [layer_tar(&[LayerFile::directory("d"), LayerFile::text("d/a", "1")]), one_file("b", "2")];
    fixture.load(&Oci::named("app:v1", &tars).archive()).unwrap();
    let id = fixture.store.get("app:v1").unwrap().id;
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("ours.tar"), fixture.save(&["app:v1"])).unwrap();
    for form in ["docker-archive", "oci-archive"] {
        let source = format!("{form}:{}", at("ours.tar"));
        let told: Value = serde_json::from_str(&skopeo(&["inspect", &source])).unwrap();
        assert_eq!(told["Layers"].as_array().unwrap().len(), 2, "{form}");
        assert_eq!(told["Architecture"], architecture());
        for (target, name) in [("docker-archive", "again:v2"), ("oci-archive", "docker.io/library/again:v2")] {
            let file = at(&format!("{form}-{target}.tar"));
            skopeo(&["copy", &source, &format!("{target}:{file}:{name}")]);
            let second = Fixture::new();
            let names = second.load(&std::fs::read(&file).unwrap()).unwrap();
            assert_eq!(printed(&names), ["again:v2"], "{form} {target}");
            let image = second.store.get("again:v2").unwrap();
            assert_eq!(tree(&image.layers[0].directory)[0].1, "1");
            assert_eq!(image.diff_ids, fixture.store.get("app:v1").unwrap().diff_ids);
            if (form, target) == ("oci-archive", "oci-archive") {
                assert_eq!(image.id, id, "the config is the same bytes");
            }
        }
    }
}
