//! One member of an archive.

/// What a member is. Contiguous files (type 7) are files; sparse ones too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EntryKind {
    #[default]
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// Seconds since 1970, and nanoseconds after them (also before 1970).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mtime {
    pub seconds: i64,
    pub nanoseconds: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Xattr {
    pub name: Vec<u8>,
    pub value: Vec<u8>,
}

/// Metadata of a member. The size is the file's, holes included.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    pub kind: EntryKind,
    pub path: Vec<u8>,
    /// Target of a hard link or symbolic link.
    pub link: Vec<u8>,
    /// Permission bits, 07777.
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: Mtime,
    pub size: u64,
    pub device_major: u32,
    pub device_minor: u32,
    pub xattrs: Vec<Xattr>,
}
