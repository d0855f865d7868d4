//! Container to host. The archive comes from inside the container: nothing in it may leave the destination.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use berth_types::ByteCount;
use rustix::fs::{CWD, RenameFlags};

use super::local::{LocalSource, copy_pieces, existing};
use super::{Arguments, Landing, Place, archive_path, landing, link_target, path_stat, split_path, stat};
use crate::client::{Payload, Response};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{ByteProgress, ProgressReader};

pub(super) fn copy(cx: &mut Context, arguments: &Arguments, container: &str, path: &str, to: &Place<'_>) -> Outcome {
    let mut path = path.to_owned();
    let mut new_name = None;
    if arguments.follow_link
        && let Some(found) = stat(cx, container, &path)?.filter(|found| found.is_link)
    {
        new_name = Some(split_path(&path).1);
        path = link_target(&path, &found.link_target);
    }
    let response = cx.client.stream("GET", &archive_path(container, &path)?.build(), Payload::Nothing)?;
    let found = path_stat(&response)?;
    match to {
        Place::Stream => to_stdout(cx, response),
        Place::Local(destination) => {
            let is_quiet = arguments.quiet || !cx.out.is_error_terminal;
            let progress = ByteProgress::new(&cx.out, "copying", None, is_quiet);
            let mut reader = ProgressReader { inner: response, progress };
            // The archive's entries begin with the last name of the path that was asked for.
            let top = split_path(&path).1;
            let source = Source { top, name: new_name, is_directory: found.is_directory };
            unpack(&mut reader, &source, destination, arguments.archive)?;
            let moved = reader.progress.moved();
            drop(reader);
            if !is_quiet {
                cx.out.notice(format!("Successfully copied {} to {destination}", ByteCount(moved)));
            }
            Ok(0)
        }
        Place::Container(..) => Err(Failure::new("both sides are in containers")),
    }
}

fn to_stdout(cx: &mut Context, mut response: Response) -> Outcome {
    if cx.out.is_terminal {
        return Err(Failure::new("not writing a tar archive to a terminal").hint("redirect stdout, or name a path"));
    }
    let mut buffer = vec![0; 64 << 10];
    loop {
        match response.read(&mut buffer)? {
            0 => return Ok(0),
            length => cx.out.write(&buffer[..length])?,
        }
    }
}

/// What the archive holds: entries below `top`, to be called `name` when a link was followed.
struct Source {
    top: String,
    name: Option<String>,
    is_directory: bool,
}

fn unpack(reader: &mut impl Read, source: &Source, destination: &str, keeps_owners: bool) -> Outcome<()> {
    let place = landing(source.is_directory, destination, existing(destination)?)?;
    match (place, &source.name) {
        (Landing::Inside(directory), None) if !source.is_directory => {
            unpack_as(reader, source, &directory, &source.top, keeps_owners)
        }
        (Landing::Inside(directory), None) => unpack_into(reader, Path::new(&directory), keeps_owners),
        (Landing::Inside(directory), Some(name)) => unpack_as(reader, source, &directory, name, keeps_owners),
        (Landing::Renamed { directory, name }, _) => unpack_as(reader, source, &directory, &name, keeps_owners),
    }
}

fn archive<R: Read>(reader: R, keeps_owners: bool) -> tar::Archive<R> {
    let mut archive = tar::Archive::new(reader);
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(true);
    archive.set_preserve_ownerships(keeps_owners);
    archive.set_overwrite(true);
    archive
}

/// The tar crate refuses entries that leave the directory, by `..` or through links.
fn unpack_into(mut reader: impl Read, directory: &Path, keeps_owners: bool) -> Outcome<()> {
    let failed = |error: &io::Error| Failure::new(format!("cannot unpack into {}", directory.display())).because(error);
    archive(&mut reader, keeps_owners).unpack(directory).map_err(|error| failed(&error))?;
    // The archive's end marker is not the stream's end; a cut stream must be seen.
    io::copy(&mut reader, &mut io::sink()).map(drop).map_err(|error| failed(&error))
}

/// Unpacks beside the destination, then renames: the new name appears complete or not at all.
fn unpack_as(reader: &mut impl Read, source: &Source, directory: &str, name: &str, keeps_owners: bool) -> Outcome<()> {
    let target = Path::new(directory).join(name);
    let failed = |error: &io::Error| Failure::new(format!("cannot write {}", target.display())).because(error);
    let staging = Path::new(directory).join(format!(".{name}.berth-cp-{}", std::process::id()));
    fs::create_dir(&staging).map_err(|error| failed(&error))?;
    let unpacked = match source.is_directory {
        true => unpack_into(reader, &staging, keeps_owners),
        false => unpack_one(reader, &staging, keeps_owners),
    };
    let moved = unpacked.and_then(|()| {
        let is_whole = source.top == "." || source.top == "/";
        let unpacked = if is_whole { staging.clone() } else { staging.join(&source.top) };
        if source.is_directory && target.is_dir() {
            return merge(unpacked, directory, name, keeps_owners);
        }
        put_in_place(&unpacked, &target).map_err(|error| failed(&error))
    });
    // Renamed away when the whole of it was the copy; otherwise an empty directory, or what a failure left.
    if staging.exists() {
        fs::remove_dir_all(&staging).map_err(|error| failed(&error)).or(moved.clone())?;
    }
    moved
}

/// Unpacks what is one entry: a file's data in large pieces.
fn unpack_one(mut reader: impl Read, directory: &Path, keeps_owners: bool) -> Outcome<()> {
    let failed = |error: &io::Error| Failure::new(format!("cannot unpack into {}", directory.display())).because(error);
    let mut archive = archive(&mut reader, keeps_owners);
    for entry in archive.entries().map_err(|error| failed(&error))? {
        let mut entry = entry.map_err(|error| failed(&error))?;
        let unpacked = match entry.header().entry_type().is_file() {
            true => unpack_file(&mut entry, directory, keeps_owners),
            false => entry.unpack_in(directory).map(drop),
        };
        unpacked.map_err(|error| failed(&error))?;
    }
    io::copy(&mut reader, &mut io::sink()).map(drop).map_err(|error| failed(&error))
}

/// The entry as a new file right in the directory: nothing else could be meant, whatever its name says.
fn unpack_file(entry: &mut tar::Entry<'_, impl Read>, directory: &Path, keeps_owners: bool) -> io::Result<()> {
    let header = entry.header().clone();
    let path = entry.path()?.into_owned();
    let name = path.file_name().filter(|name| path.as_os_str() == *name);
    let name = name.ok_or_else(|| io::Error::other(format!("the archive has {} for a file", path.display())))?;
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(directory.join(name))?;
    let copied = copy_pieces(entry, &mut file)?;
    if copied != entry.size() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} was cut short", path.display())));
    }
    if keeps_owners {
        let id = |id: u64| u32::try_from(id).map_err(|_| io::Error::other(format!("no owner has the number {id}")));
        std::os::unix::fs::fchown(&file, Some(id(header.uid()?)?), Some(id(header.gid()?)?))?;
    }
    file.set_permissions(Permissions::from_mode(header.mode()? & 0o7777))?;
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(header.mtime()?))
}

/// Renames. A file that is there already is exchanged with the new one and goes with the staging directory: nobody sees neither, and no file
/// system writes the new one out just because it replaces an old one (ext4's `auto_da_alloc`).
fn put_in_place(unpacked: &Path, target: &Path) -> io::Result<()> {
    let is_file = fs::symlink_metadata(target).is_ok_and(|found| found.is_file());
    if is_file && rustix::fs::renameat_with(CWD, unpacked, CWD, target, RenameFlags::EXCHANGE).is_ok() {
        return Ok(());
    }
    fs::rename(unpacked, target)
}

/// Packs a directory once more under its new name, into the one that is there.
fn merge(unpacked: PathBuf, directory: &str, name: &str, keeps_owners: bool) -> Outcome<()> {
    let failed = |error: &io::Error| Failure::new(format!("cannot copy into {directory}/{name}")).because(error);
    let packed_path = unpacked.with_extension("berth-cp.tar");
    let mut packed =
        File::options().create_new(true).read(true).write(true).open(&packed_path).map_err(|e| failed(&e))?;
    fs::remove_file(&packed_path).map_err(|error| failed(&error))?;
    let source = LocalSource { path: unpacked, name: name.to_owned(), is_directory: true };
    source.write_tar(name, true, &mut packed).and_then(|()| packed.rewind()).map_err(|error| failed(&error))?;
    unpack_into(&mut packed, Path::new(directory), keeps_owners)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_of(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            if path.ends_with('/') {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o755);
            }
            header.set_size(text.len() as u64);
            builder.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn source(top: &str, is_directory: bool) -> Source {
        Source { top: top.to_owned(), name: None, is_directory }
    }

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_and_directories_land_as_docker_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let file = tar_of(&[("hosts", "x")]);
        unpack(&mut file.as_slice(), &source("hosts", false), dir.path().to_str().unwrap(), false).unwrap();
        unpack(&mut file.as_slice(), &source("hosts", false), &at("renamed"), false).unwrap();
        unpack(&mut file.as_slice(), &source("hosts", false), &at("renamed"), false).unwrap();
        let tree = tar_of(&[("site/", ""), ("site/a", "1")]);
        unpack(&mut tree.as_slice(), &source("site", true), &at("new"), false).unwrap();
        let contents = tar_of(&[("./", ""), ("./b", "2")]);
        unpack(&mut contents.as_slice(), &source(".", true), &at("new"), false).unwrap();
        unpack(&mut contents.as_slice(), &source(".", true), &at("fresh"), false).unwrap();
        assert_eq!(names(dir.path()), ["fresh", "hosts", "new", "renamed"]);
        assert_eq!(names(&dir.path().join("new")), ["a", "b"]);
        assert_eq!(names(&dir.path().join("fresh")), ["b"]);
        let failure = unpack(&mut tree.as_slice(), &source("site", true), &at("renamed"), false).unwrap_err();
        assert!(failure.message.starts_with("cannot copy a directory onto the file"));
        let failure = unpack(&mut file.as_slice(), &source("hosts", false), &at("none/"), false).unwrap_err();
        assert!(failure.message.ends_with("does not exist"));
    }

    #[test]
    fn a_followed_link_merges_into_the_directory_of_its_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("link")).unwrap();
        fs::write(dir.path().join("link/old"), "").unwrap();
        let tree = tar_of(&[("site/", ""), ("site/a", "1")]);
        let followed = Source { name: Some("link".to_owned()), ..source("site", true) };
        unpack(&mut tree.as_slice(), &followed, dir.path().to_str().unwrap(), false).unwrap();
        assert_eq!(names(dir.path()), ["link"]);
        assert_eq!(names(&dir.path().join("link")), ["a", "old"]);
    }

    #[test]
    fn nothing_leaves_the_destination() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("inside");
        fs::create_dir(&inside).unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "link", dir.path()).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(1);
        builder.append_data(&mut header, "link/out", "x".as_bytes()).unwrap();
        let hostile = builder.into_inner().unwrap();
        let outcome = unpack(&mut hostile.as_slice(), &source("link", false), inside.to_str().unwrap(), false);
        assert!(outcome.is_err());
        assert_eq!(names(dir.path()), ["inside"]);
    }

    #[test]
    fn a_cut_archive_leaves_nothing_under_the_new_name() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("new").display().to_string();
        let tree = tar_of(&[("site/", ""), ("site/a", &"1".repeat(5000))]);
        assert!(unpack(&mut &tree[..2000], &source("site", true), &target, false).is_err());
        assert!(names(dir.path()).is_empty());
    }
}
