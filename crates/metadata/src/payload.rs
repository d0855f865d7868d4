//! Writes as the bytes of a journal record, and back. A write: kind (0 deletes, 1 puts), table, length of the key (u32, little endian), length of
//! the value, key, value.

use crate::schema::{table_of, tag_of};
use crate::{Table, Write};

const DELETE: u8 = 0;
const PUT: u8 = 1;

pub(crate) fn encode(writes: &[&Write]) -> Vec<u8> {
    let mut payload = Vec::new();
    for write in writes {
        let (kind, table, key, value): (u8, Table, &str, &[u8]) = match write {
            Write::Put { table, key, value } => (PUT, *table, key, value),
            Write::Delete { table, key } => (DELETE, *table, key, &[]),
        };
        payload.extend_from_slice(&[kind, tag_of(table)]);
        for bytes in [key.as_bytes(), value] {
            // Both are far below: `check_size`.
            payload.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        }
        payload.extend_from_slice(key.as_bytes());
        payload.extend_from_slice(value);
    }
    payload
}

/// `None` for bytes that [`encode`] never made.
pub(crate) fn decode(mut payload: &[u8]) -> Option<Vec<Write>> {
    let mut writes = Vec::new();
    while let Some((&[kind, tag], rest)) = payload.split_first_chunk::<2>() {
        let (key_len, rest) = rest.split_first_chunk::<4>()?;
        let (value_len, rest) = rest.split_first_chunk::<4>()?;
        let (key, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*key_len)).ok()?)?;
        let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*value_len)).ok()?)?;
        let (table, key) = (table_of(tag)?, str::from_utf8(key).ok()?.to_owned());
        writes.push(match kind {
            PUT => Write::Put { table, key, value: value.to_vec() },
            DELETE => Write::Delete { table, key },
            _ => return None,
        });
        payload = rest;
    }
    payload.is_empty().then_some(writes)
}
