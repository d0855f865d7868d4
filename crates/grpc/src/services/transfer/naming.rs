//! Under which names a transfer stores what it brought: containerd's rules for an `ImageStore`'s name and its extra references.

use berth_containerd_api::containerd::types::transfer::{ImageReference, ImageStore};
use berth_image::tenant::Target;
use berth_types::{Labels, Timestamp};
use tonic::Status;

const NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The image goes with the one it came with.
const BACK_REFERENCE: &str = "containerd.io/gc.bref.image";
const EXPIRE: &str = "containerd.io/gc.expire";

/// A name to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) target: Target,
    pub(super) labels: Labels,
}

fn extra(store: &ImageStore, name: String, target: &Target) -> Named {
    let mut labels: Labels = store.labels.clone();
    if !store.name.is_empty() {
        labels.insert(BACK_REFERENCE.to_owned(), store.name.clone());
        labels.insert(EXPIRE.to_owned(), Timestamp::now().to_string());
    }
    Named { name, target: target.clone(), labels }
}

/// The store's own name, and complete references.
///
/// # Errors
/// `NotFound` when there is no name at all.
pub(super) fn of_target(store: &ImageStore, target: &Target) -> Result<Vec<Named>, Status> {
    let mut named = Vec::new();
    if !store.name.is_empty() {
        named.push(Named { name: store.name.clone(), target: target.clone(), labels: store.labels.clone() });
    }
    for reference in &store.extra_references {
        match (reference.is_prefix, reference.add_digest) {
            (true, false) => {}
            (_, true) => named.push(extra(store, format!("{}@{}", reference.name, target.digest), target)),
            (false, false) => named.push(extra(store, reference.name.clone(), target)),
        }
    }
    if named.is_empty() {
        return Err(Status::not_found("no image name found"));
    }
    Ok(named)
}

/// What an image of an archive says it is called, as far as a prefix allows it.
pub(super) fn of_annotations(store: &ImageStore, target: &Target) -> Vec<Named> {
    let mut named = Vec::new();
    for reference in store.extra_references.iter().filter(|reference| reference.is_prefix) {
        let with_digest = format!("{}@{}", reference.name, target.digest);
        let Some(name) = annotated(reference, target) else {
            named.extend(reference.add_digest.then(|| extra(store, with_digest, target)));
            continue;
        };
        named.push(extra(store, name, target));
        if reference.add_digest && !reference.skip_named_digest {
            named.push(extra(store, with_digest, target));
        }
    }
    named
}

fn annotated(reference: &ImageReference, target: &Target) -> Option<String> {
    let clean = |name: &str| {
        if reference.allow_overwrite { add_prefix(&reference.name, name) } else { filter(&reference.name, name) }
    };
    if let Some(full) = target.annotations.get(NAME).filter(|name| !name.is_empty()) {
        // A full name is taken as it is or not at all.
        return clean(full).filter(|cleaned| cleaned == full);
    }
    target.annotations.get(REF_NAME).filter(|name| !name.is_empty()).and_then(|name| clean(name))
}

/// `:tag` or a whole name; without one it is a tag of the prefix.
fn add_prefix(prefix: &str, name: &str) -> Option<String> {
    if is_whole(name) { Some(name.to_owned()) } else { Some(format!("{prefix}:{name}")) }
}

/// Only names of the prefix.
fn filter(prefix: &str, name: &str) -> Option<String> {
    if !is_whole(name) {
        return Some(format!("{prefix}:{name}"));
    }
    let rest = name.strip_prefix(prefix)?;
    rest.starts_with([':', '@', '/']).then(|| name.to_owned()).or_else(|| rest.is_empty().then(|| name.to_owned()))
}

fn is_whole(name: &str) -> bool {
    name.contains(['/', ':', '@'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(annotations: &[(&str, &str)]) -> Target {
        Target {
            media_type: "m".to_owned(),
            digest: berth_types::Digest::from_bytes([7; 32]),
            size_bytes: 1,
            annotations: annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    fn store(name: &str, references: Vec<ImageReference>) -> ImageStore {
        ImageStore { name: name.to_owned(), extra_references: references, ..Default::default() }
    }

    fn names(named: Vec<Named>) -> Vec<String> {
        named.into_iter().map(|one| one.name).collect()
    }

    #[test]
    fn names_of_annotations() {
        let prefix = |allow_overwrite| ImageReference {
            name: "r.io/app".to_owned(),
            is_prefix: true,
            allow_overwrite,
            ..Default::default()
        };
        let found = |overwrite, annotations: &[(&str, &str)]| {
            names(of_annotations(&store("", vec![prefix(overwrite)]), &target(annotations)))
        };
        assert_eq!(found(false, &[(REF_NAME, "v1")]), ["r.io/app:v1"]);
        assert_eq!(found(false, &[(NAME, "r.io/app:v2"), (REF_NAME, "v2")]), ["r.io/app:v2"]);
        assert_eq!(found(false, &[(NAME, "r.io/other:v2")]), [""; 0]);
        assert_eq!(found(true, &[(NAME, "r.io/other:v2")]), ["r.io/other:v2"]);
        assert_eq!(found(true, &[]), [""; 0]);
    }

    #[test]
    fn digests_are_added() {
        let reference = ImageReference {
            name: "r.io/app".to_owned(),
            is_prefix: true,
            add_digest: true,
            skip_named_digest: true,
            ..Default::default()
        };
        let with = store("r.io/all:1", vec![reference]);
        let digest = format!("r.io/app@{}", target(&[]).digest);
        assert_eq!(names(of_annotations(&with, &target(&[]))).join(" "), digest);
        assert_eq!(names(of_annotations(&with, &target(&[(REF_NAME, "v1")]))), ["r.io/app:v1"]);
        assert_eq!(names(of_target(&with, &target(&[])).unwrap()), ["r.io/all:1".to_owned(), digest]);
        assert_eq!(of_target(&store("", Vec::new()), &target(&[])).unwrap_err().code(), tonic::Code::NotFound);
    }
}
