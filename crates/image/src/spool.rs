//! First pass over an archive: every file of it becomes staged content, hashed while it is written; nothing is interpreted yet.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use berth_content::{ContentStore, Expected, Ingest, Staged};
use berth_types::Digest;

use crate::outer::{Kind, Outer};
use crate::{ImageError, Result};

/// Links that lead to links.
const LINK_DEPTH_MAX: u32 = 8;
/// Names of members and targets of links together, and documents that are read: what a small archive can have very many of.
const NAME_BYTES_MAX: usize = 8 << 20;
const DOCUMENT_BYTES_MAX: u64 = 24 << 20;
/// `tar` fills up its last record, whose size can be chosen.
const PADDING_BYTES_MAX: u64 = 16 << 20;

#[derive(Debug, Clone)]
enum Member {
    File(Digest),
    Link(String),
}

/// The members of an archive by name, and their contents by digest.
#[derive(Debug, Default)]
pub(crate) struct Spool {
    members: BTreeMap<String, Member>,
    contents: HashMap<Digest, Staged>,
    name_bytes: usize,
    document_bytes: Cell<u64>,
}

impl Spool {
    /// Reads the tar to its end, and the stream behind it.
    pub(crate) fn fill(content: &ContentStore, tar: &mut dyn Read) -> Result<Self> {
        let mut spool = Self::default();
        let mut outer = Outer::new(tar);
        while let Some(entry) = outer.next()? {
            let member = match entry.kind {
                Kind::Directory => continue,
                Kind::Link { target } => Member::Link(target),
                Kind::File => {
                    let mut ingest = content.begin()?;
                    while let Some(piece) = outer.next_piece()? {
                        ingest.append(piece)?;
                    }
                    Member::File(spool.stage(&entry.name, ingest)?)
                }
            };
            spool.name_bytes += entry.name.len() + if let Member::Link(target) = &member { target.len() } else { 0 };
            if spool.name_bytes > NAME_BYTES_MAX {
                return Err(ImageError::archive(format!("the names in it have more than {NAME_BYTES_MAX} bytes")));
            }
            if spool.members.contains_key(&entry.name) {
                return Err(ImageError::archive(format!("it has two entries named {:?}", entry.name)));
            }
            spool.members.insert(entry.name, member);
        }
        drop(outer);
        drain(tar)?;
        Ok(spool)
    }

    /// A file in `blobs/sha256/` must be what its name says; others are whatever they are.
    fn stage(&mut self, name: &str, ingest: Ingest) -> Result<Digest> {
        let staged = ingest.finish(Expected::default())?;
        let digest = staged.digest();
        if let Some(stated) = name.strip_prefix("blobs/sha256/") {
            let expected = Digest::from_hex(stated).map_err(|e| ImageError::archive(format!("bad blob name: {e}")))?;
            if expected != digest {
                return Err(ImageError::WrongDigest { what: format!("blob {name}"), expected, found: digest });
            }
        }
        self.contents.entry(digest).or_insert(staged);
        Ok(digest)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// The content of a member, links to other members followed.
    pub(crate) fn follow(&self, name: &str) -> Result<&Staged> {
        let mut at = name;
        for _ in 0..LINK_DEPTH_MAX {
            match self.members.get(at) {
                Some(Member::File(digest)) => {
                    return self.content(digest).ok_or_else(|| ImageError::archive(format!("it lacks {at:?}")));
                }
                Some(Member::Link(target)) => at = target,
                None => return Err(ImageError::archive(format!("it lacks {at:?}"))),
            }
        }
        Err(ImageError::archive(format!("{name:?} is a link to a link without end")))
    }

    /// What is named as a blob of an OCI layout.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = Digest> {
        let below = self.members.range("blobs/".to_owned()..).take_while(|(name, _)| name.starts_with("blobs/"));
        below.filter_map(|(_, member)| match member {
            Member::File(digest) => Some(*digest),
            Member::Link(_) => None,
        })
    }

    /// A document of the archive: a plain file, never a link (CVE-2014-9356).
    pub(crate) fn document(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>> {
        if let Some(Member::Link(_)) = self.members.get(name) {
            return Err(ImageError::archive(format!("{name:?} is a link")));
        }
        self.read_document(self.follow(name)?, name, bytes_max)
    }

    /// A document by digest, as a descriptor names it.
    pub(crate) fn blob_document(&self, digest: &Digest, what: &str, bytes_max: u64) -> Result<Vec<u8>> {
        self.read_document(self.blob(digest, what)?, what, bytes_max)
    }

    /// One document named very often costs as much as many: all that is read counts.
    fn read_document(&self, staged: &Staged, what: &str, bytes_max: u64) -> Result<Vec<u8>> {
        if staged.size_bytes() > bytes_max {
            return Err(ImageError::TooLarge { what: format!("{what} of the archive"), bytes_max });
        }
        self.document_bytes.set(self.document_bytes.get() + staged.size_bytes());
        if self.document_bytes.get() > DOCUMENT_BYTES_MAX {
            let what = "documents of the archive, each as often as it is named,".to_owned();
            return Err(ImageError::TooLarge { what, bytes_max: DOCUMENT_BYTES_MAX });
        }
        Ok(staged.read(bytes_max)?)
    }

    /// A blob an OCI layout must have.
    pub(crate) fn blob(&self, digest: &Digest, what: &str) -> Result<&Staged> {
        let name = format!("blobs/sha256/{}", digest.hex());
        match self.members.get(&name) {
            Some(Member::File(_)) => self.follow(&name),
            Some(Member::Link(_)) => Err(ImageError::archive(format!("{name:?} is a link"))),
            None => Err(ImageError::archive(format!("it lacks {what}, {digest}"))),
        }
    }

    pub(crate) fn content(&self, digest: &Digest) -> Option<&Staged> {
        self.contents.get(digest)
    }

    /// Puts a document of our own beside what was read.
    pub(crate) fn add(&mut self, staged: Staged) {
        self.contents.entry(staged.digest()).or_insert(staged);
    }

    /// The contents that are wanted; the rest is dropped with the spool.
    pub(crate) fn take(&mut self, digest: &Digest) -> Option<Staged> {
        self.contents.remove(digest)
    }
}

/// What follows the end marker is padding. It is read so that a checksum at the very end (gzip) is verified, and so that the sender is not cut off.
fn drain(tar: &mut dyn Read) -> Result<()> {
    let after = std::io::copy(&mut tar.take(PADDING_BYTES_MAX + 1), &mut std::io::sink());
    if after.map_err(ImageError::reading_archive)? > PADDING_BYTES_MAX {
        return Err(ImageError::archive("there is data after its end"));
    }
    Ok(())
}
