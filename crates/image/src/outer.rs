//! The tar around an image, on top of `tar_stream`: names are checked as text and never become paths of this host; only files, directories
//! and links between members have a place in it.

use std::io::Read;

use crate::tar_stream::{Entry, EntryKind, TarReader};
use crate::{ImageError, Result};

const NAME_BYTES_MAX: usize = 1024;
const ENTRIES_MAX: u32 = 65_536;

/// One member of the archive. Names are relative, without `.` and `..`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its content follows: take [`Outer::next_piece`] to its end.
    File,
    Directory,
    /// The name of another member.
    Link {
        target: String,
    },
}

/// Reader of the members in order.
pub(crate) struct Outer<'r> {
    tar: TarReader<'r>,
    entries: u32,
    /// How much of the current file was given out.
    given: u64,
}

impl<'r> Outer<'r> {
    pub(crate) fn new(source: &'r mut dyn Read) -> Self {
        Self { tar: TarReader::new(source), entries: 0, given: 0 }
    }

    /// The next member; what was not read of the last one is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Member>> {
        if !self.tar.next_entry()? {
            return Ok(None);
        }
        self.given = 0;
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return Err(ImageError::archive(format!("it has more than {ENTRIES_MAX} entries")));
        }
        member(self.tar.entry()).map(Some)
    }

    /// The next bytes of the file that `next` returned last; `None` at its end.
    pub(crate) fn next_piece(&mut self) -> Result<Option<&[u8]>> {
        let size = self.tar.entry().size;
        let sparse = || ImageError::archive("it has a sparse entry, which has no place there");
        match self.tar.next_piece()? {
            Some((offset, _)) if offset != self.given => Err(sparse()),
            Some((_, bytes)) => {
                self.given += bytes.len() as u64;
                Ok(Some(bytes))
            }
            None if self.given != size => Err(sparse()),
            None => Ok(None),
        }
    }
}

fn member(entry: &Entry) -> Result<Member> {
    let name = inside(&entry.path)?;
    let kind = match entry.kind {
        EntryKind::File => Kind::File,
        EntryKind::Directory => Kind::Directory,
        EntryKind::Symlink => Kind::Link { target: link_target(&name, &entry.link)? },
        EntryKind::HardLink => Kind::Link { target: inside(&entry.link)? },
        other => return Err(ImageError::archive(format!("entry {name:?} is a {other:?}, which has no place there"))),
    };
    Ok(Member { name, kind })
}

/// A member's name, normal form. Absolute names and `..` are refused (CVE-2014-9356).
fn inside(raw: &[u8]) -> Result<String> {
    let text = text_of(raw)?;
    let escapes = || ImageError::archive(format!("entry name {text:?} leads out of the archive"));
    if text.starts_with('/') {
        return Err(escapes());
    }
    let mut parts = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(escapes()),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// Where a symbolic link leads, as a member's name. It may go up, but not out.
fn link_target(name: &str, raw: &[u8]) -> Result<String> {
    let text = text_of(raw)?;
    let escapes = || ImageError::archive(format!("link {name:?} leads out of the archive"));
    if text.starts_with('/') {
        return Err(escapes());
    }
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(escapes)?;
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

fn text_of(raw: &[u8]) -> Result<&str> {
    let text = std::str::from_utf8(raw).ok().filter(|text| !text.contains('\0') && raw.len() <= NAME_BYTES_MAX);
    text.ok_or_else(|| ImageError::archive("an entry name is not text, or too long"))
}

#[cfg(test)]
mod tests {
    use tar::{EntryType, Header};

    use super::*;

    const BLOCK: usize = 512;

    fn header(kind: EntryType, name: &str, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        header
    }

    fn entry(kind: EntryType, name: &str, body: &[u8]) -> Vec<u8> {
        let mut bytes = header(kind, name, body.len() as u64).as_bytes().to_vec();
        bytes.extend_from_slice(body);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    fn link(kind: EntryType, name: &str, target: &str) -> Vec<u8> {
        let mut header = header(kind, name, 0);
        header.set_link_name_literal(target).unwrap();
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    fn read(mut bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
        let mut outer = Outer::new(&mut bytes);
        let mut found = Vec::new();
        while let Some(member) = outer.next()? {
            let mut body = Vec::new();
            match member.kind {
                Kind::File => {
                    while let Some(piece) = outer.next_piece()? {
                        body.extend_from_slice(piece);
                    }
                }
                Kind::Directory => body = b"/".to_vec(),
                Kind::Link { target } => body = format!("-> {target}").into_bytes(),
            }
            found.push((member.name, body));
        }
        Ok(found)
    }

    #[test]
    fn members_in_order() {
        let long = "d/".repeat(80) + "x";
        let bytes = [
            entry(EntryType::Directory, "./a/", b""),
            entry(EntryType::Regular, "./a/b", &[7; 700]),
            link(EntryType::Symlink, "c/layer.tar", "../a/b"),
            link(EntryType::Link, "d", "a/b"),
            entry(EntryType::GNULongName, "././@LongLink", format!("{long}\0").as_bytes()),
            entry(EntryType::Regular, "short", b"1"),
            entry(EntryType::XHeader, "pax", b"12 path=e/f\n10 size=3\n"),
            entry(EntryType::Regular, "other", b"123"),
            vec![0; 1024 + 9216],
        ];
        let found = read(&bytes.concat()).unwrap();
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "a/b", "c/layer.tar", "d", &long, "e/f"]);
        assert_eq!(found[1].1, [7; 700]);
        assert_eq!(found[2].1, b"-> a/b");
        assert_eq!(found[5].1, b"123");
    }

    /// CVE-2014-9356, CVE-2014-9358: names and links that lead out of the archive.
    #[test]
    fn cve_2014_9356_names_that_lead_out() {
        for name in ["../x", "/etc/passwd", "a/../../x", "a/.."] {
            let error = read(&entry(EntryType::Regular, name, b"")).unwrap_err();
            assert!(error.to_string().contains("leads out of the archive"), "{error}");
        }
        for (name, target) in [("a/l", "../../x"), ("l", "/etc/passwd"), ("l", "..")] {
            assert!(read(&link(EntryType::Symlink, name, target)).is_err(), "{target}");
        }
        assert!(read(&link(EntryType::Link, "l", "../x")).is_err());
    }

    /// CVE-2017-14992: lengths in headers do not allocate.
    #[test]
    fn cve_2017_14992_huge_headers() {
        for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader, EntryType::XGlobalHeader] {
            assert!(read(header(kind, "x", u64::MAX >> 2).as_bytes()).is_err());
        }
        assert!(read(header(EntryType::Regular, "x", u64::MAX >> 1).as_bytes()).is_err());
    }

    #[test]
    fn what_has_no_place_is_refused() {
        for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo] {
            assert!(read(header(kind, "x", 0).as_bytes()).is_err());
        }
        let sparse = b"22 GNU.sparse.major=0\n22 GNU.sparse.minor=1\n24 GNU.sparse.size=9999\n22 GNU.sparse.map=5,3\n";
        let sparse = [entry(EntryType::XHeader, "pax", sparse), entry(EntryType::Regular, "x", b"123")].concat();
        assert!(read(&sparse).is_err());
        let whole = entry(EntryType::Regular, "x", &[1; 600]);
        for cut in [1, 511, 513, 1100] {
            assert!(read(&whole[..cut]).is_err(), "{cut}");
        }
        let mut flipped = whole;
        flipped[3] ^= 1;
        assert!(read(&flipped).is_err());
    }
}
