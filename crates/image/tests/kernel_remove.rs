//! Tags, removal by Docker's rules, pruning, and what is left on the disk.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use berth_image::{ImageError, ImageUse};
use berth_types::{Classify as _, Digest, ErrorClass};
use support::*;

fn fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture.load(&Docker::new("app:v1", &[one_file("base", "b"), one_file("a", "1")]).archive()).unwrap();
    fixture
}

fn running(_: &Digest) -> ImageUse {
    ImageUse::Running("0123456789abcdef".to_owned())
}

fn stopped(_: &Digest) -> ImageUse {
    ImageUse::Stopped("0123456789abcdef".to_owned())
}

fn familiar(removed: &berth_image::Removed) -> Vec<String> {
    removed.untagged.iter().map(berth_types::Reference::familiar).collect()
}

#[track_caller]
fn conflict(outcome: Result<berth_image::Removed, ImageError>, expect: &str) {
    let error = outcome.unwrap_err();
    assert_eq!(error.class(), ErrorClass::FailedPrecondition);
    assert_eq!(error.to_string(), expect);
}

#[test]
fn tags_come_and_go() {
    let fixture = fixture();
    let id = fixture.store.get("app:v1").unwrap().id;
    fixture.store.tag("app:v1", &"me/other".parse().unwrap()).unwrap();
    fixture.store.tag(&id.short(), &"app:v2".parse().unwrap()).unwrap();
    let mut names: Vec<String> =
        fixture.store.get("me/other:latest").unwrap().references.iter().map(|r| r.familiar()).collect();
    names.sort();
    assert_eq!(names, ["app:v1", "app:v2", "me/other:latest"]);
    let with_digest = format!("app@{id}").parse().unwrap();
    let error = fixture.store.tag("app:v1", &with_digest).unwrap_err();
    assert_eq!(error.to_string(), "invalid tag: refusing to create a tag with a digest reference");
    assert_eq!(fixture.store.tag("none", &"x".parse().unwrap()).unwrap_err().class(), ErrorClass::NotFound);
    let removed = fixture.store.remove("app:v2", false, &unused).unwrap();
    assert_eq!((familiar(&removed), removed.deleted.len(), removed.reclaimed_bytes), (vec!["app:v2".to_owned()], 0, 0));
    fixture.store.remove("me/other", false, &unused).unwrap();
    let removed = fixture.store.remove("app:v1", false, &unused).unwrap();
    assert_eq!((familiar(&removed), removed.deleted), (vec!["app:v1".to_owned()], vec![id]));
    assert!(removed.reclaimed_bytes > 2 + 2 * 1024);
    assert!(fixture.holdings().is_empty(), "{:?}", fixture.holdings());
    assert_eq!(fixture.store.remove("app:v1", false, &unused).unwrap_err().class(), ErrorClass::NotFound);
}

#[test]
fn shared_layers_stay_with_who_has_them() {
    let fixture = fixture();
    fixture.load(&Docker::new("other:v1", &[one_file("base", "b"), one_file("a", "2")]).archive()).unwrap();
    let other = fixture.store.get("other:v1").unwrap();
    fixture.store.remove("app:v1", false, &unused).unwrap();
    assert_eq!(fixture.layer_names().len(), 2);
    assert_eq!(tree(&other.layers[0].directory)[0].1, "b");
    fixture.save(&["other:v1"]);
}

#[test]
fn by_id_with_several_names_needs_force() {
    let fixture = fixture();
    let id = fixture.store.get("app:v1").unwrap().id;
    fixture.store.tag("app:v1", &"other:x".parse().unwrap()).unwrap();
    let short = id.short();
    conflict(
        fixture.store.remove(&short, false, &unused),
        &format!("conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"),
    );
    let removed = fixture.store.remove(&short, true, &unused).unwrap();
    assert_eq!((familiar(&removed), removed.deleted), (vec!["app:v1".to_owned(), "other:x".to_owned()], vec![id]));
    assert!(fixture.holdings().is_empty());
}

#[test]
fn images_of_running_containers_are_never_deleted() {
    let fixture = fixture();
    let id = fixture.store.get("app:v1").unwrap().id;
    let short = id.short();
    for force in [false, true] {
        conflict(
            fixture.store.remove(&short, force, &running),
            &format!(
                "conflict: unable to delete {short} (cannot be forced) - image is being used by running container 0123456789ab"
            ),
        );
    }
    conflict(
        fixture.store.remove("app:v1", false, &running),
        &format!(
            "conflict: unable to remove repository reference \"app:v1\" (must force) - container 0123456789ab is using its referenced image {short}"
        ),
    );
    // By name and force it loses the name, not its files.
    let removed = fixture.store.remove("app:v1", true, &running).unwrap();
    assert_eq!((familiar(&removed), removed.deleted.len()), (vec!["app:v1".to_owned()], 0));
    assert_eq!(fixture.layer_names().len(), 2);
    assert_eq!(fixture.store.get(&short).unwrap().references, []);
    // A second name may always go.
    fixture.store.tag(&short, &"a:1".parse().unwrap()).unwrap();
    fixture.store.tag(&short, &"a:2".parse().unwrap()).unwrap();
    fixture.store.remove("a:1", false, &running).unwrap();
}

/// Forced away under a stopped container: gone for everyone, but the container can still start until it is removed.
#[test]
fn forced_away_under_a_stopped_container() {
    let fixture = fixture();
    let image = fixture.store.get("app:v1").unwrap();
    let short = image.id.short();
    conflict(
        fixture.store.remove(&short, false, &stopped),
        &format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container 0123456789ab"
        ),
    );
    let removed = fixture.store.remove(&short, true, &stopped).unwrap();
    assert_eq!(removed.deleted, [image.id]);
    assert_eq!(fixture.store.get(&image.id.to_string()).unwrap_err().class(), ErrorClass::NotFound);
    assert_eq!(fixture.store.remove(&image.id.to_string(), true, &stopped).unwrap_err().class(), ErrorClass::NotFound);
    assert!(fixture.store.list().unwrap().is_empty());
    let fixture = fixture.reopened();
    let again = fixture.store.get_by_id(&image.id).unwrap();
    assert_eq!(again.layers.len(), 2);
    fixture.store.prepare("0123456789abcdef", &again, false).unwrap();
    fixture.store.discard("0123456789abcdef").unwrap();
    assert!(fixture.store.collect(&unused).unwrap().bytes > 0);
    assert!(fixture.holdings().is_empty());
    assert_eq!(fixture.store.get_by_id(&image.id).unwrap_err().class(), ErrorClass::NotFound);
}

/// Loaded again, a hidden image is an image like any other.
#[test]
fn a_hidden_image_comes_back_with_a_load() {
    let fixture = fixture();
    let id = fixture.store.get("app:v1").unwrap().id;
    fixture.store.remove("app:v1", true, &stopped).unwrap();
    fixture.load(&Docker::new("app:v3", &[one_file("base", "b"), one_file("a", "1")]).archive()).unwrap();
    assert_eq!(fixture.store.get("app:v3").unwrap().id, id);
    fixture.store.collect(&unused).unwrap();
    assert_eq!(fixture.layer_names().len(), 2);
}

#[test]
fn prune_takes_unnamed_unused_images() {
    let fixture = fixture();
    for text in ["2", "3", "4"] {
        fixture.load(&Docker::new("moving:latest", &[one_file("a", text)]).archive()).unwrap();
    }
    let used = fixture.store.list().unwrap().into_iter().find(|i| i.references.is_empty()).unwrap().id;
    let use_of = |id: &Digest| if *id == used { stopped(id) } else { ImageUse::Unused };
    let removed = fixture.store.prune_dangling(&use_of, &|_| true).unwrap();
    assert_eq!(removed.deleted.len(), 1);
    assert!(removed.reclaimed_bytes > 1024);
    assert_eq!(fixture.store.list().unwrap().len(), 3);
    assert_eq!(fixture.store.prune_dangling(&unused, &|_| false).unwrap().deleted, []);
    assert_eq!(fixture.store.prune_dangling(&unused, &|_| true).unwrap().deleted, [used]);
    assert_eq!(fixture.layer_names().len(), 3);
}

#[test]
fn a_name_wins_over_an_id_that_reads_alike() {
    let fixture = fixture();
    let id = fixture.store.get("app:v1").unwrap().id;
    fixture.load(&Docker::new("other:v1", &[one_file("a", "other")]).archive()).unwrap();
    let alike = id.short();
    fixture.store.tag("other:v1", &alike.parse().unwrap()).unwrap();
    assert_ne!(fixture.store.get(&alike).unwrap().id, id);
    let removed = fixture.store.remove(&alike, false, &unused).unwrap();
    assert_eq!(familiar(&removed), [format!("{alike}:latest")]);
    assert_eq!(fixture.store.get(&alike).unwrap().id, id);
}
