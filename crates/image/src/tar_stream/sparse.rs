//! Sparse files: which parts of a file the archive holds.

use super::header::{self, GNU_REAL_SIZE, GNU_SPARSE, Header};
use super::pax::{PaxSparse, decimal};

/// Pieces of a sparse file that are taken; a map is bounded by `META_SIZE_MAX` as text too.
pub(super) const PIECES_MAX: usize = 1 << 16;

/// Where stored bytes go in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// GNU's old form: four pieces in the header, more in following blocks. Returns whether more follow.
pub(super) fn from_gnu_header(header: &Header, pieces: &mut Vec<Piece>) -> Result<(u64, bool), &'static str> {
    let real_size = header.number(GNU_REAL_SIZE).and_then(|size| u64::try_from(size).ok()).ok_or("bad sparse size")?;
    let more = from_gnu_block(&header.0[GNU_SPARSE], pieces)?;
    Ok((real_size, more))
}

/// Pairs of numbers of 12 bytes and a byte that says whether another block follows.
pub(super) fn from_gnu_block(block: &[u8], pieces: &mut Vec<Piece>) -> Result<bool, &'static str> {
    let mut numbers = block.chunks_exact(12);
    while let (Some(offset), Some(length)) = (numbers.next(), numbers.next()) {
        // The first empty pair ends the list.
        if offset[0] == 0 || length[0] == 0 {
            break;
        }
        let natural =
            |field| header::number(field).and_then(|number| u64::try_from(number).ok()).ok_or("bad sparse map");
        push(pieces, natural(offset)?, natural(length)?)?;
    }
    let flag = block.get(block.len() / 24 * 24).copied().unwrap_or(0);
    Ok(flag != 0)
}

/// PAX versions 0.0 and 0.1: the map is in the records.
pub(super) fn from_records(sparse: &PaxSparse) -> Result<Vec<Piece>, &'static str> {
    let (pairs, rest) = sparse.map.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("sparse map with an odd number of numbers");
    }
    let mut pieces = Vec::new();
    for [offset, length] in pairs {
        push(&mut pieces, *offset, *length)?;
    }
    Ok(pieces)
}

/// PAX version 1.0: decimal numbers on lines at the start of the data. Feeds on blocks until it has the whole map.
#[derive(Debug, Default)]
pub(super) struct MapText {
    number: Vec<u8>,
    numbers: Vec<u64>,
    count: Option<usize>,
}

impl MapText {
    /// Returns the map when the block completed it.
    pub(super) fn feed(&mut self, block: &[u8]) -> Result<Option<Vec<Piece>>, &'static str> {
        for byte in block {
            if *byte != b'\n' {
                if self.number.len() == 20 {
                    return Err("bad sparse map");
                }
                self.number.push(*byte);
                continue;
            }
            let number = decimal(&self.number).ok_or("bad sparse map")?;
            self.number.clear();
            match self.count {
                None => {
                    let count = usize::try_from(number).ok().filter(|count| *count <= PIECES_MAX);
                    self.count = Some(count.ok_or("too many pieces in a sparse file")?);
                }
                Some(_) => self.numbers.push(number),
            }
            if self.count == Some(self.numbers.len() / 2) && self.numbers.len().is_multiple_of(2) {
                let map = PaxSparse { map: std::mem::take(&mut self.numbers), ..PaxSparse::default() };
                return from_records(&map).map(Some);
            }
        }
        Ok(None)
    }
}

/// Pieces in order, without overlap, inside the file, and as long together as what is stored.
pub(super) fn check(pieces: &[Piece], real_size: u64, stored: u64) -> Result<(), &'static str> {
    let mut end = 0;
    let mut total: u64 = 0;
    for piece in pieces {
        if piece.offset < end {
            return Err("sparse map out of order");
        }
        end = piece.offset.checked_add(piece.length).ok_or("bad sparse map")?;
        total = total.checked_add(piece.length).ok_or("bad sparse map")?;
    }
    if end > real_size || i64::try_from(real_size).is_err() {
        return Err("sparse map beyond the end of the file");
    }
    if total != stored {
        return Err("sparse map and stored size differ");
    }
    Ok(())
}

fn push(pieces: &mut Vec<Piece>, offset: u64, length: u64) -> Result<(), &'static str> {
    if pieces.len() == PIECES_MAX {
        return Err("too many pieces in a sparse file");
    }
    pieces.push(Piece { offset, length });
    Ok(())
}
