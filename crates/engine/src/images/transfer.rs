//! Archives in and out: `load`, `save`, `import`, and the image that comes with the binary.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use berth_image::CommitOptions;
use berth_types::{ByteCount, Digest, Reference};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::api::{ByteStream, Progress};
use crate::engine::Engine;
use crate::error::{Doing, EngineError, Result};
use crate::streams::ChannelReader;

/// At most some ten messages a second for each object.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

impl Engine {
    /// docker-archive or OCI archive, plain, gzip or zstd. Returns the loaded references (or ids where untagged).
    ///
    /// # Errors
    /// `InvalidArgument` when the archive is damaged or hostile; then nothing of it stays.
    pub async fn load(&self, tar: ByteStream, progress: mpsc::Sender<Progress>) -> Result<Vec<String>> {
        self.heavy(move |engine| {
            let report = Reporter::new(progress);
            let mut tar = ChannelReader::new(tar);
            let told = |id: &str, status: &str, at, of| {
                engine.inner.faults.pass(&format!("load: {status}"));
                report.tell(id, status, at, of);
            };
            let loaded = engine.inner.images.load(&mut tar, &told).doing(|| "cannot load the archive".to_owned())?;
            engine.inner.faults.pass("load.keep");
            let names = engine.tell_loaded(loaded);
            engine.inner.faults.pass("load.told");
            Ok(names)
        })
        .await
    }

    fn tell_loaded(&self, loaded: Vec<std::result::Result<Reference, Digest>>) -> Vec<String> {
        let mut names = Vec::new();
        for item in loaded {
            let name = match &item {
                Ok(reference) => reference.familiar(),
                Err(id) => id.to_string(),
            };
            let id = match &item {
                Ok(reference) => self.inner.images.get(&reference.to_string()).map(|image| image.id.to_string()),
                Err(id) => Ok(id.to_string()),
            };
            self.emit_image("load", &id.unwrap_or_default(), &name);
            names.push(name);
        }
        names
    }

    /// # Errors
    /// `NotFound` when one of the images is not there; later failures end the stream.
    pub async fn save(&self, image_refs: &[String]) -> Result<ByteStream> {
        let names = image_refs.to_vec();
        if names.is_empty() {
            return Err(EngineError::invalid("no image is named to save"));
        }
        let checked = names.clone();
        self.blocking(move |engine| {
            for name in &checked {
                let image = engine.image_named(name)?;
                engine.emit_image("save", &image.id.to_string(), name);
            }
            Ok(())
        })
        .await?;
        Ok(self.produce(move |engine, out| Ok(engine.inner.images.save(&names, out, &|_, _, _, _| {})?)))
    }

    /// A root file system tar becomes a one-layer image; returns its id.
    ///
    /// # Errors
    /// `InvalidArgument` for a bad archive, name or instruction.
    pub async fn import(
        &self,
        tar: ByteStream,
        reference: Option<&str>,
        message: &str,
        changes: &[String],
        progress: mpsc::Sender<Progress>,
    ) -> Result<Digest> {
        let reference = match reference.filter(|text| !text.is_empty()) {
            Some(text) => Some(text.parse::<Reference>()?.with_default_tag()),
            None => None,
        };
        let options = CommitOptions {
            reference,
            message: message.to_owned(),
            changes: changes.to_vec(),
            config: serde_json::json!({}),
            ..CommitOptions::default()
        };
        self.heavy(move |engine| {
            let report = Reporter::new(progress);
            let mut tar = ChannelReader::new(tar);
            let told = |id: &str, status: &str, at, of| report.tell(id, status, at, of);
            let id = engine
                .inner
                .images
                .import(&mut tar, &options, &told)
                .doing(|| "cannot import the archive".to_owned())?;
            let name = options.reference.as_ref().map_or_else(|| id.to_string(), Reference::familiar);
            engine.emit_image("import", &id.to_string(), &name);
            Ok(id)
        })
        .await
    }

    /// Loads our own `hello` when it is asked for by name. Ok(false): it is not what is asked, or the build has none.
    pub(crate) fn load_embedded_hello(&self, name: &str) -> Result<bool> {
        let bytes = self.inner.options.hello_image;
        let is_hello = name.parse::<Reference>().is_ok_and(|reference| {
            reference.familiar_repository() == "hello"
                && reference.tag().is_none_or(|tag| tag == "latest")
                && reference.digest().is_none()
        });
        if bytes.is_empty() || !is_hello {
            return Ok(false);
        }
        let loaded = self.inner.images.load(&mut &bytes[..], &|_, _, _, _| {});
        self.tell_loaded(loaded.doing(|| "cannot load the image that comes with berth".to_owned())?);
        Ok(true)
    }
}

/// Thins progress out; a slow client gets fewer messages, never holds the work up.
struct Reporter {
    sender: mpsc::Sender<Progress>,
    last: Mutex<HashMap<String, (String, Instant)>>,
}

/// Objects whose last message is remembered.
const OBJECTS_MAX: usize = 1024;

impl Reporter {
    fn new(sender: mpsc::Sender<Progress>) -> Self {
        Self { sender, last: Mutex::default() }
    }

    fn tell(&self, id: &str, status: &str, current: Option<u64>, total: Option<u64>) {
        let now = Instant::now();
        let mut last = self.last.lock();
        let is_end = current.is_some() && current == total;
        if let Some((old, at)) = last.get(id)
            && old == status
            && !is_end
            && now.duration_since(*at) < PROGRESS_INTERVAL
        {
            return;
        }
        if last.len() >= OBJECTS_MAX {
            last.clear();
        }
        last.insert(id.to_owned(), (status.to_owned(), now));
        drop(last);
        let message = Progress {
            id: id.to_owned(),
            status: status.to_owned(),
            current: current.map(ByteCount),
            total: total.map(ByteCount),
        };
        // A full channel drops a message: the next one says more.
        drop(self.sender.try_send(message));
    }
}
