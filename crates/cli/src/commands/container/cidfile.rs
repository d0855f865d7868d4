//! `--cidfile`: a new file with the container's id; it goes when the container does not come to be.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use crate::failure::{Failure, Outcome};

/// The file, empty until the id is known; removed when dropped before.
#[derive(Debug)]
pub(super) struct CidFile {
    path: PathBuf,
    file: File,
    is_kept: bool,
}

impl CidFile {
    /// Fails when the file exists: another container may be behind it.
    pub(super) fn create(path: &str) -> Outcome<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(path).map_err(|error| {
            let failure = Failure::new(format!("cannot create --cidfile {path:?}")).because(&error);
            if error.kind() == std::io::ErrorKind::AlreadyExists {
                return failure.hint("remove it, or name another file");
            }
            failure
        })?;
        Ok(Self { path: PathBuf::from(path), file, is_kept: false })
    }

    pub(super) fn keep(mut self, id: &str) -> Outcome<()> {
        self.file
            .write_all(id.as_bytes())
            .map_err(|error| Failure::new(format!("cannot write --cidfile {}", self.path.display())).because(&error))?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for CidFile {
    fn drop(&mut self) {
        if !self.is_kept {
            // The failure that brought us here is the one to report.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn life() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cid").display().to_string();
        drop(CidFile::create(&path).unwrap());
        assert!(!PathBuf::from(&path).exists());
        CidFile::create(&path).unwrap().keep("abc").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "abc");
        let failure = CidFile::create(&path).unwrap_err();
        assert_eq!(failure.message, format!("cannot create --cidfile {path:?}"));
        assert_eq!(failure.exit_code, 125);
    }
}
