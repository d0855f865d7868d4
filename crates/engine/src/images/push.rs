//! `push`: existing blobs are found or mounted, the rest is sent, then the manifest, with the very bytes that are here.

use std::collections::HashMap;
use std::sync::Arc;

use berth_image::OutgoingBlob;
use berth_registry::{Credentials, Pushed, Session};
use berth_types::{ByteCount, Digest, Reference};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::api::{Progress, PushOutcome};
use crate::engine::Engine;
use crate::error::{Doing, EngineError, Result};
use crate::transfer::Board;

impl Engine {
    /// Pushes one tag, or with `tag: None` every tag of the repository. Progress comes in Docker's words.
    ///
    /// # Errors
    /// `NotFound` when there is no such tag here; `PermissionDenied`, `Unavailable` of the registry.
    pub async fn push(
        &self,
        name: &str,
        tag: Option<&str>,
        credentials: Credentials,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Vec<PushOutcome>> {
        let named: Reference = name.parse()?;
        if named.digest().is_some() {
            return Err(EngineError::invalid("cannot push a digest reference"));
        }
        let repository = named.repository();
        let tags = match tag.or_else(|| named.tag()) {
            Some(tag) => vec![format!("{repository}:{tag}").parse::<Reference>()?],
            None => self.inner.images.tags_of(&repository)?,
        };
        if tags.is_empty() {
            let message = format!("An image does not exist locally with the tag: {}", named.familiar_repository());
            return Err(EngineError::not_found(message));
        }
        // All of them are there, or nothing is sent.
        for tag in &tags {
            drop(self.inner.images.outgoing(tag)?);
        }
        let session = self.inner.transfers.session(&tags[0], credentials)?;
        let board = Arc::new(Board::new());
        board.line("", format!("The push refers to repository [{repository}]"));
        let (engine, told) = (self.clone(), Arc::clone(&board));
        let work = async move {
            let mut outcomes = Vec::with_capacity(tags.len());
            for tag in tags {
                let pushed = engine.push_one(&session, &tag, &told).await;
                outcomes.push(pushed.doing(|| format!("cannot push {}", tag.familiar()))?);
            }
            Ok(outcomes)
        };
        self.inner.transfers.follow(&progress, &board, work).await
    }

    async fn push_one(&self, session: &Arc<Session>, reference: &Reference, board: &Arc<Board>) -> Result<PushOutcome> {
        let sources = self.inner.images.repositories_with(reference.domain())?;
        let image = self.inner.images.outgoing(reference)?;
        let tag = reference.tag().unwrap_or("latest").to_owned();
        for layer in &image.layers {
            tell(board, &layer.shown, "Preparing", None);
        }
        let mut jobs = JoinSet::new();
        for layer in image.layers.iter().cloned() {
            let sources = sources_of(&sources, &layer.digest);
            jobs.spawn(push_layer(Arc::clone(session), layer, sources, Arc::clone(board)));
        }
        while let Some(pushed) = jobs.join_next().await {
            pushed.map_err(|_| EngineError::internal("a transfer ended early"))??;
        }
        let (config, size) = (&image.config, image.manifest.len() as u64);
        let sources = sources_of(&sources, &config.digest);
        session.push_blob(&config.digest, &config.path, config.size_bytes, &sources, &|_| {}).await?;
        let digest = session.put_manifest(&tag, &image.media_type, &image.manifest).await?;
        board.line("", format!("{tag}: digest: {digest} size: {size}"));
        let there: Reference = format!("{}@{digest}", reference.repository()).parse()?;
        self.inner.images.note_pushed(&image.id, &there)?;
        self.emit_image("push", &image.id.to_string(), &reference.familiar());
        Ok(PushOutcome { tag, digest, size_bytes: size })
    }
}

fn sources_of(all: &HashMap<Digest, Vec<String>>, digest: &Digest) -> Vec<String> {
    all.get(digest).cloned().unwrap_or_default()
}

async fn push_layer(session: Arc<Session>, layer: OutgoingBlob, sources: Vec<String>, board: Arc<Board>) -> Result<()> {
    let size = layer.size_bytes;
    let told = |sent: u64| tell(&board, &layer.shown, "Pushing", Some((sent, size)));
    let pushed = session.push_blob(&layer.digest, &layer.path, size, &sources, &told).await?;
    let status = match pushed {
        Pushed::Existed => "Layer already exists".to_owned(),
        Pushed::Mounted(from) => format!("Mounted from {from}"),
        Pushed::Uploaded => "Pushed".to_owned(),
    };
    tell(&board, &layer.shown, &status, None);
    Ok(())
}

fn tell(board: &Board, id: &str, status: &str, bytes: Option<(u64, u64)>) {
    let (current, total) = bytes.map_or((None, None), |(at, of)| (Some(ByteCount(at)), Some(ByteCount(of))));
    board.object(Progress { id: id.to_owned(), status: status.to_owned(), current, total });
}
