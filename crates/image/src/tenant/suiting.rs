//! Of what an import brought, only what was asked for is kept: an index then leads to what suits by labels, and the rest is collected when the
//! import's lease ends.
//!
//! # Spec
//! containerd's transfer service: `platforms`, `all_metadata` and `manifest_limit` of an image store; labels by its `docs/garbage-collection.md`.

use berth_types::{Digest, Labels};

use super::document::{Child, DEPTH_MAX};
use super::gc::REF_CONTENT;
use super::{Leads, Target, Tenant, unknown};
use crate::pull::TargetPlatform;
use crate::{ImageError, Result};

/// Which manifests of an index are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ManifestFilter {
    /// None: of every platform.
    pub platforms: Vec<TargetPlatform>,
    /// Manifests and configs of other platforms stay, without their layers.
    pub keeps_metadata: bool,
    /// At most so many of each index; 0: all.
    pub manifests_max: usize,
}

impl ManifestFilter {
    pub fn takes_all(&self) -> bool {
        self.platforms.is_empty() && self.manifests_max == 0
    }
}

/// A walk over what was imported.
struct Walk<'w> {
    filter: &'w ManifestFilter,
    /// Blobs that this import brought: what was here before is kept as it was.
    is_new: &'w dyn Fn(&Digest) -> bool,
    manifests: usize,
}

impl Tenant<'_> {
    /// Lets go of what an index has and nobody asked for. Gives back the entries of the index that stay.
    ///
    /// # Errors
    /// `NotFound` when nothing suits; `InvalidArgument` for a damaged document.
    pub fn keep_suiting(
        &self,
        index: &Target,
        filter: &ManifestFilter,
        is_new: &dyn Fn(&Digest) -> bool,
    ) -> Result<Vec<Target>> {
        let mut walk = Walk { filter, is_new, manifests: 0 };
        let kept = self.suit(index, &mut walk, 0)?;
        if walk.manifests == 0 {
            let shown: Vec<String> = filter.platforms.iter().map(ToString::to_string).collect();
            return Err(unknown("an image for", shown.join(", ")));
        }
        Ok(kept)
    }

    fn suit(&self, document: &Target, walk: &mut Walk<'_>, depth: usize) -> Result<Vec<Target>> {
        if depth > DEPTH_MAX {
            return Err(ImageError::archive("its indexes have no end"));
        }
        let bytes = self.document(&document.digest)?;
        let what = format!("document {}", document.digest.short());
        let children = match Leads::parse(&bytes, &document.media_type, &what)? {
            Leads::Manifest { .. } => {
                walk.manifests += 1;
                return Ok(Vec::new());
            }
            Leads::Index(children) => children,
        };
        let filter = walk.filter;
        let limit = if filter.manifests_max == 0 { usize::MAX } else { filter.manifests_max };
        let ranked = |child: Child| (child.preference(&filter.platforms).unwrap_or(usize::MAX), child.target);
        let mut ranked: Vec<(usize, Target)> = children.into_iter().map(ranked).collect();
        ranked.sort_by_key(|(preference, _)| *preference);
        let suiting = ranked.iter().take_while(|(preference, _)| *preference < usize::MAX).count();
        let mut others: Vec<Target> =
            ranked.split_off(suiting.min(limit)).into_iter().map(|(_, other)| other).collect();
        let mut kept: Vec<Target> = ranked.into_iter().map(|(_, child)| child).collect();
        for child in &kept {
            self.suit(child, walk, depth + 1)?;
        }
        if others.is_empty() {
            return Ok(kept);
        }
        if filter.keeps_metadata {
            for other in &others {
                self.keep_metadata_alone(other, walk)?;
            }
            kept.append(&mut others);
        } else {
            let leads = kept.iter().enumerate().map(|(at, child)| (format!("{REF_CONTENT}.m.{at}"), child.digest));
            self.lead_to(&document.digest, leads.collect(), walk)?;
        }
        Ok(kept)
    }

    /// A manifest stays with its config; an index, or what was not brought at all, as it is.
    fn keep_metadata_alone(&self, document: &Target, walk: &Walk<'_>) -> Result<()> {
        let Ok(bytes) = self.document(&document.digest) else { return Ok(()) };
        let what = format!("document {}", document.digest.short());
        if let Leads::Manifest { config, .. } = Leads::parse(&bytes, &document.media_type, &what)? {
            self.lead_to(&document.digest, vec![(format!("{REF_CONTENT}.config"), config.digest)], walk)?;
        }
        Ok(())
    }

    /// Without such labels a document leads to all that it names.
    fn lead_to(&self, document: &Digest, leads: Vec<(String, Digest)>, walk: &Walk<'_>) -> Result<()> {
        if leads.is_empty() || !(walk.is_new)(document) {
            return Ok(());
        }
        let fields: Vec<String> = leads.iter().map(|(key, _)| format!("labels.{key}")).collect();
        let labels: Labels = leads.into_iter().map(|(key, digest)| (key, digest.to_string())).collect();
        self.update_blob(document, &labels, &fields).map(drop)
    }
}

#[cfg(test)]
mod tests;
