//! Local paths of a copy: what is there, and the tar archive of a source.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{Existing, asserts_directory, split_path};
use crate::failure::{Failure, Outcome};

/// What a local destination is, links followed; its parent must be there.
pub(super) fn existing(path: &str) -> Outcome<Existing> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(Existing::Directory),
        Ok(_) if asserts_directory(path) => Err(Failure::new(format!("the destination {path:?} is not a directory"))),
        Ok(_) => Ok(Existing::File),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (directory, _) = split_path(path);
            let parent = if directory.is_empty() { "." } else { &directory };
            if Path::new(parent).is_dir() {
                return Ok(Existing::Nothing);
            }
            Err(Failure::new(format!("the directory {parent:?} of the destination does not exist")))
        }
        Err(error) => Err(Failure::new(format!("cannot look at the destination {path:?}")).because(&error)),
    }
}

/// What an archive is made of.
const BLOCK_BYTES: usize = 512;

/// What is read and written at once.
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// A local source: the path to read, and the name its entries get.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LocalSource {
    pub(super) path: PathBuf,
    pub(super) name: String,
    pub(super) is_directory: bool,
}

impl LocalSource {
    /// A link is copied as a link, unless it is to be followed or the path says that it is a directory.
    pub(super) fn open(text: &str, follow_link: bool) -> Outcome<Self> {
        let failed = |error: &io::Error| Failure::new(format!("cannot read the source {text:?}")).because(error);
        let name = split_path(text).1;
        let follows = follow_link || asserts_directory(text);
        let metadata = if follows { fs::metadata(text) } else { fs::symlink_metadata(text) };
        let metadata = metadata.map_err(|error| failed(&error))?;
        if asserts_directory(text) && !metadata.is_dir() {
            return Err(Failure::new(format!("the source {text:?} is not a directory")));
        }
        let path = if follows { fs::canonicalize(text).map_err(|error| failed(&error))? } else { PathBuf::from(text) };
        let name = match name.as_str() {
            ".." => path.file_name().map_or_else(|| ".".to_owned(), |name| name.to_string_lossy().into_owned()),
            _ => name,
        };
        Ok(Self { path, name, is_directory: metadata.is_dir() })
    }

    /// Writes the archive with entries called `name` and below. Owners become root unless kept.
    pub(super) fn write_tar(&self, name: &str, keeps_owners: bool, out: impl Write) -> io::Result<()> {
        let mut builder = tar::Builder::new(out);
        builder.follow_symlinks(false);
        append(&mut builder, &self.path, Path::new(name), keeps_owners)?;
        builder.finish()
    }
}

/// Depth-first; sockets are left out, as they are dead outside of their process.
fn append(builder: &mut tar::Builder<impl Write>, path: &Path, name: &Path, keeps_owners: bool) -> io::Result<()> {
    let at = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let metadata = fs::symlink_metadata(path).map_err(at)?;
    let kind = metadata.file_type();
    if kind.is_socket() {
        return Ok(());
    }
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&metadata);
    if !keeps_owners {
        header.set_uid(0);
        header.set_gid(0);
    }
    if kind.is_symlink() {
        header.set_size(0);
        return builder.append_link(&mut header, name, fs::read_link(path).map_err(at)?);
    }
    if kind.is_file() {
        let file = fs::File::open(path).map_err(at)?;
        builder.append_data(&mut header, name, io::empty())?;
        // The data by hand, for the crate moves 8 KiB at a time. A file that grows or shrinks meanwhile must not break the archive.
        copy_pieces(&mut Exactly { inner: file, left: metadata.len() }, builder.get_mut()).map_err(at)?;
        let padding = metadata.len().next_multiple_of(BLOCK_BYTES as u64) - metadata.len();
        return builder.get_mut().write_all(&[0; BLOCK_BYTES][..usize::try_from(padding).unwrap_or(0)]);
    }
    header.set_size(0);
    if kind.is_dir() {
        builder.append_data(&mut header, name, io::empty())?;
        let mut children: Vec<PathBuf> =
            fs::read_dir(path).map_err(at)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
        children.sort();
        for child in children {
            let child_name = name.join(child.file_name().unwrap_or_default());
            append(builder, &child, &child_name, keeps_owners)?;
        }
        return Ok(());
    }
    if kind.is_char_device() || kind.is_block_device() {
        header.set_device_major(rustix::fs::major(metadata.rdev()))?;
        header.set_device_minor(rustix::fs::minor(metadata.rdev()))?;
    }
    builder.append_data(&mut header, name, io::empty())
}

/// Copies all there is in pieces that are worth their calls. Returns the number of bytes.
pub(super) fn copy_pieces(from: &mut impl io::Read, to: &mut impl Write) -> io::Result<u64> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut copied = 0;
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(copied),
            Ok(length) => {
                to.write_all(&piece[..length])?;
                copied += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// As many bytes as the header said: cut, or filled with zeros.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: io::Read> io::Read for Exactly<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(out.len());
        if want == 0 {
            return Ok(0);
        }
        let mut length = self.inner.read(&mut out[..want])?;
        if length == 0 {
            out[..want].fill(0);
            length = want;
        }
        self.left -= length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    fn entries(source: &LocalSource, name: &str) -> Vec<String> {
        let mut bytes = Vec::new();
        source.write_tar(name, false, &mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                assert_eq!(entry.header().uid().unwrap(), 0);
                let kind = entry.header().entry_type();
                format!("{} {kind:?} {text}", entry.path().unwrap().display())
            })
            .collect()
    }

    #[test]
    fn archives() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("site")).unwrap();
        fs::write(dir.path().join("site/a"), "1").unwrap();
        symlink("a", dir.path().join("site/l")).unwrap();
        symlink("site", dir.path().join("link")).unwrap();
        let open = |text: &str, follow| LocalSource::open(dir.path().join(text).to_str().unwrap(), follow).unwrap();
        let source = open("site", false);
        assert!(source.is_directory);
        assert_eq!(entries(&source, "new"), ["new Directory ", "new/a Regular 1", "new/l Symlink "]);
        assert_eq!(open("site/.", false).name, ".");
        assert_eq!(entries(&open("site/.", false), "."), [". Directory ", "a Regular 1", "l Symlink "]);
        assert_eq!(entries(&open("link", false), "link"), ["link Symlink "]);
        let followed = open("link", true);
        assert_eq!((followed.name.as_str(), followed.is_directory), ("link", true));
        assert!(LocalSource::open(dir.path().join("site/a/").to_str().unwrap(), false).is_err());
        assert!(LocalSource::open("/nonexistent/x", false).is_err());
    }

    #[test]
    fn destinations() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "").unwrap();
        let check = |name: &str| existing(&format!("{}/{name}", dir.path().display()));
        assert_eq!(check("").unwrap(), Existing::Directory);
        assert_eq!(check("f").unwrap(), Existing::File);
        assert_eq!(check("n").unwrap(), Existing::Nothing);
        assert!(check("f/").is_err());
        assert!(check("none/n").is_err());
    }
}
