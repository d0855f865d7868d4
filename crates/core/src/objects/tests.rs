use super::*;
use berth_types::{Classify, ErrorClass};

struct Scratch {
    _dir: tempfile::TempDir,
    objects: Objects,
}

fn scratch() -> Scratch {
    let dir = tempfile::tempdir().unwrap();
    let metadata = Arc::new(Metadata::open(&dir.path().join("metadata.redb")).unwrap());
    Scratch { _dir: dir, objects: Objects::new(metadata) }
}

fn container(id: &str) -> ContainerObject {
    ContainerObject {
        id: id.to_owned(),
        runtime: RuntimeChoice { name: "io.containerd.runc.v2".to_owned(), options: None },
        spec: Some(AnyValue { type_url: "t".to_owned(), value: vec![0, 255, 10] }),
        ..Default::default()
    }
}

/// S-117: CRUD, names unique per namespace.
#[test]
fn s117_objects_are_unique_per_tenant() {
    let Scratch { _dir, objects } = scratch();
    let (a, b): (Tenant, Tenant) = ("a".parse().unwrap(), "a.b".parse().unwrap());
    objects.create(&a, &container("x")).unwrap();
    objects.create(&b, &container("x")).unwrap();
    let error = objects.create(&a, &container("x")).unwrap_err();
    assert_eq!(
        (error.class(), error.to_string().as_str()),
        (ErrorClass::AlreadyExists, "container \"x\": already exists")
    );
    assert_eq!(objects.get::<ContainerObject>(&a, "x").unwrap(), container("x"));
    assert_eq!(objects.list::<ContainerObject>(&a).unwrap().len(), 1);
    assert_eq!(objects.list_all::<ContainerObject>().unwrap().len(), 2);
    objects.delete::<ContainerObject>(&a, "x").unwrap();
    assert_eq!(objects.delete::<ContainerObject>(&a, "x").unwrap_err().class(), ErrorClass::NotFound);
    assert_eq!(objects.list::<ContainerObject>(&b).unwrap().len(), 1);
}

#[test]
fn updates_take_the_named_fields_only() {
    let Scratch { _dir, objects } = scratch();
    let tenant = Tenant::docker();
    let mut old = container("x");
    old.labels = [("a".to_owned(), "1".to_owned()), ("b.c".to_owned(), "2".to_owned())].into();
    objects.create(&tenant, &old).unwrap();
    let mut new = container("x");
    new.image = "other".to_owned();
    new.labels = [("b.c".to_owned(), "3".to_owned())].into();
    let change = |paths: &[&str]| {
        let paths: Vec<String> = paths.iter().map(|&path| path.to_owned()).collect();
        objects.update::<ContainerObject>(&tenant, "x", |object| object.change(&new, &paths))
    };
    let changed = change(&["labels.b.c"]).unwrap();
    assert_eq!((changed.labels["a"].as_str(), changed.labels["b.c"].as_str(), changed.image.as_str()), ("1", "3", ""));
    assert_eq!(change(&["id"]).unwrap_err().class(), ErrorClass::InvalidArgument);
    let changed = change(&[]).unwrap();
    assert_eq!((changed.labels, changed.image.as_str()), (new.labels.clone(), "other"));
}

#[test]
fn names_are_checked() {
    for good in ["a", "k8s.io", "a-b_c.d", "0"] {
        assert!(good.parse::<Tenant>().is_ok(), "{good}");
    }
    for bad in ["", "a/b", "-a", "a-", "a..b", "a b", "ä", &"x".repeat(77)] {
        assert_eq!(bad.parse::<Tenant>().unwrap_err().class(), ErrorClass::InvalidArgument, "{bad}");
    }
}
