//! The tar around an image: its headers, read with bounds. It says what is in the archive and creates nothing; names are checked as text and
//! never become paths of this host. (The tars of layers are read by `layer_apply`.)

use std::io::{self, Read};

use tar::{EntryType, Header, PaxExtensions};

use crate::{ImageError, Result};

const BLOCK: usize = 512;
/// Long names and pax headers (CVE-2017-14992: a header's length must not decide how much is allocated).
const EXTENSION_BYTES_MAX: u64 = 64 << 10;
const NAME_BYTES_MAX: usize = 1024;
const ENTRIES_MAX: u32 = 65_536;
/// Zeros that may follow the end marker: `tar` fills up its last record.
const PADDING_BYTES_MAX: u64 = 1 << 20;

/// One member of the archive. Names are relative, without `.` and `..`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its content follows: read [`Outer::body`].
    File {
        size_bytes: u64,
    },
    Directory,
    /// The name of another member.
    Link {
        target: String,
    },
}

/// Reader of the members in order.
pub(crate) struct Outer<R> {
    source: R,
    body_left: u64,
    padding: u64,
    entries: u32,
}

/// What extension headers said about the next member.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<R: Read> Outer<R> {
    pub(crate) fn new(source: R) -> Self {
        Self { source, body_left: 0, padding: 0, entries: 0 }
    }

    /// The content of the member that `next` returned last.
    pub(crate) fn body(&mut self) -> Body<'_, R> {
        Body { outer: self }
    }

    /// The next member; what was not read of the last one is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                return Err(ImageError::archive(format!("it has more than {ENTRIES_MAX} entries")));
            }
            let size =
                header.entry_size().map_err(|e| ImageError::archive(format!("bad size in a tar header: {e}")))?;
            match header.entry_type() {
                EntryType::GNULongName => extensions.name = Some(self.extension(size)?),
                EntryType::GNULongLink => extensions.link = Some(self.extension(size)?),
                EntryType::XHeader => self.pax(size, &mut extensions)?,
                EntryType::XGlobalHeader => {
                    self.extension(size)?;
                }
                kind => return self.member(&header, kind, extensions.size.unwrap_or(size), &extensions).map(Some),
            }
        }
    }

    fn member(&mut self, header: &Header, kind: EntryType, size: u64, extensions: &Extensions) -> Result<Entry> {
        let raw_name = extensions.name.clone().unwrap_or_else(|| header.path_bytes().into_owned());
        let name = inside(&raw_name)?;
        let kind = match kind {
            EntryType::Regular | EntryType::Continuous => {
                self.start_body(size)?;
                Kind::File { size_bytes: size }
            }
            EntryType::Directory => {
                self.start_body(size)?;
                Kind::Directory
            }
            EntryType::Symlink => Kind::Link { target: link_target(&name, &link_of(header, extensions))? },
            EntryType::Link => Kind::Link { target: inside(&link_of(header, extensions))? },
            other => {
                let why =
                    format!("entry {name:?} is of type {:?}, which has no place there", char::from(other.as_byte()));
                return Err(ImageError::archive(why));
            }
        };
        Ok(Entry { name, kind })
    }

    fn start_body(&mut self, size: u64) -> Result<()> {
        let block = BLOCK as u64;
        let padding = (block - size % block) % block;
        size.checked_add(padding).ok_or_else(|| ImageError::archive("an entry is larger than any file"))?;
        self.body_left = size;
        self.padding = padding;
        Ok(())
    }

    fn header(&mut self) -> Result<Option<Header>> {
        let mut header = Header::new_old();
        if !self.read_block(header.as_mut_bytes())? {
            return Ok(None); // some writers leave the end marker out; what is missing is found out when it is looked for
        }
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            self.finish()?;
            return Ok(None);
        }
        let sum: u32 = header.as_bytes()[..148].iter().chain(&header.as_bytes()[156..]).map(|b| u32::from(*b)).sum();
        match header.cksum() {
            Ok(stated) if stated == sum + 8 * 32 => Ok(Some(header)),
            _ => Err(ImageError::archive("it is no tar archive, or it is damaged: wrong checksum of a header")),
        }
    }

    /// A whole block; `false` at the end of the stream.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool> {
        let mut len = 0;
        while len < BLOCK {
            match self.source.read(&mut block[len..]) {
                Ok(0) if len == 0 => return Ok(false),
                Ok(0) => return Err(ImageError::archive("it ends in the middle of a tar header")),
                Ok(n) => len += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(ImageError::reading_archive(e)),
            }
        }
        Ok(true)
    }

    /// After the end marker only zeros may follow: anything else is an archive in the archive that some readers see.
    fn finish(&mut self) -> Result<()> {
        let mut piece = [0; 8192];
        let mut total = 0;
        loop {
            match self.source.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(n) => {
                    total += n as u64;
                    if total > PADDING_BYTES_MAX || piece[..n].iter().any(|byte| *byte != 0) {
                        return Err(ImageError::archive("there is data after its end"));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(ImageError::reading_archive(e)),
            }
        }
    }

    fn skip_rest(&mut self) -> Result<()> {
        let rest = self.body_left + self.padding;
        self.body_left = 0;
        self.padding = 0;
        let skipped =
            io::copy(&mut self.source.by_ref().take(rest), &mut io::sink()).map_err(ImageError::reading_archive)?;
        if skipped < rest {
            return Err(ImageError::archive("it ends in the middle of an entry"));
        }
        Ok(())
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > EXTENSION_BYTES_MAX {
            let what = "an extended tar header of the archive".to_owned();
            return Err(ImageError::TooLarge { what, bytes_max: EXTENSION_BYTES_MAX });
        }
        self.start_body(size)?;
        let mut bytes = Vec::new();
        self.body().read_to_end(&mut bytes).map_err(ImageError::reading_archive)?;
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        Ok(bytes)
    }

    fn pax(&mut self, size: u64, extensions: &mut Extensions) -> Result<()> {
        let bytes = self.extension(size)?;
        let bad = || ImageError::archive("bad extended tar header");
        for record in PaxExtensions::new(&bytes) {
            let record = record.map_err(|_| bad())?;
            let value = record.value_bytes();
            match record.key_bytes() {
                b"path" => extensions.name = Some(value.to_vec()),
                b"linkpath" => extensions.link = Some(value.to_vec()),
                b"size" => {
                    let text = std::str::from_utf8(value).map_err(|_| bad())?;
                    extensions.size = Some(text.parse().map_err(|_| bad())?);
                }
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(ImageError::archive("it has a sparse entry, which has no place there"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The content of one member.
pub(crate) struct Body<'o, R> {
    outer: &'o mut Outer<R>,
}

impl<R: Read> Read for Body<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.outer.body_left).unwrap_or(usize::MAX).min(buffer.len());
        if left == 0 {
            return Ok(0);
        }
        let n = self.outer.source.read(&mut buffer[..left])?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends in the middle of an entry"));
        }
        self.outer.body_left -= n as u64;
        Ok(n)
    }
}

fn link_of(header: &Header, extensions: &Extensions) -> Vec<u8> {
    extensions.link.clone().unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned())
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
    use super::*;

    fn header(kind: EntryType, name: &str, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
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

    fn read(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
        let mut outer = Outer::new(bytes);
        let mut found = Vec::new();
        while let Some(entry) = outer.next()? {
            let mut body = Vec::new();
            match entry.kind {
                Kind::File { .. } => {
                    outer.body().read_to_end(&mut body).map_err(ImageError::reading_archive)?;
                }
                Kind::Directory => body = b"/".to_vec(),
                Kind::Link { target } => body = format!("-> {target}").into_bytes(),
            }
            found.push((entry.name, body));
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
            let error = read(header(kind, "x", u64::MAX >> 2).as_bytes()).unwrap_err();
            assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
        }
        assert!(read(header(EntryType::Regular, "x", u64::MAX >> 1).as_bytes()).is_err());
    }

    #[test]
    fn what_has_no_place_is_refused() {
        for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo, EntryType::GNUSparse] {
            assert!(read(header(kind, "x", 0).as_bytes()).is_err());
        }
        let whole = entry(EntryType::Regular, "x", &[1; 600]);
        for cut in [1, 511, 513, 1100] {
            assert!(read(&whole[..cut]).is_err(), "{cut}");
        }
        assert!(
            read(&[whole.clone(), vec![0; 1024], whole.clone()].concat()).is_err(),
            "a second archive behind the first"
        );
        let mut flipped = whole;
        flipped[3] ^= 1;
        assert!(read(&flipped).is_err());
    }
}
