//! Blobs as a tenant sees them. The bytes are shared by all; that a tenant sees them is a record.

use std::collections::BTreeSet;

use berth_content::{Expected, IngestStatus, ResumableIngest, Staged};
use berth_metadata::Table;
use berth_types::label::{self, Labels};
use berth_types::{Classify, Digest, ErrorClass, Timestamp};
use serde::{Deserialize, Serialize};

use super::lease::Resource;
use super::{Tenant, exists, unknown};
use crate::{ImageError, Result};

const COPY_BYTES: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    pub digest: Digest,
    pub size_bytes: u64,
    pub created: Timestamp,
    pub updated: Timestamp,
    pub labels: Labels,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct BlobRecord {
    created_ns: i64,
    updated_ns: i64,
    pub(super) labels: Labels,
}

impl BlobRecord {
    fn now(labels: &Labels) -> Self {
        let now = Timestamp::now().0;
        Self { created_ns: now, updated_ns: now, labels: labels.clone() }
    }
}

/// What a blob must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expectation {
    pub digest: Digest,
    pub size_bytes: u64,
}

/// Content that is written goes to its end.
struct Appending<'w>(&'w BlobWriter);

impl std::io::Write for Appending<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.append(bytes).map_err(|error| std::io::Error::other(berth_types::report(&error)))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn copy_into(writer: &BlobWriter, content: &mut dyn std::io::Read, digest: &Digest) -> Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let n = content.read(&mut buffer).map_err(|source| ImageError::Io {
            operation: "read",
            object: format!("content {digest}"),
            source,
        })?;
        if n == 0 {
            return Ok(());
        }
        writer.append(&buffer[..n])?;
    }
}

/// Content being written for a tenant.
#[derive(Debug)]
pub enum BlobWriter {
    Ingest(ResumableIngest),
    /// Another tenant brought the same content: there is nothing to send, only to commit.
    Shared(IngestStatus),
}

impl BlobWriter {
    pub fn status(&self) -> IngestStatus {
        match self {
            Self::Ingest(ingest) => ingest.status(),
            Self::Shared(status) => status.clone(),
        }
    }

    /// Appends; returns the new offset.
    ///
    /// # Errors
    /// When the disk refuses; `InvalidArgument` when there is nothing to send.
    pub fn append(&self, bytes: &[u8]) -> Result<u64> {
        match self {
            Self::Ingest(ingest) => Ok(ingest.append(bytes)?),
            Self::Shared(status) if bytes.is_empty() => Ok(status.offset),
            Self::Shared(_) => {
                Err(ImageError::Invalid { what: "write", why: "the content is complete already".to_owned() })
            }
        }
    }

    /// Begins from nothing.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn restart(&self) -> Result<()> {
        match self {
            Self::Ingest(ingest) => Ok(ingest.restart()?),
            Self::Shared(_) => Ok(()),
        }
    }
}

impl<'s> Tenant<'s> {
    /// # Errors
    /// `NotFound` when the tenant has no such blob.
    pub fn blob(&self, digest: &Digest) -> Result<BlobInfo> {
        self.find_blob(digest)?.ok_or_else(|| unknown("content", digest))
    }

    /// The same of a blob with a record of its own, which is found without looking at images. `None`: ask [`Self::blob`].
    ///
    /// # Errors
    /// When records cannot be read.
    pub fn recorded_blob(&self, digest: &Digest) -> Result<Option<BlobInfo>> {
        let record = self.load::<BlobRecord>(Table::Blobs, &digest.to_string())?;
        Ok(record.and_then(|record| self.blob_info(digest, record)))
    }

    /// Opens such a blob for reading; its size.
    ///
    /// # Errors
    /// When records cannot be read.
    pub fn open_recorded_blob(&self, digest: &Digest) -> Result<Option<(std::fs::File, u64)>> {
        let Some(info) = self.recorded_blob(digest)? else { return Ok(None) };
        Ok(self.store.content.reader(digest).ok().map(|file| (file, info.size_bytes)))
    }

    /// All, by digest.
    ///
    /// # Errors
    /// When records cannot be read.
    pub fn blobs(&self) -> Result<Vec<BlobInfo>> {
        let mut digests = BTreeSet::new();
        for (digest, _) in self.load_all::<BlobRecord>(Table::Blobs)? {
            digests.extend(digest.parse::<Digest>());
        }
        digests.extend(self.docker_blobs()?);
        let mut found = Vec::with_capacity(digests.len());
        for digest in digests {
            found.extend(self.find_blob(&digest)?);
        }
        Ok(found)
    }

    /// Changes labels by field paths; see [`label::updated`].
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for other fields.
    pub fn update_blob(&self, digest: &Digest, labels: &Labels, fields: &[String]) -> Result<BlobInfo> {
        let _changing = self.store.lock();
        let info = self.blob(digest)?;
        let labels = label::updated(info.labels, labels, fields)?;
        let record = BlobRecord { created_ns: info.created.0, updated_ns: Timestamp::now().0, labels };
        self.write(vec![self.put(Table::Blobs, &digest.to_string(), &record)?])?;
        self.blob(digest)
    }

    /// The tenant sees it no longer; the bytes go when nobody needs them.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` when an image of the Docker face is made of it.
    pub fn delete_blob(&self, digest: &Digest) -> Result<()> {
        let changing = self.store.lock();
        self.blob(digest)?;
        if self.docker_blobs()?.contains(digest) {
            return Err(ImageError::Conflict { why: format!("an image is made of content {digest}") });
        }
        self.write(vec![self.delete(Table::Blobs, &digest.to_string())])?;
        self.store.collection_is_due(&changing)
    }

    /// Bytes of a blob from an offset; see [`berth_content::ContentStore::read_at`].
    ///
    /// # Errors
    /// `NotFound` when the tenant has no such blob; `InvalidArgument` for an offset beyond its end.
    pub fn read_blob(&self, digest: &Digest, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.blob(digest)?;
        Ok(self.store.content.read_at(digest, offset, buffer)?)
    }

    /// Opens a blob for reading from the first byte; what is read stays readable when the blob is removed.
    ///
    /// # Errors
    /// `NotFound` when the tenant has no such blob.
    pub fn open_blob(&self, digest: &Digest) -> Result<std::fs::File> {
        self.blob(digest)?;
        Ok(self.store.content.reader(digest)?)
    }

    /// Begins writing under a reference, or goes on with it.
    ///
    /// # Errors
    /// `AlreadyExists` when the tenant has the expected blob; `Unavailable` while somebody else has the reference open.
    pub fn write_blob(&self, reference: &str, expected: Expected, lease: Option<&str>) -> Result<BlobWriter> {
        if reference.is_empty() {
            return Err(ImageError::Invalid { what: "ingest", why: "it needs a reference".to_owned() });
        }
        let _changing = self.store.lock();
        if let Some(digest) = expected.digest {
            if self.find_blob(&digest)?.is_some() {
                return Err(exists("content", digest));
            }
            if let Ok(size) = self.store.content.size(&digest)
                && expected.size_bytes.is_none_or(|wanted| wanted == size)
            {
                return Ok(BlobWriter::Shared(self.shared_status(reference, digest, size)));
            }
        }
        let ingest = self.store.content.resume(self.name, reference, expected)?;
        if let Some(lease) = lease {
            let resource = Resource { kind: "ingests".to_owned(), id: reference.to_owned() };
            self.write(vec![self.with_resource(lease, resource)?])?;
        }
        Ok(BlobWriter::Ingest(ingest))
    }

    /// Verifies what was written and makes it a blob of the tenant, in the same step a resource of the lease.
    ///
    /// # Errors
    /// `InvalidArgument` when it is not what it must be; `AlreadyExists` when the tenant has it; `NotFound` for the lease.
    pub fn commit_blob(
        &self,
        writer: BlobWriter,
        expected: Expected,
        labels: &Labels,
        lease: Option<&str>,
    ) -> Result<Digest> {
        label::check(labels)?;
        let (digest, staged) = match writer {
            BlobWriter::Ingest(ingest) => {
                let staged = ingest.finish(expected)?;
                // Before the lock: others need not wait for the disk.
                staged.flush()?;
                (staged.digest(), Some(staged))
            }
            BlobWriter::Shared(status) => {
                let digest = status.expected.ok_or_else(|| unknown("content", &status.reference))?;
                if let Some(wanted) = expected.digest.filter(|wanted| *wanted != digest) {
                    return Err(ImageError::WrongDigest {
                        what: "content".to_owned(),
                        expected: wanted,
                        found: digest,
                    });
                }
                (digest, None)
            }
        };
        match self.keep(digest, staged, labels, lease)? {
            true => Err(exists("content", digest)),
            false => Ok(digest),
        }
    }

    /// Makes complete content a blob of the tenant; one it has already stays as it is.
    pub(super) fn keep_blob(&self, staged: Staged, labels: &Labels, lease: Option<&str>) -> Result<()> {
        label::check(labels)?;
        self.keep(staged.digest(), Some(staged), labels, lease).map(|_| ())
    }

    /// The same for many, which the lease holds, in one step. Returns those the tenant did not have, with their sizes.
    pub(super) fn keep_blobs(&self, staged: Vec<Staged>, lease: &str) -> Result<Vec<(Digest, u64)>> {
        // Before the lock: others need not wait for the disk.
        staged.iter().try_for_each(Staged::flush)?;
        let _changing = self.store.lock();
        let docker = self.docker_blobs()?;
        let (mut writes, mut resources, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for blob in &staged {
            let (digest, text) = (blob.digest(), blob.digest().to_string());
            let has_record = docker.contains(&digest) || self.load::<BlobRecord>(Table::Blobs, &text)?.is_some();
            if !has_record || !self.store.content.has(&digest) {
                writes.push(self.put(Table::Blobs, &text, &BlobRecord::now(&Labels::new()))?);
                new.push((digest, blob.size_bytes()));
            }
            resources.push(Resource { kind: "content".to_owned(), id: text });
        }
        writes.push(self.with_resources(lease, resources)?);
        self.store.content.keep(staged)?;
        self.write(writes)?;
        Ok(new)
    }

    /// Content that is here, under whatever tenant, becomes a blob of this one, held by the lease. False when it is not here.
    ///
    /// # Errors
    /// `NotFound` for the lease.
    pub fn hold_blob(&self, expected: Expectation, labels: &Labels, lease: &str) -> Result<bool> {
        if !self.store.content.size(&expected.digest).is_ok_and(|size| size == expected.size_bytes) {
            return Ok(false);
        }
        match self.keep(expected.digest, None, labels, Some(lease)) {
            Ok(_) => Ok(true),
            // Collected in the meantime.
            Err(error) if error.class() == ErrorClass::NotFound && !self.store.content.has(&expected.digest) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads content to its end and keeps it as a blob, held by the lease. Tells whether the tenant did not have it before.
    ///
    /// # Errors
    /// `InvalidArgument` when it is not what it must be; `NotFound` for the lease.
    pub fn take_blob(
        &self,
        expected: Expectation,
        content: &mut dyn std::io::Read,
        labels: &Labels,
        lease: &str,
    ) -> Result<bool> {
        if self.hold_blob(expected, labels, lease)? {
            return Ok(false);
        }
        let wanted = Expected { digest: Some(expected.digest), size_bytes: Some(expected.size_bytes) };
        let reference = format!("take-{lease}-{}", expected.digest);
        let writer = match self.write_blob(&reference, wanted, Some(lease))? {
            shared @ BlobWriter::Shared(_) => shared,
            ingest => {
                ingest.restart()?;
                copy_into(&ingest, content, &expected.digest)?;
                ingest
            }
        };
        match self.commit_blob(writer, wanted, labels, Some(lease)) {
            Err(ImageError::Exists { .. }) => self.hold_blob(expected, labels, lease).map(|_| false),
            other => other.map(|_| true),
        }
    }

    /// Keeps what `produce` writes as a blob; its digest and size. The tenant may have had it before.
    ///
    /// # Errors
    /// Those of `produce`; `NotFound` for the lease.
    pub fn keep_written(
        &self,
        reference: &str,
        lease: Option<&str>,
        produce: impl FnOnce(&mut dyn std::io::Write) -> Result<()>,
    ) -> Result<(Digest, u64)> {
        let writer = self.write_blob(reference, Expected::default(), lease)?;
        writer.restart()?;
        let failed = |source| ImageError::Io { operation: "write", object: reference.to_owned(), source };
        let mut buffered = std::io::BufWriter::with_capacity(COPY_BYTES, Appending(&writer));
        produce(&mut buffered)?;
        std::io::Write::flush(&mut buffered).map_err(failed)?;
        drop(buffered);
        let BlobWriter::Ingest(ingest) = writer else {
            return Err(ImageError::Invalid { what: "write", why: "nothing was expected".to_owned() });
        };
        let staged = ingest.finish(Expected::default())?;
        staged.flush()?;
        let (digest, size) = (staged.digest(), staged.size_bytes());
        self.keep_blob(staged, &Labels::new(), lease)?;
        Ok((digest, size))
    }

    /// Tells whether the tenant had it already.
    fn keep(&self, digest: Digest, staged: Option<Staged>, labels: &Labels, lease: Option<&str>) -> Result<bool> {
        let _changing = self.store.lock();
        let is_known = self.find_blob(&digest)?.is_some();
        match staged {
            Some(staged) => self.store.content.keep([staged])?,
            None if !self.store.content.has(&digest) => return Err(unknown("content", digest)),
            None => {}
        }
        let mut writes = Vec::new();
        if !is_known {
            writes.push(self.put(Table::Blobs, &digest.to_string(), &BlobRecord::now(labels))?);
        }
        if let Some(lease) = lease {
            let resource = Resource { kind: "content".to_owned(), id: digest.to_string() };
            writes.push(self.with_resource(lease, resource)?);
        }
        self.write(writes)?;
        Ok(is_known)
    }

    /// # Errors
    /// `NotFound`.
    pub fn ingest_status(&self, reference: &str) -> Result<IngestStatus> {
        Ok(self.store.content.ingest_status(self.name, reference)?)
    }

    /// # Errors
    /// When the directory cannot be read.
    pub fn ingest_statuses(&self) -> Result<Vec<IngestStatus>> {
        Ok(self.store.content.ingest_statuses(Some(self.name))?)
    }

    /// # Errors
    /// `NotFound`; `Unavailable` while somebody has it open.
    pub fn abort_ingest(&self, reference: &str) -> Result<()> {
        Ok(self.store.content.abort(self.name, reference)?)
    }

    pub(super) fn find_blob(&self, digest: &Digest) -> Result<Option<BlobInfo>> {
        let record = match self.load::<BlobRecord>(Table::Blobs, &digest.to_string())? {
            Some(record) => Some(record),
            None if self.docker_blobs()?.contains(digest) => {
                // Known by its images alone: it has been as it is since its bytes came.
                let Ok(created) = self.store.content.created(digest) else { return Ok(None) };
                Some(BlobRecord { created_ns: created.0, updated_ns: created.0, labels: self.docker_labels(digest)? })
            }
            None => None,
        };
        Ok(record.and_then(|record| self.blob_info(digest, record)))
    }

    /// `None`: its bytes are not here.
    fn blob_info(&self, digest: &Digest, record: BlobRecord) -> Option<BlobInfo> {
        Some(BlobInfo {
            digest: *digest,
            size_bytes: self.store.content.size(digest).ok()?,
            created: Timestamp(record.created_ns),
            updated: Timestamp(record.updated_ns),
            labels: record.labels,
        })
    }

    /// Blobs of the Docker face's images, which its tenant sees.
    fn docker_blobs(&self) -> Result<BTreeSet<Digest>> {
        if !self.is_docker() {
            return Ok(BTreeSet::new());
        }
        Ok(self.store.records()?.into_iter().flat_map(|(id, record)| record.blobs(id).collect::<Vec<_>>()).collect())
    }

    /// The labels a client would have set: what a manifest and a config lead to, and what a layer unpacks to.
    fn docker_labels(&self, digest: &Digest) -> Result<Labels> {
        let mut labels = Labels::new();
        for (id, record) in self.store.records()? {
            if record.manifest == *digest {
                labels.insert("containerd.io/gc.ref.content.config".to_owned(), id.to_string());
                for (n, layer) in record.layers.iter().enumerate() {
                    labels.insert(format!("containerd.io/gc.ref.content.l.{n}"), layer.blob.to_string());
                }
            }
            if let (true, Some(top)) = (id == *digest, record.chain_ids().last()) {
                labels.insert("containerd.io/gc.ref.snapshot.overlayfs".to_owned(), top.to_string());
            }
            if let Some(layer) = record.layers.iter().find(|layer| layer.blob == *digest) {
                labels.insert("containerd.io/uncompressed".to_owned(), layer.diff_id.to_string());
            }
        }
        Ok(labels)
    }

    fn shared_status(&self, reference: &str, digest: Digest, size: u64) -> IngestStatus {
        let now = Timestamp::now();
        IngestStatus {
            namespace: self.name.to_owned(),
            reference: reference.to_owned(),
            offset: size,
            bytes: size,
            total: Some(size),
            expected: Some(digest),
            started: now,
            updated: now,
        }
    }
}
