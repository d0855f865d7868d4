//! criu's requests and answers: protobuf (images/rpc.proto of its sources), one packet each, over a socket that `criu swrk` is given
//! as descriptor 3. Only the fields we use.

use std::os::fd::OwnedFd;

/// A message under construction.
#[derive(Debug, Default, Clone)]
pub(super) struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).unwrap_or(0));
    }

    pub(super) fn number(&mut self, field: u32, value: u64) -> &mut Self {
        self.varint(u64::from(field) << 3);
        self.varint(value);
        self
    }

    /// `false` is not written: it is the default of every switch.
    pub(super) fn switch(&mut self, field: u32, value: bool) -> &mut Self {
        if value { self.number(field, 1) } else { self }
    }

    pub(super) fn text(&mut self, field: u32, value: &str) -> &mut Self {
        self.bytes(field, value.as_bytes())
    }

    pub(super) fn message(&mut self, field: u32, value: &Self) -> &mut Self {
        self.bytes(field, &value.0)
    }

    fn bytes(&mut self, field: u32, value: &[u8]) -> &mut Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// One field of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in order; `None` when it is cut or of a form we do not know.
pub(super) fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Field<'_>)>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Field::Number(varint(&mut bytes)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Field::Bytes(value)
            }
            _ => return None,
        };
        found.push((key >> 3, value));
    }
    Some(found)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f).checked_shl(shift)?;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// What criu answered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) success: bool,
    /// Of a restored process.
    pub(super) pid: Option<u32>,
    /// A stage it has come to and waits at, with the pid of the process it is about.
    pub(super) notify: Option<(String, u32)>,
    pub(super) has_memory_tracking: bool,
    pub(super) message: String,
}

impl Answer {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut answer = Self::default();
        let number = |value: Field<'_>| match value {
            Field::Number(number) => u32::try_from(number).ok(),
            Field::Bytes(_) => None,
        };
        let first = |bytes: &[u8]| fields(bytes).and_then(|inner| inner.first().and_then(|(_, value)| number(*value)));
        for (field, value) in fields(bytes)? {
            match (field, value) {
                (2, Field::Number(success)) => answer.success = success != 0,
                (4, Field::Bytes(restored)) => answer.pid = first(restored),
                (5, Field::Bytes(notify)) => {
                    let mut stage = (String::new(), 0);
                    for (field, value) in fields(notify)? {
                        match (field, value) {
                            (1, Field::Bytes(script)) => stage.0 = String::from_utf8_lossy(script).into_owned(),
                            (2, value) => stage.1 = number(value)?,
                            _ => {}
                        }
                    }
                    answer.notify = Some(stage);
                }
                (8, Field::Bytes(features)) => answer.has_memory_tracking = first(features) == Some(1),
                (9, Field::Bytes(text)) => answer.message = String::from_utf8_lossy(text).into_owned(),
                _ => {}
            }
        }
        Some(answer)
    }
}

/// Sends a request whole.
pub(super) fn send(socket: &OwnedFd, request: &Message) -> Result<(), rustix::io::Errno> {
    let flags = rustix::net::SendFlags::NOSIGNAL;
    rustix::io::retry_on_intr(|| rustix::net::send(socket, request.as_bytes(), flags)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_as_protobuf_writes_them() {
        let mut inner = Message::default();
        inner.number(1, 3).number(2, 300).switch(3, false).text(13, "/r");
        let mut request = Message::default();
        request.number(1, 1).message(2, &inner);
        let expected = [8, 1, 18, 9, 8, 3, 16, 0xac, 2, 106, 2, b'/', b'r'];
        assert_eq!(request.as_bytes(), expected);
    }

    #[test]
    fn answers_are_read_and_cut_ones_refused() {
        // RESTORE, success, restore { pid: 77 }; then a notification of "post-restore".
        assert_eq!(Answer::parse(&[8, 2, 16, 1, 34, 2, 8, 77]).unwrap().pid, Some(77));
        let notify = [8, 6, 16, 1, 42, 6, 10, 2, b'a', b'b', 16, 5];
        assert_eq!(Answer::parse(&notify).unwrap().notify, Some(("ab".to_owned(), 5)));
        assert_eq!(Answer::parse(&[16]), None);
        assert_eq!(Answer::parse(&[34, 9, 8]), None);
        assert_eq!(fields(&[0xff; 12]), None);
    }
}
