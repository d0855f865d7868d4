//! Where a path of an image or container comes from: every layer's say about it, topmost first, and which of them counts.
//!
//! A path is followed as the kernel follows it, in the view that all layers make; a link at its end is told, not followed. What is mounted over it in a
//! container hides what layers have. Layers are looked into by descriptors.

mod way;

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use berth_rootfs::OverlayRootfs;
use berth_types::{Digest, Timestamp};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use serde::{Serialize, Serializer};

use crate::extract::is_whiteout;
use crate::history::layer_lines;
use crate::pack_tree::{failed, is_opaque, open_directory};
use crate::store::ImageStore;
use crate::tar_stream::TarReader;
use crate::{Image, ImageError, Result, compression};
use way::{Seen, Way};

/// What the overlay notes on a file that it copied up; absent on one that was made anew, and where a file with several names was copied.
const ORIGINS: [&str; 2] = ["trusted.overlay.origin", "user.overlay.origin"];
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// All that is known of one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathStory {
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    /// Where links and `..` lead, when that is elsewhere.
    #[serde(serialize_with = "as_text_if_any", skip_serializing_if = "Option::is_none")]
    pub leads_to: Option<PathBuf>,
    /// What is mounted there in the container and hides what layers have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounted: Option<MountPoint>,
    /// Whether somebody who looks sees it now. Below a mount the caller has to look.
    pub is_there: bool,
    /// One sentence for a person.
    pub verdict: String,
    /// What layers say, topmost first; layers that say nothing are left out.
    pub versions: Vec<PathVersion>,
}

/// Something mounted in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MountPoint {
    #[serde(serialize_with = "as_text")]
    pub destination: PathBuf,
    /// In a few words: `volume data`.
    pub what: String,
    /// Its files are there also while the container does not run.
    pub is_kept: bool,
}

fn as_text<S: Serializer>(path: &Path, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&shown(path))
}

#[expect(clippy::ref_option, reason = "as serde calls it")]
fn as_text_if_any<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    path.as_deref().map(shown).serialize(serializer)
}

fn shown(path: &Path) -> String {
    way::escaped(path.as_os_str().as_bytes())
}

/// What one layer says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathVersion {
    /// Number from the bottom, starting at 1; nothing: the container's own layer.
    pub layer: Option<usize>,
    pub diff_id: Option<Digest>,
    /// The line of the image's history that made the layer.
    pub created_by: String,
    pub created: Option<Timestamp>,
    pub what: Say,
    /// What a deletion hit: the path itself or the directory it was in.
    #[serde(serialize_with = "as_text_if_any")]
    pub by: Option<PathBuf>,
    /// `file`, `directory`, `link`, `device`, `fifo`, `socket`.
    pub kind: Option<&'static str>,
    pub size_bytes: Option<u64>,
    pub mode: Option<u32>,
    pub modified: Option<Timestamp>,
    #[serde(serialize_with = "as_text_if_any")]
    pub link_target: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Say {
    Added,
    /// There was something of that name below.
    Changed,
    /// A file of the layer below was opened for writing or its metadata changed.
    CopiedUp,
    /// A directory that is merged with those below.
    Merged,
    DeletedByWhiteout,
    DeletedByOpaque,
    /// What was a directory on the way is something else here.
    DeletedByReplacement,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerListing {
    pub layer: usize,
    pub diff_id: Digest,
    pub blob: Digest,
    pub directory: PathBuf,
    pub size_bytes: u64,
    pub created_by: String,
    /// Names as they are in the layer's archive, in its order; only when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<String>>,
}

impl ImageStore {
    /// Bottom to top.
    ///
    /// # Errors
    /// When a blob cannot be read.
    pub fn layer_listing(&self, image: &Image, with_files: bool) -> Result<Vec<LayerListing>> {
        let lines = layer_lines(image);
        let mut listings = Vec::with_capacity(image.layers.len());
        for (at, layer) in image.layers.iter().enumerate() {
            listings.push(LayerListing {
                layer: at + 1,
                diff_id: layer.diff_id,
                blob: layer.blob,
                directory: layer.directory.clone(),
                size_bytes: layer.size_bytes,
                created_by: lines.get(at).map(|line| line.0.clone()).unwrap_or_default(),
                files: if with_files { Some(self.files_of(&layer.blob)?) } else { None },
            });
        }
        Ok(listings)
    }

    fn files_of(&self, blob: &Digest) -> Result<Vec<String>> {
        let (compression, source) = compression::detect(self.content.reader(blob)?, "a stored layer")?;
        let mut source =
            compression::decoder(compression, source, self.expansion).map_err(ImageError::reading_archive)?;
        let mut reader = TarReader::new(&mut source);
        let mut names = Vec::new();
        while reader.next_entry()? {
            names.push(String::from_utf8_lossy(&reader.entry().path).into_owned());
        }
        Ok(names)
    }

    /// What each layer of an image, and the writable layer of a container on it, says about an absolute path. `mounts`: of that container.
    ///
    /// # Errors
    /// `InvalidArgument` for a path that is not absolute or cannot be followed; what the kernel says about a layer.
    pub fn explain_path(
        &self,
        image: &Image,
        container: Option<&OverlayRootfs>,
        path: &Path,
        mounts: &[MountPoint],
    ) -> Result<PathStory> {
        let lines = layer_lines(image);
        let mut layers = Vec::with_capacity(image.layers.len() + 1);
        for (at, layer) in image.layers.iter().enumerate() {
            let (created_by, created) = lines.get(at).cloned().unwrap_or_default();
            let place = Place { layer: Some(at + 1), diff_id: Some(layer.diff_id), created_by, created };
            layers.push((self.snapshots.layer_dir(&layer.chain_id), place));
        }
        if let Some(upper) = container.and_then(|rootfs| rootfs.upper.clone()) {
            let place = Place { layer: None, diff_id: None, created_by: "the container".to_owned(), created: None };
            layers.push((upper.into(), place));
        }
        let is_layered = self.snapshots.driver().is_layered();
        let story_of = |components: &[OsString]| {
            let components: Vec<&OsStr> = components.iter().map(OsString::as_os_str).collect();
            let mut story = Story { versions: Vec::new(), is_there: false, below: None };
            for (directory, place) in &layers {
                story.look(directory, &components, place, is_layered)?;
            }
            Ok::<_, ImageError>(story)
        };
        let see = |components: &[OsString]| Ok(story_of(components)?.seen());
        let led = |mount: &MountPoint| {
            // One whose place cannot be followed is where it is said to be.
            // A link at the end is followed, too.
            let led = way::follow(&mount.destination.join(""), &[], &see).map(|way| way.path());
            MountPoint { destination: led.unwrap_or_else(|_| mount.destination.clone()), ..mount.clone() }
        };
        let mounts: Vec<MountPoint> = mounts.iter().map(led).collect();
        let way = way::follow(path, &mounts, &see)?;
        let here = way.path();
        let covering = mounts.iter().filter(|mount| here.starts_with(&mount.destination));
        let mount = covering.max_by_key(|mount| mount.destination.components().count());
        Ok(story_of(&way.components)?.tell(path, &way, mount))
    }
}

#[derive(Debug, Clone)]
struct Place {
    layer: Option<usize>,
    diff_id: Option<Digest>,
    created_by: String,
    created: Option<Timestamp>,
}

/// From the bottom up.
struct Story {
    versions: Vec<PathVersion>,
    is_there: bool,
    /// Of the version seen so far.
    below: Option<Stat>,
}

/// What a layer has under a path.
enum Found {
    Nothing,
    /// With the target of a link.
    Thing(Stat, Option<PathBuf>),
    /// The name, or one on the way to it, is marked deleted; how many components lead to the mark.
    Whiteout(usize),
    /// One on the way is no directory.
    NoDirectory(usize),
}

impl Story {
    fn look(&mut self, layer: &Path, components: &[&OsStr], place: &Place, is_layered: bool) -> Result<()> {
        let root = open_directory(layer)?;
        let (found, opaque) = find(&root, components)?;
        let path_to = |count: usize| Path::new("/").join(components[..count].iter().collect::<PathBuf>());
        match found {
            Found::Thing(stat, target) => {
                let is_same = self.below.as_ref().is_some_and(|below| same(below, &stat));
                if !is_layered && self.is_there && is_same {
                    return Ok(());
                }
                let is_directory = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                let is_copy = || place.layer.is_none() && (!is_layered || has_origin(&root, components));
                let what = match self.is_there && opaque.is_none() {
                    false => Say::Added,
                    true if is_directory(&stat) && self.below.as_ref().is_some_and(is_directory) => Say::Merged,
                    true if is_copy() => Say::CopiedUp,
                    true => Say::Changed,
                };
                self.is_there = true;
                self.below = Some(stat);
                self.versions.push(version(place, what, None, Some((&stat, target))));
            }
            Found::Whiteout(count) if self.is_there => self.delete(place, Say::DeletedByWhiteout, path_to(count)),
            Found::NoDirectory(count) if self.is_there => {
                self.delete(place, Say::DeletedByReplacement, path_to(count));
            }
            Found::Nothing if self.is_there => match opaque {
                Some(count) => self.delete(place, Say::DeletedByOpaque, path_to(count)),
                // A whole tree that does not have it.
                None if !is_layered => self.delete(place, Say::DeletedByWhiteout, path_to(components.len())),
                None => {}
            },
            _ => {}
        }
        Ok(())
    }

    fn seen(&self) -> Seen {
        match self.versions.last().filter(|_| self.is_there) {
            None => Seen::Nothing,
            Some(last) => match (last.kind, &last.link_target) {
                (Some("directory"), _) => Seen::Directory,
                (_, Some(target)) => Seen::Link(target.clone()),
                _ => Seen::Other,
            },
        }
    }

    fn delete(&mut self, place: &Place, what: Say, by: PathBuf) {
        self.is_there = false;
        self.below = None;
        self.versions.push(version(place, what, Some(by), None));
    }

    fn tell(mut self, path: &Path, way: &Way, mount: Option<&MountPoint>) -> PathStory {
        self.versions.reverse();
        let here = way.path();
        let mut verdict = self.verdict(&here);
        if let Some(place) = way.no_directory.as_deref().filter(|_| self.is_there || self.versions.is_empty()) {
            self.is_there = false;
            verdict = format!("it is not there: {} is no directory", shown(place));
        }
        if let Some(mount) = mount {
            self.is_there = false;
            let (what, at) = (&mount.what, shown(&mount.destination));
            verdict = format!("it is in {what}, mounted at {at}; what layers have there is not seen");
        }
        if !way.links.is_empty() {
            verdict = format!("{}, so it is {}: {verdict}", way.links.join(", "), shown(&here));
        }
        PathStory {
            path: path.to_owned(),
            leads_to: (here != path).then_some(here),
            mounted: mount.cloned(),
            is_there: self.is_there,
            verdict,
            versions: self.versions,
        }
    }

    /// Of versions topmost first.
    fn verdict(&self, path: &Path) -> String {
        let from = |version: &PathVersion| match version.layer {
            Some(number) => format!("layer {number}"),
            None => "the container".to_owned(),
        };
        match self.versions.first() {
            None => "no layer has ever had it".to_owned(),
            Some(top) if self.is_there => match top.what {
                Say::CopiedUp => "the container has its own copy, made when it changed it".to_owned(),
                Say::Merged => {
                    let merged = self.versions.iter().take_while(|version| version.what == Say::Merged).count() + 1;
                    format!("a directory merged of {merged} layers")
                }
                Say::Changed if top.layer.is_none() => "the container has its own in place of the image's".to_owned(),
                _ if top.layer.is_none() => "the container made it".to_owned(),
                _ => format!("it comes from {}; nothing was copied", from(top)),
            },
            Some(top) => {
                let by = shown(top.by.as_deref().unwrap_or(path));
                let how = match top.what {
                    Say::DeletedByOpaque => format!("emptied {by}"),
                    Say::DeletedByReplacement => format!("put something else in place of {by}"),
                    _ => format!("deleted {by}"),
                };
                format!("it is not there: {} {how}", from(top))
            }
        }
    }
}

/// Walks down; tells what there is, and the deepest opaque directory on the way (as a count of components).
fn find(root: &OwnedFd, components: &[&OsStr]) -> Result<(Found, Option<usize>)> {
    let mut directory = root.try_clone().map_err(|source| ImageError::Io {
        operation: "open",
        object: "a layer".to_owned(),
        source,
    })?;
    let mut opaque = is_opaque(directory.as_fd()).then_some(0);
    let stat_root = |fd: &OwnedFd| rustix::fs::fstat(fd).map_err(|errno| failed("stat", b"a layer", errno));
    let Some((last, way)) = components.split_last() else {
        return Ok((Found::Thing(stat_root(&directory)?, None), opaque));
    };
    for (at, name) in way.iter().enumerate() {
        match rustix::fs::openat(&directory, *name, DIRECTORY, Mode::empty()) {
            Ok(next) => directory = next,
            Err(Errno::NOENT) => return Ok((Found::Nothing, opaque)),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let stat = rustix::fs::statat(&directory, *name, AtFlags::SYMLINK_NOFOLLOW);
                let is_mark = stat.is_ok_and(|stat| is_whiteout(&stat));
                return Ok((if is_mark { Found::Whiteout(at + 1) } else { Found::NoDirectory(at + 1) }, opaque));
            }
            Err(errno) => return Err(failed("open", name.as_bytes(), errno)),
        }
        if is_opaque(directory.as_fd()) {
            opaque = Some(at + 1);
        }
    }
    let stat = match rustix::fs::statat(&directory, *last, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok((Found::Nothing, opaque)),
        Err(errno) => return Err(failed("stat", last.as_bytes(), errno)),
    };
    if is_whiteout(&stat) {
        return Ok((Found::Whiteout(components.len()), opaque));
    }
    if let Ok(itself) = rustix::fs::openat(&directory, *last, DIRECTORY, Mode::empty())
        && is_opaque(itself.as_fd())
    {
        opaque = Some(components.len());
    }
    let target = rustix::fs::readlinkat(&directory, *last, Vec::new()).ok();
    Ok((Found::Thing(stat, target.map(|target| PathBuf::from(OsStr::from_bytes(target.as_bytes())))), opaque))
}

/// Whether the overlay notes that a file is a copy of one below.
fn has_origin(root: &OwnedFd, components: &[&OsStr]) -> bool {
    let Some((last, way)) = components.split_last() else { return false };
    let Ok(mut directory) = root.try_clone() else { return false };
    for name in way {
        let Ok(next) = rustix::fs::openat(&directory, *name, DIRECTORY, Mode::empty()) else { return false };
        directory = next;
    }
    // Of a device or a FIFO in a container's layer nothing is opened: it might do something.
    let stat = rustix::fs::statat(&directory, *last, AtFlags::SYMLINK_NOFOLLOW);
    if !stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile) {
        return false;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::openat(&directory, *last, flags, Mode::empty()) else { return false };
    ORIGINS.iter().any(|name| rustix::fs::fgetxattr(&file, *name, &mut [0_u8; 0]).is_ok())
}

fn same(one: &Stat, other: &Stat) -> bool {
    let look = |s: &Stat| (s.st_mode, s.st_uid, s.st_gid, s.st_rdev, s.st_size, s.st_mtime, s.st_mtime_nsec);
    look(one) == look(other)
}

fn version(place: &Place, what: Say, by: Option<PathBuf>, thing: Option<(&Stat, Option<PathBuf>)>) -> PathVersion {
    let stat = thing.as_ref().map(|(stat, _)| *stat);
    let kind = stat.map(|stat| match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => "directory",
        FileType::Symlink => "link",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        _ => "file",
    });
    PathVersion {
        layer: place.layer,
        diff_id: place.diff_id,
        created_by: place.created_by.clone(),
        created: place.created,
        what,
        by,
        kind,
        size_bytes: stat.filter(|_| kind == Some("file")).and_then(|stat| u64::try_from(stat.st_size).ok()),
        mode: stat.map(|stat| stat.st_mode & 0o7777),
        modified: stat.map(|stat| {
            let nanoseconds = stat.st_mtime.saturating_mul(1_000_000_000);
            Timestamp(nanoseconds.saturating_add(stat.st_mtime_nsec.cast_signed()))
        }),
        link_target: thing.and_then(|(_, target)| target),
    }
}
