//! Tar archives as layers and `cp` use them: a strict reader, a deterministic writer and what lies between. No file system, no paths: names
//! are bytes and may be anything; whoever extracts decides about them.
//!
//! The reader takes ustar, v7, star, GNU (long names, old sparse files) and PAX (all three sparse forms), and reads every archive in exactly
//! one way, the way the field's reference implementation (Go's archive/tar) does: a PAX `size` always counts, types without data have none whatever their
//! header says. Where implementations are known to disagree the archive is refused instead: two long names for one entry, `size` or names in a
//! global header, records of a wrong length, a lone zero block. Nothing is allocated by a number that the archive gives, beyond 1 MiB.

mod entry;
mod header;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use entry::{Entry, EntryKind, Mtime, Xattr};
pub use reader::TarReader;
pub use writer::TarWriter;

use std::io;

use berth_types::{Classify, ErrorClass};

pub(crate) const BLOCK: usize = 512;
/// The most that a long name, a set of PAX records or a sparse map may take (the reference's limit too).
pub(crate) const META_SIZE_MAX: u64 = 1 << 20;

/// An archive cannot be read or written. Entries are counted from 1.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    #[error("cannot read the archive at entry {entry}")]
    Read { entry: u64, source: io::Error },
    #[error("the archive ends in the middle of entry {entry}")]
    Truncated { entry: u64 },
    #[error("the archive is invalid at entry {entry}: {why}")]
    Invalid { entry: u64, why: &'static str },
    #[error("entry {entry} of the archive has type {kind:?}, which is not supported")]
    Kind { entry: u64, kind: char },
    #[error("cannot write the archive")]
    Write { source: io::Error },
    #[error("{name:?} cannot be written to an archive: {why}")]
    Unwritable { name: String, why: &'static str },
}

impl Classify for TarError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Truncated { .. } | Self::Invalid { .. } | Self::Unwritable { .. } => ErrorClass::InvalidArgument,
            Self::Kind { .. } => ErrorClass::Unimplemented,
            Self::Read { source, .. } | Self::Write { source } => match source.kind() {
                io::ErrorKind::StorageFull => ErrorClass::ResourceExhausted,
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => {
                    ErrorClass::InvalidArgument
                }
                io::ErrorKind::BrokenPipe => ErrorClass::Aborted,
                _ => ErrorClass::Internal,
            },
        }
    }
}

#[cfg(test)]
mod tests;
