//! Every layer is a thinly provisioned block device with the whole tree on ext4, a writable layer a snapshot of one: blocks are shared until they
//! change, below the file system.
//!
//! ```text
//! <directory>/next-device    number of the first device id that was never reserved
//! <directory>/blank          id of the formatted device that every first layer is a snapshot of
//! <home>/device.json         {"id", "base"}: written before the device is made, gone after it is
//! ```
//!
//! The pool (dm-thin) is the host's and belongs to one data root alone. Ids are reserved in blocks and never used twice, so what a home names is
//! its own also after a crash between the reservation and the device; the pool commits each message by itself. The "directory" of a layer is the
//! root of a detached mount that this process holds, as with `erofs`.
//!
//! What a crash leaves is put right when the store is opened: a device held still while its snapshot was made goes on, one without a table or
//! that nobody has open is let go, and one of those made last that no home names is deleted from the pool (its record did not reach the disk).

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_rootfs::OverlayRootfs;
use berth_sys::device_mapper::{DeviceMapper, SECTOR_BYTES, Target};
use berth_types::{Classify as _, ErrorClass};
use rustix::fs::{AtFlags, CWD, Mode};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

use super::native::{first, note_base, noted_base, whole_tree};
use super::{Driver, Files, Seal};
use crate::{Result, SnapshotError, Trash};

pub(crate) const NAME: &str = "devmapper";
const RECORD_FILE: &str = "device.json";
/// dm-thin's ids have 24 bits.
const IDS_MAX: u32 = 1 << 24;
const RESERVED_AT_ONCE: u32 = 64;
/// Ids among which a crash can have left devices that no home names.
const RECENT: u32 = 4 * RESERVED_AT_ONCE;

#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
struct Record {
    id: u32,
}

#[derive(Debug, Default)]
struct State {
    next: u32,
    reserved: u32,
    /// Known from when the driver was opened.
    blank: u32,
    /// Mounts by device id, and whether they can be written to.
    held: HashMap<u32, Arc<OwnedFd>>,
    /// Homes whose files are being written, by the path these were given out under.
    unfinished: HashMap<PathBuf, PathBuf>,
}

/// See the module. Clones share what they hold.
#[derive(Debug, Clone)]
pub struct DevmapperDriver {
    mapper: Arc<DeviceMapper>,
    pool: String,
    directory: PathBuf,
    size_bytes: u64,
    state: Arc<Mutex<State>>,
}

impl DevmapperDriver {
    /// `pool`: name of an active thin pool; `directory`: for numbers that outlive us, made when missing; `size_bytes`: of each device.
    ///
    /// # Errors
    /// `FailedPrecondition` where there is no device mapper, no such pool, or no mkfs.ext4.
    pub fn open(pool: &str, directory: &Path, size_bytes: u64) -> Result<Self> {
        let unusable =
            |why: String| SnapshotError::Unusable { driver: NAME.to_owned(), root: directory.to_owned(), why };
        let mapper =
            DeviceMapper::open().map_err(|error| unusable(format!("the kernel has no device mapper: {error}")))?;
        match mapper.status(pool) {
            Ok(_) => {}
            Err(Errno::NXIO) => return Err(unusable(format!("there is no active thin pool {pool:?}"))),
            Err(errno) => return Err(unusable(format!("cannot look at pool {pool:?}: {errno}"))),
        }
        let mkfs = Command::new("mkfs.ext4").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if mkfs.is_err() {
            return Err(unusable("mkfs.ext4 (e2fsprogs) is not installed".to_owned()));
        }
        crate::make_dir_private(directory)?;
        let driver = Self {
            mapper: Arc::new(mapper),
            pool: pool.to_owned(),
            directory: directory.to_owned(),
            size_bytes,
            state: Arc::default(),
        };
        let next = driver.read_number("next-device")?.unwrap_or(1);
        (driver.state().next, driver.state().reserved) = (next, next);
        // Before anybody waits for it: it is formatted only once.
        let blank = driver.blank()?;
        driver.state().blank = blank;
        Ok(driver)
    }

    /// Devices go on that were held still, and those go that nobody has open.
    fn release(&self) -> Result<()> {
        let failed = |name: &str, errno: Errno| SnapshotError::io("look after", Path::new(name), errno.into());
        let prefix = format!("{}-berth-", self.pool);
        for name in self.mapper.list().map_err(|errno| failed(&self.pool, errno))? {
            if name.strip_prefix(&prefix).is_none_or(|id| id.parse::<u32>().is_err()) {
                continue;
            }
            let put_right = match self.mapper.status(&name) {
                Ok(device) if device.is_active && device.is_suspended => self.mapper.resume(&name).map(drop),
                other => other.map(drop),
            };
            put_right.map_err(|errno| failed(&name, errno))?;
            // With an opener it stays until that one lets it go, and is as good as a new one until then.
            if self.mapper.status(&name).is_ok_and(|device| device.openers == 0) {
                self.mapper.remove(&name).map_err(|errno| failed(&name, errno))?;
            }
        }
        Ok(())
    }

    /// Deletes those of the latest devices that no home names.
    fn sweep(&self, root: &Path) -> Result<()> {
        let named = self.named(root)?;
        let next = self.state().next;
        for id in (next.saturating_sub(RECENT).max(1)..next).filter(|id| !named.contains(id)) {
            self.delete(id)?;
        }
        Ok(())
    }

    /// Devices that homes name, and the blank one.
    fn named(&self, root: &Path) -> Result<BTreeSet<u32>> {
        let mut named = BTreeSet::from([self.state().blank]);
        for kind in crate::names(root)?.iter().map(|name| root.join(name)) {
            if !kind.is_dir() {
                continue;
            }
            for home in crate::names(&kind)? {
                match Self::load(&kind.join(home)) {
                    Ok(record) => drop(named.insert(record.id)),
                    // Its device is one of those that no home names.
                    Err(SnapshotError::Record { .. }) => {}
                    Err(error) if error.class() == ErrorClass::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(named)
    }

    fn delete(&self, id: u32) -> Result<()> {
        self.deactivate(id);
        match self.mapper.message(&self.pool, &format!("delete {id}")) {
            // Never made, or deleted before a crash.
            Ok(()) | Err(Errno::NODATA | Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.failed("delete", id, errno)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_number(&self, name: &str) -> Result<Option<u32>> {
        let path = self.directory.join(name);
        match fs::read_to_string(&path) {
            // Never taken for none: ids that are given out twice are devices of two layers.
            Ok(text) => {
                text.trim().parse().map(Some).map_err(|_| {
                    SnapshotError::io("understand the number in", &path, io::ErrorKind::InvalidData.into())
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SnapshotError::io("read", &path, source)),
        }
    }

    /// On the disk before anybody counts on it.
    fn write_number(&self, name: &str, number: u32) -> Result<()> {
        let (path, draft) = (self.directory.join(name), self.directory.join(format!("{name}.new")));
        let write = || {
            let mut file = fs::File::create(&draft)?;
            file.write_all(number.to_string().as_bytes())?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            fs::File::open(&self.directory)?.sync_all()
        };
        write().map_err(|source| SnapshotError::io("write", &path, source))
    }

    fn new_id(&self) -> Result<u32> {
        let mut state = self.state();
        if state.next == state.reserved {
            let reserved = state.reserved.saturating_add(RESERVED_AT_ONCE);
            if reserved >= IDS_MAX {
                let full = io::Error::new(io::ErrorKind::StorageFull, "all device ids were used");
                return Err(SnapshotError::io("number a device in", &self.directory, full));
            }
            self.write_number("next-device", reserved)?;
            state.reserved = reserved;
        }
        state.next += 1;
        Ok(state.next - 1)
    }

    fn device_name(&self, id: u32) -> String {
        format!("{}-berth-{id}", self.pool)
    }

    fn failed(&self, operation: &'static str, id: u32, errno: Errno) -> SnapshotError {
        SnapshotError::io(operation, Path::new(&self.device_name(id)), errno.into())
    }

    /// A snapshot of a device. One that is active is held still meanwhile. False when the pool has a device of that id: not ours, whatever it is.
    fn snapshot(&self, id: u32, origin: u32) -> Result<bool> {
        let name = self.device_name(origin);
        let is_active = self.mapper.suspend(&name).is_ok();
        let made = self.mapper.message(&self.pool, &format!("create_snap {id} {origin}"));
        if is_active {
            self.mapper.resume(&name).map_err(|errno| self.failed("resume", origin, errno))?;
        }
        match made {
            Err(Errno::EXIST) => Ok(false),
            other => other.map(|()| true).map_err(|errno| self.failed("make the snapshot", id, errno)),
        }
    }

    /// Its node; an active one stays as it is.
    fn activate(&self, id: u32) -> Result<PathBuf> {
        let pool = self.mapper.status(&self.pool).map_err(|errno| self.failed("find the pool of", id, errno))?;
        let target = Target {
            sectors: self.size_bytes / SECTOR_BYTES,
            kind: "thin".to_owned(),
            parameters: format!("{}:{} {id}", pool.major, pool.minor),
        };
        let name = self.device_name(id);
        let device = match self.mapper.create(&name, &target) {
            Err(Errno::BUSY) => self.mapper.status(&name),
            other => other,
        };
        let device = device.map_err(|errno| self.failed("activate", id, errno))?;
        Ok(PathBuf::from(format!("/dev/dm-{}", device.minor)))
    }

    /// One that is still mounted somewhere stays active.
    fn deactivate(&self, id: u32) {
        drop(self.state().held.remove(&id));
        self.mapper.remove(&self.device_name(id)).ok();
    }

    /// The formatted device without files.
    fn blank(&self) -> Result<u32> {
        if let Some(id) = self.read_number("blank")? {
            return Ok(id);
        }
        let id = loop {
            let id = self.new_id()?;
            match self.mapper.message(&self.pool, &format!("create_thin {id}")) {
                Ok(()) => break id,
                // Not ours, whatever it is.
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(self.failed("make", id, errno)),
            }
        };
        let node = self.activate(id)?;
        // No reserve for root and no journal checks over what is thrown away after a crash anyway.
        let made = Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&node).stdin(Stdio::null()).output();
        let made = made.map_err(|source| SnapshotError::io("run mkfs.ext4 on", &node, source))?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr).trim().to_owned();
            return Err(SnapshotError::io("format", &node, io::Error::other(said)));
        }
        let root = self.hold(id, true)?;
        fs::remove_dir(root.join("lost+found")).map_err(|source| SnapshotError::io("empty", &root, source))?;
        rustix::fs::chmodat(CWD, root.as_ref(), Mode::from_raw_mode(0o755), AtFlags::empty())
            .map_err(|errno| SnapshotError::io("change the mode of", &root, errno.into()))?;
        // It keeps the device mounted.
        drop(root);
        self.deactivate(id);
        self.write_number("blank", id)?;
        Ok(id)
    }

    /// The device's file system, mounted for as long as it is held.
    fn hold(&self, id: u32, is_writable: bool) -> Result<Files> {
        if let Some(known) = self.state().held.get(&id) {
            return Ok(Files::of_mount(known));
        }
        let node = self.activate(id)?;
        // A journal may have to be read: others do not wait for it. Who mounts the same one meanwhile gets the same file system.
        let mounted = mount(&node, is_writable).map_err(|errno| SnapshotError::io("mount", &node, errno.into()))?;
        Ok(Files::of_mount(self.state().held.entry(id).or_insert(Arc::new(mounted))))
    }

    fn load(home: &Path) -> Result<Record> {
        let path = home.join(RECORD_FILE);
        let bytes = fs::read(&path).map_err(|source| SnapshotError::io("read", &path, source))?;
        serde_json::from_slice(&bytes).map_err(|source| SnapshotError::Record { path, source })
    }

    /// A device of the home's own, on what a lower stands for or on the blank one.
    fn make(&self, home: &Path, below: Option<&Path>) -> Result<Record> {
        let origin = match below {
            None => self.state().blank,
            Some(below) => {
                let unfinished = self.state().unfinished.get(below).cloned();
                let lower = unfinished.or_else(|| below.parent().map(Path::to_owned)).unwrap_or_default();
                self.finish(&lower)?.id
            }
        };
        let path = home.join(RECORD_FILE);
        loop {
            let record = Record { id: self.new_id()? };
            let json =
                serde_json::to_vec(&record).map_err(|source| SnapshotError::Record { path: path.clone(), source })?;
            fs::write(&path, json).map_err(|source| SnapshotError::io("write", &path, source))?;
            if self.snapshot(record.id, origin)? {
                return Ok(record);
            }
        }
    }

    /// From here on a home's files are only read.
    fn finish(&self, home: &Path) -> Result<Record> {
        let record = Self::load(home)?;
        let mut state = self.state();
        let was_written = state.unfinished.values().any(|unfinished| unfinished == home);
        state.unfinished.retain(|_, unfinished| unfinished != home);
        drop(state);
        if was_written {
            self.deactivate(record.id);
        }
        Ok(record)
    }

    fn is_layer(home: &Path) -> bool {
        home.join(crate::layer::LAYER_FILE).exists() || home.join("frozen").exists()
    }
}

/// A detached mount of an ext4 device.
fn mount(node: &Path, is_writable: bool) -> std::result::Result<OwnedFd, Errno> {
    let context = fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", node)?;
    let mut attributes = MountAttrFlags::empty();
    if !is_writable {
        fsconfig_set_flag(&context, "ro")?;
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

impl Driver for DevmapperDriver {
    fn name(&self) -> &str {
        NAME
    }

    fn recover(&self, root: &Path) -> Result<()> {
        self.release()?;
        self.sweep(root)
    }

    fn is_layered(&self) -> bool {
        false
    }

    fn files(&self, home: &Path) -> Files {
        // What cannot be mounted has no files; whoever looks for them is told that they are not there.
        let mounted = Self::load(home).and_then(|record| self.hold(record.id, !Self::is_layer(home)));
        mounted.unwrap_or_else(|_| home.join("fs").into())
    }

    fn lower(&self, home: &Path) -> PathBuf {
        home.join("fs")
    }

    fn make_layer(&self, home: &Path, below: Option<&Path>) -> Result<PathBuf> {
        let record = self.make(home, below)?;
        let path = self.hold(record.id, true)?.to_path_buf();
        self.state().unfinished.insert(path.clone(), home.to_owned());
        Ok(path)
    }

    fn finish_layer(&self, home: &Path) -> Result<()> {
        self.finish(home).map(drop)
    }

    fn damage(&self, home: &Path, _seal: &Seal) -> Option<String> {
        let held = Self::load(home).and_then(|record| self.hold(record.id, false));
        held.err().map(|error| format!("its device cannot be used: {}", berth_types::report(&error)))
    }

    fn freeze(&self, home: &Path, _trash: &Trash) -> Result<()> {
        let mark = home.join("frozen");
        fs::write(&mark, "").map_err(|source| SnapshotError::io("write", &mark, source))?;
        self.deactivate(Self::load(home)?.id);
        Ok(())
    }

    fn make_writable(&self, home: &Path, lowers: &[PathBuf]) -> Result<()> {
        self.make(home, lowers.first().map(PathBuf::as_path))?;
        note_base(home, lowers)
    }

    fn visible(&self, lowers: Vec<PathBuf>) -> Vec<PathBuf> {
        first(lowers).iter().filter_map(|lower| lower.parent()).map(|home| self.files(home).to_path_buf()).collect()
    }

    fn rootfs(&self, home: &Path, _lowers: Vec<PathBuf>, _is_throw_away: bool) -> Result<OverlayRootfs> {
        Ok(whole_tree(self.hold(Self::load(home)?.id, true)?.to_path_buf(), home))
    }

    fn base(&self, rootfs: &OverlayRootfs) -> Option<Files> {
        let home = rootfs.work.as_ref()?.parent()?;
        let lower = noted_base(&whole_tree(home.join("fs"), home))?;
        Some(self.files(lower.parent()?))
    }

    fn forget(&self, home: &Path) {
        if let Ok(record) = Self::load(home) {
            self.state().unfinished.retain(|_, unfinished| unfinished != home);
            self.deactivate(record.id);
        }
    }

    fn destroy(&self, home: &Path) -> Result<()> {
        // Without the file there never was a device, or it never reached the disk.
        let record = match Self::load(home) {
            Ok(record) => record,
            Err(SnapshotError::Record { .. }) => return Ok(()),
            Err(error) if error.class() == ErrorClass::NotFound => return Ok(()),
            // It is there and cannot be read now: its device must not be forgotten.
            Err(error) => return Err(error),
        };
        self.delete(record.id)
    }
}
