//! Images made of trees: import and commit, and the history they write.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use berth_image::CommitOptions;
use berth_testkit::archive::{LayerFile, digest, gzip, layer_tar};
use berth_types::{Classify as _, ErrorClass};
use serde_json::json;
use support::*;

fn silent(_: &str, _: &str, _: Option<u64>, _: Option<u64>) {}

#[test]
fn import_makes_one_layer_for_this_platform() {
    let tar = layer_tar(&[LayerFile::directory("bin"), LayerFile::text("bin/sh", "#!")]);
    for packed in [tar.clone(), gzip(&tar), zstd(&tar)] {
        let fixture = Fixture::new();
        let options = CommitOptions {
            reference: Some("flat".parse().unwrap()),
            message: "made of a tar".to_owned(),
            changes: vec!["CMD [\"/bin/sh\"]".to_owned(), "ENV A=1".to_owned()],
            ..CommitOptions::default()
        };
        let id = fixture.store.import(&mut &*packed, &options, &silent).unwrap();
        let image = fixture.store.get("flat:latest").unwrap();
        assert_eq!(image.id, id);
        assert_eq!(image.diff_ids[0].to_string(), digest(&tar));
        assert_eq!(image.config_json["config"], json!({ "Cmd": ["/bin/sh"], "Env": ["A=1"] }));
        assert_eq!(image.config_json["architecture"], architecture());
        let history = fixture.store.history("flat").unwrap();
        assert_eq!((history.len(), history[0].comment.as_str(), history[0].size_bytes), (1, "made of a tar", 2));
        assert!(history[0].created.is_some());
    }
}

#[test]
fn a_bad_import_leaves_nothing() {
    let fixture = Fixture::new();
    let good = one_file("a", "1");
    let change = |text: &str| CommitOptions { changes: vec![text.to_owned()], ..CommitOptions::default() };
    let error = fixture.store.import(&mut &*good, &change("RUN x"), &silent).unwrap_err();
    assert!(error.to_string().starts_with("cannot apply change \"RUN x\": RUN cannot be used"), "{error}");
    for bad in [b"not a tar at all".to_vec(), good[..600].to_vec(), gzip(&good)[..20].to_vec()] {
        let error = fixture.store.import(&mut &*bad, &CommitOptions::default(), &silent).unwrap_err();
        assert_eq!(error.class(), ErrorClass::InvalidArgument, "{}", berth_types::report(&error));
    }
    assert!(fixture.holdings().is_empty(), "{:?}", fixture.holdings());
}

/// S-084: commit makes the writable layer the newest layer of an image; the layers below keep their digests.
#[test]
fn s084_commit_adds_one_layer() {
    let fixture = Fixture::new();
    fixture.load(&Docker::new("base:latest", &[one_file("a", "1"), one_file("b", "2")]).archive()).unwrap();
    let base = fixture.store.get("base").unwrap();
    let rootfs = fixture.store.prepare("c1", &base, false).unwrap();
    let upper = rootfs.upper.clone().unwrap();
    std::fs::write(upper.join("new"), "written in the container").unwrap();
    let options = CommitOptions {
        reference: Some("img2".parse().unwrap()),
        author: "somebody".to_owned(),
        message: "a file".to_owned(),
        changes: vec!["LABEL made=yes".to_owned()],
        config: json!({ "Cmd": ["/a"], "Env": ["X=1"] }),
        created_by: "sh".to_owned(),
        container_id: "c1".to_owned(),
    };
    let id = fixture.store.commit(&base, &rootfs, &options).unwrap();
    let image = fixture.store.get("img2").unwrap();
    assert_eq!(image.id, id);
    assert_eq!(image.diff_ids.len(), 3);
    assert_eq!(image.diff_ids[..2], base.diff_ids[..]);
    assert_eq!(image.layers[0].directory, base.layers[0].directory);
    let top = tree(&image.layers[2].directory);
    assert_eq!(top, [("new".into(), "written in the container".to_owned())]);
    assert_eq!(image.config_json["config"], json!({ "Cmd": ["/a"], "Env": ["X=1"], "Labels": { "made": "yes" } }));
    assert_eq!(image.config_json["author"], "somebody");
    let history = fixture.store.history("img2").unwrap();
    assert_eq!(history.len(), 3);
    assert_eq!(
        (history[0].created_by.as_str(), history[0].comment.as_str(), history[0].size_bytes),
        ("sh", "a file", 24)
    );
    // The new image stands on its own.
    fixture.store.discard("c1").unwrap();
    fixture.store.remove("base", false, &unused).unwrap();
    let other = Fixture::new();
    other.load(&fixture.save(&["img2"])).unwrap();
    assert_eq!(other.store.get("img2").unwrap().id, id);
}

/// As with Docker, nothing written means no new layer.
#[test]
fn commit_of_nothing_adds_only_history() {
    let fixture = Fixture::new();
    fixture.load(&Docker::new("base:latest", &[one_file("a", "1")]).archive()).unwrap();
    let base = fixture.store.get("base").unwrap();
    let rootfs = fixture.store.prepare("c1", &base, true).unwrap();
    let id = fixture.store.commit(&base, &rootfs, &CommitOptions::default()).unwrap();
    let image = fixture.store.get(&id.to_string()).unwrap();
    assert_eq!(image.diff_ids, base.diff_ids);
    assert!(fixture.store.history(&id.to_string()).unwrap()[0].is_empty_layer);
    let error = fixture.store.commit(
        &base,
        &rootfs,
        &CommitOptions { changes: vec!["COPY a b".to_owned()], ..CommitOptions::default() },
    );
    assert_eq!(error.unwrap_err().class(), ErrorClass::InvalidArgument);
    fixture.store.discard("c1").unwrap();
}

/// S-083: two containers of one image share the lowers and have empty uppers of their own.
#[test]
fn s083_writable_layers() {
    let fixture = Fixture::new();
    fixture.load(&Docker::new("base:latest", &[one_file("a", "1"), one_file("b", "2")]).archive()).unwrap();
    let base = fixture.store.get("base").unwrap();
    let (one, two) =
        (fixture.store.prepare("c1", &base, true).unwrap(), fixture.store.prepare("c2", &base, true).unwrap());
    assert_eq!(one.lowers, two.lowers);
    assert_eq!(one.lowers, [base.layers[1].directory.clone(), base.layers[0].directory.clone()], "top to bottom");
    assert_ne!(one.upper, two.upper);
    assert!(tree(&one.upper.clone().unwrap()).is_empty());
    assert_eq!(fixture.store.rootfs("c1", &base).unwrap(), one);
    assert_eq!(fixture.store.prepared().unwrap(), ["c1", "c2"]);
    fixture.store.discard("c1").unwrap();
    fixture.store.discard("c2").unwrap();
}

#[test]
fn history_of_a_loaded_image_newest_first() {
    let fixture = Fixture::new();
    let tars = [one_file("a", "12"), one_file("b", "345")];
    let mut config = config(&tars);
    config["history"] = json!([
        { "created": "2026-01-01T00:00:00Z", "created_by": "COPY a" },
        { "created_by": "ENV x", "empty_layer": true, "comment": "c" },
        { "created_by": "COPY b" },
    ]);
    fixture.load(&Docker::with_config("app:latest", &tars, &config).archive()).unwrap();
    let lines: Vec<_> = fixture
        .store
        .history("app")
        .unwrap()
        .into_iter()
        .map(|h| (h.created_by, h.size_bytes, h.is_empty_layer))
        .collect();
    assert_eq!(
        lines,
        [("COPY b".to_owned(), 3, false), ("ENV x".to_owned(), 0, true), ("COPY a".to_owned(), 2, false)]
    );
    config["history"] = json!(null);
    fixture.load(&Docker::with_config("app:latest", &tars, &config).archive()).unwrap();
    let lines: Vec<_> =
        fixture.store.history("app").unwrap().into_iter().map(|h| (h.created_by, h.size_bytes)).collect();
    assert_eq!(lines, [("<missing>".to_owned(), 3), ("<missing>".to_owned(), 2)]);
}
