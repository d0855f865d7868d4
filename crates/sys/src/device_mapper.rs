//! The device mapper (linux/dm-ioctl.h, Documentation/admin-guide/device-mapper): devices made of tables of targets, and messages to targets.
#![expect(unsafe_code, reason = "rustix has no device-mapper ioctls")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use rustix::io::Errno;

const CONTROL: &str = "/dev/mapper/control";
/// `struct dm_ioctl` is 312 bytes: `_IOWR(0xfd, command, struct dm_ioctl)`.
const HEADER_BYTES: usize = 312;
// musl has a signed type for requests: the same bits.
const REQUEST: libc::Ioctl = 0xc138_fd00_u32 as libc::Ioctl;
const LIST_DEVICES: libc::Ioctl = 2;
const DEVICE_CREATE: libc::Ioctl = 3;
const DEVICE_REMOVE: libc::Ioctl = 4;
const DEVICE_SUSPEND: libc::Ioctl = 6;
const DEVICE_STATUS: libc::Ioctl = 7;
const TABLE_LOAD: libc::Ioctl = 9;
const TABLE_STATUS: libc::Ioctl = 12;
const TARGET_MESSAGE: libc::Ioctl = 14;
/// `DM_SUSPEND_FLAG`.
const SUSPEND: u32 = 1 << 1;
/// `DM_ACTIVE_PRESENT_FLAG`: it has a table.
const ACTIVE: u32 = 1 << 5;
/// `DM_BUFFER_FULL_FLAG`.
const BUFFER_FULL: u32 = 1 << 8;
/// `DM_DEFERRED_REMOVE` (Linux 3.13): goes with the last opener.
const DEFERRED_REMOVE: u32 = 1 << 17;
const NAME_BYTES_MAX: usize = 127;
/// `struct dm_target_spec`.
const TARGET_BYTES: usize = 40;
const ANSWER_BYTES: usize = 4096;
/// Room for the names of some 100,000 devices.
const LIST_BYTES_MAX: usize = 16 << 20;
/// Bytes of a sector.
pub const SECTOR_BYTES: u64 = 512;

/// One target of a device's table, over sectors `0..sectors`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub sectors: u64,
    /// `thin`, `thin-pool`, ...
    pub kind: String,
    pub parameters: String,
}

/// The open control device.
#[derive(Debug)]
pub struct DeviceMapper {
    control: File,
}

/// What a call tells of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    pub major: u32,
    pub minor: u32,
    pub openers: u32,
    /// It has a table; one whose maker died between the two steps has none.
    pub is_active: bool,
    pub is_suspended: bool,
}

impl DeviceMapper {
    /// # Errors
    /// `ENOENT` where the kernel has no device mapper.
    pub fn open() -> io::Result<Self> {
        Ok(Self { control: File::options().read(true).write(true).open(CONTROL)? })
    }

    /// Makes a device with its table and lets it work.
    ///
    /// # Errors
    /// `EBUSY` for a name in use, `EINVAL` for parameters the target refuses. What was made is removed again.
    pub fn create(&self, name: &str, target: &Target) -> Result<Device, Errno> {
        self.call(DEVICE_CREATE, name, 0, 0, &[])?;
        let made = self.call(TABLE_LOAD, name, 0, 1, &target_bytes(target)).and_then(|_| self.resume(name));
        if made.is_err() {
            // The first error is the one that matters.
            self.call(DEVICE_REMOVE, name, 0, 0, &[]).ok();
        }
        made
    }

    /// # Errors
    /// `ENXIO` when there is none of that name.
    pub fn status(&self, name: &str) -> Result<Device, Errno> {
        self.call(DEVICE_STATUS, name, 0, 0, &[]).map(|buffer| device(&buffer))
    }

    /// Names of all devices of the host.
    ///
    /// # Errors
    /// `E2BIG` when there are more than some 100,000.
    pub fn list(&self) -> Result<Vec<String>, Errno> {
        let mut room = 64 << 10;
        loop {
            let buffer = self.call(LIST_DEVICES, "", 0, 0, &vec![0; room])?;
            if word(&buffer, 28) & BUFFER_FULL == 0 {
                return Ok(names(&buffer));
            }
            room *= 4;
            if room > LIST_BYTES_MAX {
                return Err(Errno::TOOBIG);
            }
        }
    }

    /// What the first target says of itself, as dmsetup(8) `status` prints it.
    ///
    /// # Errors
    /// `ENXIO` when there is none of that name.
    pub fn target_status(&self, name: &str) -> Result<String, Errno> {
        let buffer = self.call(TABLE_STATUS, name, 0, 0, &[0; ANSWER_BYTES])?;
        let start = usize::try_from(word(&buffer, 16)).unwrap_or(usize::MAX).saturating_add(TARGET_BYTES);
        let text = buffer.get(start..).unwrap_or_default();
        Ok(String::from_utf8_lossy(text.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned())
    }

    /// Writes out what is under way and holds further I/O back until [`Self::resume`].
    ///
    /// # Errors
    /// `ENXIO` when there is none of that name.
    pub fn suspend(&self, name: &str) -> Result<(), Errno> {
        self.call(DEVICE_SUSPEND, name, SUSPEND, 0, &[]).map(drop)
    }

    /// # Errors
    /// `ENXIO` when there is none of that name.
    pub fn resume(&self, name: &str) -> Result<Device, Errno> {
        self.call(DEVICE_SUSPEND, name, 0, 0, &[]).map(|buffer| device(&buffer))
    }

    /// Removes a device, or lets it go with its last opener.
    ///
    /// # Errors
    /// `ENXIO` when there is none of that name.
    pub fn remove(&self, name: &str) -> Result<(), Errno> {
        self.call(DEVICE_REMOVE, name, DEFERRED_REMOVE, 0, &[]).map(drop)
    }

    /// Tells the target at sector 0 something (`create_thin 7`).
    ///
    /// # Errors
    /// `EINVAL` for what it does not understand, else what it says.
    pub fn message(&self, name: &str, text: &str) -> Result<(), Errno> {
        let mut payload = vec![0; 8];
        payload.extend_from_slice(text.as_bytes());
        payload.push(0);
        self.call(TARGET_MESSAGE, name, 0, 0, &payload).map(drop)
    }

    fn call(
        &self,
        command: libc::Ioctl,
        name: &str,
        flags: u32,
        targets: u32,
        payload: &[u8],
    ) -> Result<Vec<u8>, Errno> {
        // No name means all devices: to be asked for, never by mistake.
        if name.is_empty() && command != LIST_DEVICES {
            return Err(Errno::INVAL);
        }
        if name.len() > NAME_BYTES_MAX || name.contains('\0') {
            return Err(Errno::NAMETOOLONG);
        }
        let size = (HEADER_BYTES + payload.len()).next_multiple_of(8);
        let mut buffer = vec![0; size];
        // Version 4.0.0 is what every kernel since 2.6 takes.
        put(&mut buffer, 0, 4);
        put(&mut buffer, 12, u32::try_from(size).map_err(|_| Errno::TOOBIG)?);
        put(&mut buffer, 16, u32::try_from(HEADER_BYTES).map_err(|_| Errno::TOOBIG)?);
        put(&mut buffer, 20, targets);
        put(&mut buffer, 28, flags);
        buffer[48..48 + name.len()].copy_from_slice(name.as_bytes());
        buffer[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
        // SAFETY: the descriptor is open for the whole call; the buffer begins with a whole `struct dm_ioctl` (312 bytes, part of the request
        // number) whose `data_size` is the buffer's own length, so the kernel reads and writes nothing beyond it.
        let result = unsafe { libc::ioctl(self.control.as_raw_fd(), REQUEST | command, buffer.as_mut_ptr()) };
        if result == 0 {
            return Ok(buffer);
        }
        Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL))
    }
}

fn target_bytes(target: &Target) -> Vec<u8> {
    let mut bytes = vec![0; TARGET_BYTES];
    bytes[8..16].copy_from_slice(&target.sectors.to_ne_bytes());
    let kind = target.kind.as_bytes();
    let length = kind.len().min(15);
    bytes[24..24 + length].copy_from_slice(&kind[..length]);
    bytes.extend_from_slice(target.parameters.as_bytes());
    bytes.push(0);
    bytes
}

fn put(buffer: &mut [u8], at: usize, value: u32) {
    buffer[at..at + 4].copy_from_slice(&value.to_ne_bytes());
}

fn word(buffer: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&buffer[at..at + 4]);
    u32::from_ne_bytes(bytes)
}

/// `dev` is in the kernel's huge encoding: 12 bits of major between the halves of the minor.
fn device(buffer: &[u8]) -> Device {
    let dev = word(buffer, 40);
    let flags = word(buffer, 28);
    Device {
        major: (dev >> 8) & 0xfff,
        minor: (dev & 0xff) | ((dev >> 12) & 0xf_ff00),
        openers: word(buffer, 24),
        is_active: flags & ACTIVE != 0,
        is_suspended: flags & SUSPEND != 0,
    }
}

/// `struct dm_name_list`, one after the other: device number (0: none at all), bytes to the next one (0: the last), name.
fn names(buffer: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut at = usize::try_from(word(buffer, 16)).unwrap_or(usize::MAX);
    while let Some(record) = buffer.get(at..).filter(|record| record.len() > 12 && record[..8] != [0; 8]) {
        let name = record[12..].split(|byte| *byte == 0).next().unwrap_or_default();
        found.push(String::from_utf8_lossy(name).into_owned());
        match usize::try_from(word(record, 8)) {
            Ok(next) if next > 0 => at += next,
            _ => break,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_list() {
        let record = |device: u64, next: u32, name: &str| {
            let mut bytes = [&device.to_ne_bytes()[..], &next.to_ne_bytes(), name.as_bytes(), &[0]].concat();
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            bytes
        };
        let mut header = vec![0; HEADER_BYTES];
        put(&mut header, 16, u32::try_from(HEADER_BYTES).unwrap());
        let two = [header.clone(), record(7, 24, "pool-x-1"), record(8, 0, "b")].concat();
        assert_eq!(names(&two), ["pool-x-1", "b"]);
        assert!(names(&[header.clone(), record(0, 0, "")].concat()).is_empty());
        // A number that leads out ends the list.
        assert_eq!(names(&[header, record(7, 4000, "a")].concat()), ["a"]);
    }
}
