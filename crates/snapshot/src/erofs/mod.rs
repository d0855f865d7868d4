//! Writing an EROFS image in one pass: files' bytes go to the disk as they come, names and attributes wait in memory, directories and inodes are
//! written at the end. Uncompressed, with extended inodes, readable by every kernel that has EROFS with chunk-based files (Linux 5.15).
//!
//! ```text
//! block 0      superblock at byte 1024
//! block 1..    data of files, each at a block boundary; then blocks of directories
//! meta_blkaddr inodes (64 bytes, attributes, targets of links, block maps), 32-byte slots; a node id is an inode's slot
//! ```
//!
//! A file with holes is chunk-based: its block map says -1 for what is not there. Replaced files leave their bytes behind.
//!
//! # Spec
//! Linux `fs/erofs/erofs_fs.h` and Documentation/filesystems/erofs.rst.

mod memory;
pub(crate) mod pack;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};

use memory::Share;
pub use memory::{ImageMemory, ImageMemoryError, is_out_of_memory};

const BLOCK: u64 = 4096;
const BLOCK_BYTES: usize = 4096;
const BLOCK_BITS: u8 = 12;
const MAGIC: u32 = 0xe0f5_e1e2;
/// Times of inodes are times of modification.
const COMPAT_MTIME: u32 = 2;
const INCOMPAT_CHUNKED: u32 = 4;
const INODE_SIZE: u64 = 64;
const SLOT: u64 = 32;
/// The root's node id; none is 0, which programs take for "no inode".
const FIRST_INODE: u64 = 64;
const DIRENT_SIZE: usize = 12;
/// Entries of a block map; larger files have larger chunks.
const CHUNKS_MAX: u64 = 1 << 16;
const HOLE: u32 = u32::MAX;
/// What a file takes in memory until the image is finished, besides its name and attributes: a node, and a place among its directory's names.
const NODE_BYTES: usize = 240;
/// Bytes of attributes of one inode (16 bits of 4 bytes, less the header).
const XATTR_BYTES_MAX: usize = 200_000;

/// What a node is, besides its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    File,
    Directory,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
    Socket,
}

impl NodeKind {
    /// `S_IFMT` and the directory entry's type.
    fn numbers(self) -> (u16, u8) {
        match self {
            Self::File => (0o100_000, 1),
            Self::Directory => (0o040_000, 2),
            Self::CharDevice => (0o020_000, 3),
            Self::BlockDevice => (0o060_000, 4),
            Self::Fifo => (0o010_000, 5),
            Self::Socket => (0o140_000, 6),
            Self::Symlink => (0o120_000, 7),
        }
    }
}

/// Attributes of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeAttributes {
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime_seconds: i64,
    pub mtime_nanoseconds: u32,
    /// Full names.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A node of the image being written; stays valid when it loses its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(usize);

#[derive(Debug)]
struct Node {
    kind: NodeKind,
    attributes: NodeAttributes,
    device: u64,
    links: u32,
    size: u64,
    data: Data,
    children: BTreeMap<Box<[u8]>, NodeId>,
    parent: NodeId,
    /// Byte in the area of inodes; known at the end.
    place: u64,
}

#[derive(Debug)]
enum Data {
    /// From this block on.
    Plain(u32),
    Chunks {
        bits: u8,
        blocks: Vec<u32>,
    },
    Inline(Vec<u8>),
}

/// The file being written: where its extents are.
#[derive(Debug)]
struct Writing {
    node: NodeId,
    unit: u64,
    /// (offset in the file, length, byte in the image), each but the last a multiple of the unit.
    extents: Vec<(u64, u64, u64)>,
    /// Offset in the file up to which was written.
    at: u64,
}

/// An image being written.
#[derive(Debug)]
pub struct ErofsWriter {
    out: BufWriter<File>,
    /// Bytes of the image so far.
    end: u64,
    nodes: Vec<Node>,
    writing: Option<Writing>,
    memory: Share,
}

impl ErofsWriter {
    /// # Errors
    /// What the kernel says.
    pub fn new(file: File, memory: &ImageMemory) -> io::Result<Self> {
        let mut out = BufWriter::with_capacity(256 << 10, file);
        out.seek(SeekFrom::Start(BLOCK))?;
        let mut writer = Self { out, end: BLOCK, nodes: Vec::new(), writing: None, memory: Share::of(memory) };
        let attributes = NodeAttributes { mode: 0o755, ..NodeAttributes::default() };
        writer.nodes.push(Node {
            kind: NodeKind::Directory,
            attributes,
            device: 0,
            links: 0,
            size: 0,
            data: Data::Plain(0),
            children: BTreeMap::new(),
            parent: NodeId(0),
            place: 0,
        });
        Ok(writer)
    }

    /// To be asked for every entry that is added.
    ///
    /// # Errors
    /// An error for which [`is_out_of_memory`] is true, when this image and those that share its memory have become too large.
    pub fn check_memory(&self) -> io::Result<()> {
        self.memory.check()
    }

    pub fn root(&self) -> NodeId {
        NodeId(0)
    }

    pub fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        self.nodes[directory.0].children.get(name).copied()
    }

    pub fn parent(&self, node: NodeId) -> NodeId {
        self.nodes[node.0].parent
    }

    pub fn kind(&self, node: NodeId) -> NodeKind {
        self.nodes[node.0].kind
    }

    /// Whether it is a character device 0/0, the overlay's mark for a deleted name.
    pub fn is_whiteout(&self, node: NodeId) -> bool {
        self.nodes[node.0].kind == NodeKind::CharDevice && self.nodes[node.0].device == 0
    }

    /// Of a symbolic link.
    pub fn target(&self, node: NodeId) -> Option<&[u8]> {
        match &self.nodes[node.0].data {
            Data::Inline(target) => Some(target),
            _ => None,
        }
    }

    /// Whether an overlay shows nothing of lower layers in this directory.
    pub fn is_opaque(&self, node: NodeId) -> bool {
        self.nodes[node.0].attributes.xattrs.iter().any(|(name, _)| name == b"trusted.overlay.opaque")
    }

    pub fn set_attributes(&mut self, node: NodeId, attributes: NodeAttributes) {
        self.memory.take(xattr_memory(&attributes));
        self.nodes[node.0].attributes = attributes;
    }

    /// Sets one attribute, in place of an earlier value.
    pub fn set_xattr(&mut self, node: NodeId, name: &[u8], value: &[u8]) {
        let xattrs = &mut self.nodes[node.0].attributes.xattrs;
        xattrs.retain(|(known, _)| known != name);
        xattrs.push((name.to_vec(), value.to_vec()));
        self.memory.take(XATTR_MEMORY + name.len() + value.len());
    }

    /// Makes a node under a name, in place of what had it. `device` as makedev(3) packs it.
    pub fn add(
        &mut self,
        directory: NodeId,
        name: &[u8],
        kind: NodeKind,
        attributes: NodeAttributes,
        device: u64,
    ) -> NodeId {
        let id = NodeId(self.nodes.len());
        self.memory.take(NODE_BYTES + xattr_memory(&attributes));
        self.nodes.push(Node {
            kind,
            attributes,
            device,
            links: 0,
            size: 0,
            data: Data::Plain(0),
            children: BTreeMap::new(),
            parent: directory,
            place: 0,
        });
        self.name(directory, name, id);
        id
    }

    pub fn add_link(&mut self, directory: NodeId, name: &[u8], target: &[u8], attributes: NodeAttributes) -> NodeId {
        let id = self.add(directory, name, NodeKind::Symlink, attributes, 0);
        self.nodes[id.0].size = target.len() as u64;
        self.nodes[id.0].data = Data::Inline(target.to_vec());
        self.memory.take(target.len());
        id
    }

    /// One more name of a node that is no directory.
    pub fn add_name(&mut self, directory: NodeId, name: &[u8], node: NodeId) {
        self.memory.take(NODE_BYTES / 2);
        self.name(directory, name, node);
    }

    fn name(&mut self, directory: NodeId, name: &[u8], node: NodeId) {
        self.memory.take(name.len());
        self.nodes[directory.0].children.insert(name.into(), node);
    }

    /// Begins the content of a file of this size.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn begin_data(&mut self, node: NodeId, size: u64) -> io::Result<()> {
        self.align(BLOCK)?;
        let mut unit = BLOCK;
        while size.div_ceil(unit) > CHUNKS_MAX {
            unit *= 2;
        }
        self.nodes[node.0].size = size;
        self.writing = Some(Writing { node, unit, extents: Vec::new(), at: 0 });
        Ok(())
    }

    /// The next piece; what lies between two pieces is a hole.
    ///
    /// # Errors
    /// What the kernel says; `InvalidInput` for pieces out of order.
    pub fn data(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let Some(mut writing) = self.writing.take() else { return Err(io::ErrorKind::InvalidInput.into()) };
        if offset < writing.at {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let unit = writing.unit;
        let start = offset - offset % unit;
        let is_new = writing.extents.is_empty() || start > writing.at.next_multiple_of(unit);
        if is_new {
            if let Some(last) = writing.extents.last_mut() {
                last.1 = last.1.next_multiple_of(unit);
                let padded = last.2 + last.1;
                self.skip(padded - self.end)?;
            }
            self.align(BLOCK)?;
            writing.extents.push((start, 0, self.end));
            self.skip(offset - start)?;
        } else {
            self.skip(offset - writing.at)?;
        }
        self.out.write_all(bytes)?;
        self.end += bytes.len() as u64;
        writing.at = offset + bytes.len() as u64;
        if let Some(last) = writing.extents.last_mut() {
            last.1 = writing.at - last.0;
        }
        self.writing = Some(writing);
        Ok(())
    }

    /// # Errors
    /// What the kernel says.
    pub fn end_data(&mut self) -> io::Result<()> {
        let Some(writing) = self.writing.take() else { return Err(io::ErrorKind::InvalidInput.into()) };
        let size = self.nodes[writing.node.0].size;
        let unit = writing.unit;
        // The last extent reaches to the end of its chunk, or of the file.
        if let Some((start, length, at)) = writing.extents.last().copied() {
            let wanted = length.next_multiple_of(unit).min(size.next_multiple_of(BLOCK) - start);
            self.skip((at + wanted).saturating_sub(self.end))?;
        }
        self.align(BLOCK)?;
        let is_whole = matches!(writing.extents.as_slice(), [(0, length, _)] if *length == size);
        self.nodes[writing.node.0].data = if size == 0 {
            Data::Plain(0)
        } else if let (true, Some((_, _, at))) = (is_whole, writing.extents.first()) {
            Data::Plain(block(*at)?)
        } else {
            let blocks = block_map(&writing.extents, unit, size)?;
            self.memory.take(size_of_val(blocks.as_slice()));
            Data::Chunks { bits: chunk_bits(unit), blocks }
        };
        Ok(())
    }

    /// Writes directories, inodes and the superblock. Returns the bytes of the image.
    ///
    /// # Errors
    /// What the kernel says; `InvalidData` for attributes beyond what an inode holds.
    pub fn finish(mut self) -> io::Result<u64> {
        let reachable = self.place_nodes()?;
        self.write_directories(&reachable)?;
        self.align(BLOCK)?;
        let meta = block(self.end)?;
        let mut at = 0;
        for id in &reachable {
            let node = &self.nodes[id.0];
            let bytes = inode(node, node.place / SLOT)?;
            let gap = node.place - at;
            at = node.place + bytes.len() as u64;
            self.skip(gap)?;
            self.out.write_all(&bytes)?;
            self.end += bytes.len() as u64;
        }
        self.align(BLOCK)?;
        let is_chunked = reachable.iter().any(|id| matches!(self.nodes[id.0].data, Data::Chunks { .. }));
        let superblock = superblock(reachable.len() as u64, block(self.end)?, meta, is_chunked);
        let end = self.end;
        self.out.seek(SeekFrom::Start(1024))?;
        self.out.write_all(&superblock)?;
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.set_len(end)?;
        Ok(end)
    }

    /// Gives every node that has a name its place, the root's first.
    fn place_nodes(&mut self) -> io::Result<Vec<NodeId>> {
        let mut reachable = vec![self.root()];
        let mut is_seen = vec![false; self.nodes.len()];
        is_seen[0] = true;
        let mut next = 0;
        let mut at = FIRST_INODE;
        while next < reachable.len() {
            let id = reachable[next];
            next += 1;
            let body = INODE_SIZE + xattr_bytes(&self.nodes[id.0].attributes)?.len() as u64;
            let tail = match &self.nodes[id.0].data {
                Data::Plain(_) => 0,
                Data::Chunks { blocks, .. } => 4 * blocks.len() as u64,
                Data::Inline(bytes) => bytes.len() as u64,
            };
            let is_inline = matches!(self.nodes[id.0].data, Data::Inline(_));
            at = at.next_multiple_of(SLOT);
            // What is inline must be in one block, with the inode's end.
            if is_inline && (at % BLOCK + body) % BLOCK + tail > BLOCK {
                at = at.next_multiple_of(BLOCK);
                if body % BLOCK + tail > BLOCK {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a link with too many attributes"));
                }
            }
            self.nodes[id.0].place = at;
            at += body + tail;
            let children: Vec<NodeId> = self.nodes[id.0].children.values().copied().collect();
            for child in children {
                self.nodes[child.0].links += 1;
                if !is_seen[child.0] {
                    is_seen[child.0] = true;
                    reachable.push(child);
                }
            }
        }
        Ok(reachable)
    }

    fn write_directories(&mut self, reachable: &[NodeId]) -> io::Result<()> {
        for id in reachable {
            if self.nodes[id.0].kind != NodeKind::Directory {
                continue;
            }
            let (bytes, subdirectories) = self.directory(*id);
            self.align(BLOCK)?;
            let at = block(self.end)?;
            self.out.write_all(&bytes)?;
            self.end += bytes.len() as u64;
            let node = &mut self.nodes[id.0];
            node.size = bytes.len() as u64;
            node.data = Data::Plain(at);
            node.links = 2 + subdirectories;
        }
        Ok(())
    }

    /// Blocks of entries, sorted over all of them; in a block first the entries, then the names.
    fn directory(&self, id: NodeId) -> (Vec<u8>, u32) {
        let node = &self.nodes[id.0];
        let mut entries: Vec<(&[u8], NodeId)> = node.children.iter().map(|(name, id)| (&**name, *id)).collect();
        entries.push((b".", id));
        entries.push((b"..", node.parent));
        entries.sort_unstable();
        let subdirectories =
            node.children.values().filter(|child| self.nodes[child.0].kind == NodeKind::Directory).count();
        let mut bytes = Vec::new();
        let mut rest = entries.as_slice();
        while !rest.is_empty() {
            let mut used = 0;
            let fitting = rest
                .iter()
                .take_while(|(name, _)| {
                    used += DIRENT_SIZE as u64 + name.len() as u64;
                    used <= BLOCK
                })
                .count();
            let (here, later) = rest.split_at(fitting);
            rest = later;
            let mut offset = here.len() * DIRENT_SIZE;
            for (name, child) in here {
                let child = &self.nodes[child.0];
                bytes.extend_from_slice(&(child.place / SLOT).to_le_bytes());
                bytes.extend_from_slice(&u16::try_from(offset).unwrap_or(0).to_le_bytes());
                bytes.extend_from_slice(&[child.kind.numbers().1, 0]);
                offset += name.len();
            }
            here.iter().for_each(|(name, _)| bytes.extend_from_slice(name));
            if !rest.is_empty() {
                bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
            }
        }
        (bytes, u32::try_from(subdirectories).unwrap_or(u32::MAX - 2))
    }

    fn align(&mut self, to: u64) -> io::Result<()> {
        self.skip(self.end.next_multiple_of(to) - self.end)
    }

    /// Zeros: a hole of the image where they are many.
    fn skip(&mut self, count: u64) -> io::Result<()> {
        const ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
        if count > 16 * BLOCK {
            self.out.seek(SeekFrom::Current(i64::try_from(count).map_err(io::Error::other)?))?;
        } else {
            let mut rest = count;
            while rest > 0 {
                let length = rest.min(BLOCK);
                self.out.write_all(&ZEROS[..usize::try_from(length).unwrap_or(0)])?;
                rest -= length;
            }
        }
        self.end += count;
        Ok(())
    }
}

fn block(byte: u64) -> io::Result<u32> {
    u32::try_from(byte / BLOCK).map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, "more than 16 TiB"))
}

fn chunk_bits(unit: u64) -> u8 {
    u8::try_from(unit.trailing_zeros()).unwrap_or(BLOCK_BITS) - BLOCK_BITS
}

fn block_map(extents: &[(u64, u64, u64)], unit: u64, size: u64) -> io::Result<Vec<u32>> {
    let count = usize::try_from(size.div_ceil(unit)).map_err(io::Error::other)?;
    let mut blocks = vec![HOLE; count];
    for (start, length, at) in extents {
        let first = start / unit;
        for n in 0..length.div_ceil(unit) {
            let slot = usize::try_from(first + n).map_err(io::Error::other)?;
            if let Some(entry) = blocks.get_mut(slot) {
                *entry = block(at + n * unit)?;
            }
        }
    }
    Ok(blocks)
}

/// `struct erofs_xattr_ibody_header` and the entries; nothing without attributes.
fn xattr_bytes(attributes: &NodeAttributes) -> io::Result<Vec<u8>> {
    if attributes.xattrs.is_empty() {
        return Ok(Vec::new());
    }
    let mut bytes = vec![0; 12];
    for (name, value) in &attributes.xattrs {
        let Some((index, rest)) = split_name(name) else { continue };
        let too_large = |_| io::Error::new(io::ErrorKind::InvalidData, "an extended attribute is too large");
        bytes.extend_from_slice(&[u8::try_from(rest.len()).map_err(too_large)?, index]);
        bytes.extend_from_slice(&u16::try_from(value.len()).map_err(too_large)?.to_le_bytes());
        bytes.extend_from_slice(rest);
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    if bytes.len() > XATTR_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too many extended attributes"));
    }
    Ok(bytes)
}

/// An attribute in memory, besides its bytes.
const XATTR_MEMORY: usize = 80;

fn xattr_memory(attributes: &NodeAttributes) -> usize {
    attributes.xattrs.iter().map(|(name, value)| XATTR_MEMORY + name.len() + value.len()).sum()
}

/// Prefixes have numbers.
fn split_name(name: &[u8]) -> Option<(u8, &[u8])> {
    match name {
        b"system.posix_acl_access" => Some((2, b"")),
        b"system.posix_acl_default" => Some((3, b"")),
        _ => [(1, &b"user."[..]), (4, b"trusted."), (6, b"security.")]
            .into_iter()
            .find_map(|(index, prefix)| Some((index, name.strip_prefix(prefix)?))),
    }
}

/// `struct erofs_inode_extended` with what follows it.
fn inode(node: &Node, number: u64) -> io::Result<Vec<u8>> {
    let xattrs = xattr_bytes(&node.attributes)?;
    let (layout, union) = match (&node.data, node.kind) {
        (_, NodeKind::CharDevice | NodeKind::BlockDevice) => (0, encoded_device(node.device)),
        (Data::Plain(block), _) => (0, *block),
        (Data::Inline(_), _) => (2, 0),
        (Data::Chunks { bits, .. }, _) => (4, u32::from(*bits)),
    };
    let xattr_count = if xattrs.is_empty() { 0 } else { (xattrs.len() - 12) / 4 + 1 };
    let mut bytes = Vec::with_capacity(64 + xattrs.len());
    bytes.extend_from_slice(&(layout << 1 | 1_u16).to_le_bytes());
    bytes.extend_from_slice(&u16::try_from(xattr_count).map_err(io::Error::other)?.to_le_bytes());
    let mode = node.kind.numbers().0 | u16::try_from(node.attributes.mode & 0o7777).unwrap_or(0);
    bytes.extend_from_slice(&mode.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&node.size.to_le_bytes());
    bytes.extend_from_slice(&union.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&node.attributes.uid.to_le_bytes());
    bytes.extend_from_slice(&node.attributes.gid.to_le_bytes());
    bytes.extend_from_slice(&node.attributes.mtime_seconds.to_le_bytes());
    bytes.extend_from_slice(&node.attributes.mtime_nanoseconds.to_le_bytes());
    bytes.extend_from_slice(&node.links.to_le_bytes());
    bytes.extend_from_slice(&[0; 16]);
    bytes.extend_from_slice(&xattrs);
    match &node.data {
        Data::Plain(_) => {}
        Data::Inline(target) => bytes.extend_from_slice(target),
        Data::Chunks { blocks, .. } => blocks.iter().for_each(|block| bytes.extend_from_slice(&block.to_le_bytes())),
    }
    Ok(bytes)
}

/// As the kernel's `new_encode_dev`.
fn encoded_device(device: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

fn superblock(inodes: u64, blocks: u32, meta: u32, is_chunked: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    bytes.extend_from_slice(&MAGIC.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]); // checksum: none
    bytes.extend_from_slice(&COMPAT_MTIME.to_le_bytes());
    bytes.extend_from_slice(&[BLOCK_BITS, 0]);
    bytes.extend_from_slice(&u16::try_from(FIRST_INODE / SLOT).unwrap_or(0).to_le_bytes());
    bytes.extend_from_slice(&inodes.to_le_bytes());
    bytes.extend_from_slice(&[0; 12]); // time of making: the same layer gives the same image
    bytes.extend_from_slice(&blocks.to_le_bytes());
    bytes.extend_from_slice(&meta.to_le_bytes());
    bytes.extend_from_slice(&[0; 36]); // shared attributes: none; uuid; name
    bytes.extend_from_slice(&(if is_chunked { INCOMPAT_CHUNKED } else { 0 }).to_le_bytes());
    bytes.resize(128, 0);
    bytes
}

#[cfg(test)]
mod tests;
