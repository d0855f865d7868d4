//! Images from a registry: what the documents say, which layers are new, and the one step that makes the image known.
//!
//! It speaks to no registry: whoever calls brings the documents, and a [`LayerSource`] whose bytes are unpacked while they arrive.
//!
//! ```text
//! RemoteDocument::parse ─ index → choose ─┐
//!                       └ manifest ───────┴→ Incoming → ImageStore::plan_pull → (caller fetches) → ImageStore::pull
//! ```

use std::io::{self, Read};
use std::path::PathBuf;
use std::str::FromStr;

use berth_content::Expected;
use berth_types::{Digest, Reference};

use crate::candidate::{Candidate, PackedLayer};
use crate::document::{
    ConfigDocument, Descriptor, Document, Index, Manifest, Platform, digest_of_document, is_foreign_layer,
    layer_compression,
};
use crate::load::Planned;
use crate::platform;
use crate::spool::Spool;
use crate::store::ImageStore;
use crate::unpack::{Packed, Task, Unpacker};
use crate::{ImageError, ProgressFn, Result};

/// `os/architecture[/variant]`, or an architecture or `linux` alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetPlatform(Platform);

impl TargetPlatform {
    /// This machine's.
    pub fn host() -> Self {
        Self(platform::host())
    }

    pub(crate) const fn platform(&self) -> &Platform {
        &self.0
    }
}

impl std::fmt::Display for TargetPlatform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for TargetPlatform {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self> {
        let host = platform::host();
        let words: Vec<String> = text.split('/').map(str::to_ascii_lowercase).collect();
        let is_word = |word: &String| {
            word.starts_with(|c: char| c.is_ascii_alphanumeric())
                && word.len() <= 40
                && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        if words.len() > 3 || !words.iter().all(is_word) {
            let why = format!("{text:?} is not os/architecture[/variant]");
            return Err(ImageError::Invalid { what: "platform", why });
        }
        let platform = match &words[..] {
            [os] if os == "linux" => host,
            [architecture] => with_variant("linux", architecture, None),
            [os, architecture] => with_variant(os, architecture, None),
            [os, architecture, variant, ..] => with_variant(os, architecture, Some(variant)),
            [] => host,
        };
        Ok(Self(platform))
    }
}

fn with_variant(os: &str, architecture: &str, variant: Option<&String>) -> Platform {
    let (architecture, implied) = berth_types::architecture::normalized(architecture);
    let variant = variant.cloned().or_else(|| implied.map(str::to_owned));
    Platform { architecture: architecture.to_owned(), os: os.to_owned(), variant }
}

/// What a registry has under a name.
#[derive(Debug)]
pub enum RemoteDocument {
    Manifest(RemoteManifest),
    Index(RemoteIndex),
}

#[derive(Debug)]
pub struct RemoteIndex {
    name: String,
    index: Index,
}

/// A manifest of an image, checked.
#[derive(Debug)]
pub struct RemoteManifest {
    pub digest: Digest,
    bytes: Vec<u8>,
    manifest: Manifest,
}

/// What a descriptor promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteBlob {
    pub digest: Digest,
    pub size_bytes: u64,
    pub media_type: String,
}

impl From<&Descriptor> for RemoteBlob {
    fn from(descriptor: &Descriptor) -> Self {
        Self { digest: descriptor.digest, size_bytes: descriptor.size, media_type: descriptor.media_type.clone() }
    }
}

impl RemoteDocument {
    /// `media_type` as the registry states it.
    ///
    /// # Errors
    /// `InvalidArgument` for what is ambiguous, of schema 1, or no image.
    pub fn parse(bytes: Vec<u8>, media_type: &str, name: &str) -> Result<Self> {
        let what = format!("the manifest of {name}");
        Ok(match Document::parse(&bytes, &what, media_type)? {
            Document::Index(index) => Self::Index(RemoteIndex { name: name.to_owned(), index }),
            Document::Manifest(manifest) => {
                for layer in &manifest.layers {
                    if is_foreign_layer(&layer.media_type) {
                        let why = format!("{name} has a non-distributable layer ({})", layer.media_type);
                        return Err(ImageError::Invalid { what: "image", why });
                    }
                    layer_compression(&layer.media_type, &format!("layer {} of {name}", layer.digest.short()))?;
                }
                Self::Manifest(RemoteManifest { digest: digest_of_document(&bytes), bytes, manifest })
            }
        })
    }
}

/// The platform an image's config names, as text.
///
/// # Errors
/// `InvalidArgument` when it is no config.
pub fn platform_of_config(bytes: &[u8]) -> Result<String> {
    Ok(ConfigDocument::parse(bytes, "the config")?.platform().to_string())
}

impl RemoteIndex {
    /// What it offers, without attestations.
    pub fn platforms(&self) -> Vec<String> {
        let known = self.index.manifests.iter().filter_map(|d| d.platform.as_ref()).filter(|p| p.os != "unknown");
        known.map(ToString::to_string).collect()
    }

    /// The manifest that suits the platform best.
    ///
    /// # Errors
    /// `NoPlatform` names what there is.
    pub fn choose(&self, wanted: &TargetPlatform) -> Result<RemoteBlob> {
        let ranked = self.index.manifests.iter().enumerate();
        let best = ranked
            .filter_map(|(i, d)| Some((platform::rank(&wanted.0, d.platform.as_ref()?)?, i, d)))
            .min_by_key(|b| (b.0, b.1));
        if let Some((_, _, descriptor)) = best {
            return Ok(descriptor.into());
        }
        // An index of one manifest that says nothing of platforms means that one.
        if let [only] = &self.index.manifests[..]
            && only.platform.is_none()
        {
            return Ok(only.into());
        }
        let offered = self.index.manifests.iter().filter_map(|d| d.platform.as_ref());
        let mut offered: Vec<String> = offered.filter(|p| p.os != "unknown").map(ToString::to_string).collect();
        offered.dedup();
        let found = if offered.is_empty() { "none at all".to_owned() } else { offered.join(", ") };
        Err(ImageError::NoPlatformOf { name: self.name.clone(), wanted: wanted.to_string(), found })
    }
}

impl RemoteManifest {
    pub fn config(&self) -> RemoteBlob {
        (&self.manifest.config).into()
    }

    /// Bottom to top.
    pub fn layers(&self) -> Vec<RemoteBlob> {
        self.manifest.layers.iter().map(RemoteBlob::from).collect()
    }
}

/// An image as a registry offers it: every document read and checked.
#[derive(Debug)]
pub struct Incoming {
    manifest: Vec<u8>,
    config: Vec<u8>,
    candidate: Candidate,
}

impl Incoming {
    /// `names`: what the image will be called; with a digest: where it came from.
    ///
    /// # Errors
    /// `InvalidArgument` when the config is not what the manifest says, or no image for Linux.
    pub fn new(manifest: RemoteManifest, config: Vec<u8>, names: Vec<Reference>) -> Result<Self> {
        let what = format!("config {}", manifest.manifest.config.digest.short());
        let promised = &manifest.manifest.config;
        if promised.size != config.len() as u64 {
            let why = format!("{what} has {} bytes, its descriptor says {}", config.len(), promised.size);
            return Err(ImageError::Invalid { what: "image", why });
        }
        let layers = manifest.manifest.layers.iter().map(|layer| {
            let compression = layer_compression(&layer.media_type, "a layer")?;
            Ok(PackedLayer { blob: layer.digest, size_bytes: layer.size, compression })
        });
        let candidate = Candidate {
            id: promised.digest,
            config: ConfigDocument::parse(&config, &what)?.facts(),
            config_bytes: config.len() as u64,
            layers: layers.collect::<Result<_>>()?,
            manifest: Some((manifest.digest, manifest.manifest)),
            references: names,
            is_pulled: true,
        };
        Ok(Self { manifest: manifest.bytes, config, candidate: candidate.check()? })
    }

    pub fn id(&self) -> Digest {
        self.candidate.id
    }

    pub fn platform(&self) -> TargetPlatform {
        TargetPlatform(self.candidate.config.platform.clone())
    }
}

/// Bytes of layers that arrive while they are read.
pub trait LayerSource: Send + Sync {
    /// A reader from the first byte. At its end the blob's digest was found right; it fails when it cannot be, also when what it gave was wrong and
    /// comes again.
    ///
    /// # Errors
    /// When the blob is none of this source.
    fn open(&self, blob: &Digest) -> io::Result<Box<dyn Read + Send>>;

    /// Counts how often bytes of the blob were wrong and come again.
    fn edition(&self, blob: &Digest) -> u64;

    /// Whether bytes of this edition were wrong, so that who read them begins again. Waits for it where it is open and somebody wants to know.
    fn was_wrong(&self, blob: &Digest, edition: u64, is_wanted: &dyn Fn() -> bool) -> bool;

    /// Waits until the blob is whole and says which file it is.
    ///
    /// # Errors
    /// Why it did not become whole.
    fn whole(&self, blob: &Digest) -> io::Result<PathBuf>;
}

/// What a pull has to fetch, and what there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PullPlan {
    /// Bottom to top, each blob once.
    pub to_fetch: Vec<RemoteBlob>,
    pub shared: Vec<RemoteBlob>,
    /// Layers whose files are there although their blob has to be fetched.
    pub unpacked: Vec<Digest>,
}

impl ImageStore {
    /// What [`Self::pull`] would fetch now.
    ///
    /// # Errors
    /// When records cannot be read.
    pub fn plan_pull(&self, incoming: &Incoming) -> Result<PullPlan> {
        let plan = self.plan(std::slice::from_ref(&incoming.candidate), &|_, _, _, _| {})?;
        let mut found = PullPlan::default();
        for layer in &incoming.candidate.layers {
            let manifest = incoming.candidate.manifest.as_ref();
            let descriptor = manifest.and_then(|(_, m)| m.layers.iter().find(|d| d.digest == layer.blob));
            let Some(blob) = descriptor.map(RemoteBlob::from) else { continue };
            let task = plan.tasks.iter().find(|task| task.layer.blob == layer.blob);
            let list = if task.is_some() { &mut found.to_fetch } else { &mut found.shared };
            if !list.contains(&blob) {
                list.push(blob);
            }
            found.unpacked.extend(task.filter(|task| task.is_there).map(|task| task.layer.blob));
        }
        Ok(found)
    }

    /// Unpacks the new layers while they arrive, then makes the image known under its names. All or nothing. `start` is given the layers to fetch
    /// once it is certain that they are needed. Returns whether anything changed.
    ///
    /// # Errors
    /// `InvalidArgument` when a layer is not what the config says; what the source failed with.
    pub fn pull<S: LayerSource>(
        &self,
        incoming: Incoming,
        start: impl FnOnce(&[RemoteBlob]) -> Result<S>,
        progress: ProgressFn<'_>,
    ) -> Result<bool> {
        let Incoming { manifest, config, candidate } = incoming;
        let shown = names_of_layers(&candidate);
        let told = |id: &str, status: &str, at, of| {
            let status = match status {
                "Layer already exists" => "Already exists",
                "Loading layer" => "Extracting",
                other => other,
            };
            progress(shown.iter().find(|(diff_id, _)| diff_id == id).map_or(id, |(_, blob)| blob), status, at, of);
        };
        let candidates = std::slice::from_ref(&candidate);
        let plan = self.plan(candidates, &told)?;
        let mut wanted: Vec<RemoteBlob> = Vec::new();
        for Planned { layer, .. } in &plan.tasks {
            let blob = RemoteBlob { digest: layer.blob, size_bytes: layer.size_bytes, media_type: String::new() };
            if !wanted.contains(&blob) {
                wanted.push(blob);
            }
        }
        let source = start(&wanted)?;
        let mut spool = Spool::default();
        spool.add(self.content.stage(&manifest)?);
        spool.add(self.content.stage(&config)?);
        let ready = self.ready(candidates, &plan, &mut spool)?;
        let is_known =
            candidate.references.iter().all(|name| self.tag_target(name).is_ok_and(|id| id == Some(candidate.id)));
        let is_new = !wanted.is_empty() || !is_known || !plan.is_all_known();
        let tasks = plan.tasks.iter().map(|planned| Task {
            packed: Packed::Arriving(&source, planned.layer.blob, planned.layer.size_bytes),
            compression: planned.layer.compression,
            diff_id: planned.diff_id,
            chain_id: planned.chain_id,
            below: planned.below,
            is_unpacked_already: planned.is_there,
        });
        let unpacker = Unpacker::new(&self.snapshots, self.expansion, &told);
        let unpacked = unpacker.run(tasks.collect())?;
        for blob in &wanted {
            let failed =
                |source| ImageError::Io { operation: "fetch", object: format!("layer {}", blob.digest), source };
            let path = source.whole(&blob.digest).map_err(failed)?;
            let expected = Expected { digest: Some(blob.digest), size_bytes: Some(blob.size_bytes) };
            // Another pull of the same layer may have been faster: then it is in the store.
            let staged = self.content.adopt(&path, expected);
            spool.add(staged.or_else(|_| self.content.adopt(&self.content.path(&blob.digest), expected))?);
            progress(&blob.digest.short(), "Pull complete", None, None);
        }
        self.commit_load(ready, unpacked, spool, plan.pins)?;
        Ok(is_new)
    }

    /// Whether everything the image is made of is here.
    ///
    /// # Errors
    /// When records cannot be read.
    pub fn is_whole(&self, id: &Digest) -> Result<bool> {
        Ok(self.whole_record(*id)?.is_some())
    }
}

/// (short diff id, short blob digest) of each layer: people know layers of a registry by their blobs.
fn names_of_layers(candidate: &Candidate) -> Vec<(String, String)> {
    let layers = candidate.layers.iter().zip(&candidate.config.diff_ids);
    layers.map(|(layer, diff_id)| (diff_id.short(), layer.blob.short())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms() {
        for (text, expect) in [
            ("linux/amd64", Some("linux/amd64")),
            ("amd64", Some("linux/amd64")),
            ("linux/arm64", Some("linux/arm64/v8")),
            ("linux/arm/v6", Some("linux/arm/v6")),
            ("Linux/X86_64", Some("linux/amd64")),
            ("windows/amd64", Some("windows/amd64")),
            ("a/b/c/d", None),
            ("linux/", None),
            ("../x", None),
        ] {
            assert_eq!(text.parse::<TargetPlatform>().ok().map(|p| p.to_string()).as_deref(), expect, "{text}");
        }
    }

    fn index(platforms: &[&str]) -> RemoteDocument {
        let entries: Vec<serde_json::Value> = platforms
            .iter()
            .enumerate()
            .map(|(n, platform)| {
                let mut words = platform.split('/');
                let digest = format!("sha256:{}", format!("{n:02x}").repeat(32));
                let mut entry = serde_json::json!({
                    "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1,
                });
                if !platform.is_empty() {
                    entry["platform"] = serde_json::json!({ "os": words.next(), "architecture": words.next() });
                    if let Some(variant) = words.next() {
                        entry["platform"]["variant"] = variant.into();
                    }
                }
                entry
            })
            .collect();
        let document = serde_json::json!({ "schemaVersion": 2, "manifests": entries });
        RemoteDocument::parse(document.to_string().into_bytes(), crate::document::OCI_INDEX, "x:1").unwrap()
    }

    #[test]
    fn the_best_platform_of_an_index() {
        let choose = |platforms: &[&str], wanted: &str| match index(platforms) {
            RemoteDocument::Index(index) => index
                .choose(&wanted.parse().unwrap())
                .map(|b| usize::from(b.digest.as_bytes()[0]))
                .map_err(|e| e.to_string()),
            RemoteDocument::Manifest(_) => unreachable!(),
        };
        let all = ["linux/arm64/v8", "unknown/unknown", "linux/amd64", "linux/arm/v6", "linux/arm/v7"];
        assert_eq!(choose(&all, "linux/amd64"), Ok(2));
        assert_eq!(choose(&all, "linux/arm64"), Ok(0));
        assert_eq!(choose(&all, "linux/arm"), Ok(4));
        assert_eq!(choose(&all, "linux/arm/v6"), Ok(3));
        assert_eq!(choose(&[""], "linux/amd64"), Ok(0));
        assert_eq!(
            choose(&all, "linux/s390x").unwrap_err(),
            "no matching manifest for linux/s390x in the manifest list entries of x:1; it has \
             linux/arm64/v8, linux/amd64, linux/arm/v6, linux/arm/v7"
        );
    }

    /// GHSA-5j5w-g665-5m35, CVE-2021-41190, CVE-2020-15157: what two readers may read differently, and what is to be fetched elsewhere.
    #[test]
    fn hostile_documents_are_refused() {
        let digest = format!("sha256:{}", "1".repeat(64));
        let layer = |kind: &str| {
            format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":1,"urls":["http://169.254.169.254/"]}}"#)
        };
        let manifest = |kind: &str, more: &str| {
            format!(
                r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":1}},
                "layers":[{}]{more}}}"#,
                layer(kind)
            )
        };
        let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
        let oci = crate::document::OCI_MANIFEST;
        for (text, media_type, why) in [
            (manifest(gzip, r#","manifests":[]"#), oci, "is both an index and a manifest"),
            (manifest(gzip, r#","Layers":[]"#), oci, "invalid the manifest of x"),
            (manifest(gzip, r#","layers":[]"#), oci, "invalid the manifest of x"),
            (manifest(gzip, ""), crate::document::OCI_INDEX, "is not supported"),
            (manifest("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", ""), oci, "non-distributable layer"),
            (
                manifest("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", ""),
                oci,
                "non-distributable layer",
            ),
            (manifest("application/octet-stream", ""), oci, "is not supported"),
            (r#"{"schemaVersion":1,"fsLayers":[],"history":[]}"#.to_owned(), "", "schema 1"),
            ("{".to_owned(), oci, "invalid the manifest of x"),
        ] {
            let error = RemoteDocument::parse(text.into_bytes(), media_type, "x").unwrap_err();
            assert!(error.to_string().contains(why), "{error} | {why}");
        }
        assert!(RemoteDocument::parse(manifest(gzip, "").into_bytes(), oci, "x").is_ok());
    }
}
