//! What registries say without an image changing hands: logins, manifests, referrers.

use berth_image::RemoteDocument;
use berth_registry::{Credentials, Fetched};
use berth_types::Reference;

use crate::api::RemoteView;
use crate::engine::Engine;
use crate::error::{EngineError, Result};

const CONFIG_BYTES_MAX: u64 = 8 << 20;

impl Engine {
    /// Whether a registry accepts these credentials; returns the identity token it gives instead of the password, if any.
    ///
    /// # Errors
    /// `PermissionDenied` when it does not accept them, `Unavailable` when it cannot be asked.
    pub async fn login(&self, domain: &str, credentials: Credentials) -> Result<Option<String>> {
        let (registry, domain) = (std::sync::Arc::clone(self.inner.transfers.registry()), domain.to_owned());
        let work = async move { Ok(registry.login(&domain, credentials).await?.identity_token) };
        self.inner.transfers.run(work).await
    }

    /// What a registry has under a name.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`, `Unavailable`; `InvalidArgument` for documents that are no image.
    pub async fn remote(&self, name: &str, credentials: Credentials) -> Result<RemoteView> {
        let reference = name.parse::<Reference>()?.with_default_tag();
        let session = self.inner.transfers.session(&reference, credentials)?;
        let work = async move {
            let found = session.manifest(&target(&reference)).await?;
            let view = |found: Fetched, platforms| RemoteView {
                digest: found.digest,
                media_type: found.media_type,
                bytes: found.bytes,
                platforms,
            };
            let platforms = match RemoteDocument::parse(found.bytes.clone(), &found.media_type, &reference.familiar())?
            {
                RemoteDocument::Index(index) => index.platforms(),
                RemoteDocument::Manifest(manifest) => {
                    let config = session.document(&manifest.config().digest, CONFIG_BYTES_MAX).await?;
                    vec![berth_image::platform_of_config(&config)?]
                }
            };
            Ok(view(found, platforms))
        };
        self.inner.transfers.run(work).await
    }

    /// The index of what refers to the image (signatures, bills of materials).
    ///
    /// # Errors
    /// As for [`Self::remote`]; `NotFound` when nothing does.
    pub async fn remote_referrers(&self, name: &str, credentials: Credentials) -> Result<RemoteView> {
        let reference = name.parse::<Reference>()?.with_default_tag();
        let session = self.inner.transfers.session(&reference, credentials)?;
        let work = async move {
            let digest = match reference.digest() {
                Some(digest) => *digest,
                None => session.manifest(&target(&reference)).await?.digest,
            };
            let none = || EngineError::not_found(format!("nothing refers to {}", reference.familiar()));
            let found = session.referrers(&digest).await?.ok_or_else(none)?;
            let (digest, media_type, bytes) = (found.digest, found.media_type, found.bytes);
            Ok(RemoteView { digest, media_type, bytes, platforms: Vec::new() })
        };
        self.inner.transfers.run(work).await
    }
}

fn target(reference: &Reference) -> String {
    let digest = reference.digest().map(ToString::to_string);
    digest.or_else(|| reference.tag().map(str::to_owned)).unwrap_or_else(|| "latest".to_owned())
}
