//! Marshalling: values into bytes and back, in the byte order of this machine, which is everybody's on a local socket.

/// A value of the types systemd's properties have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// `s`
    Text(String),
    /// `b`
    Bool(bool),
    /// `t`
    U64(u64),
    /// `au`
    U32List(Vec<u32>),
    /// `ay`
    Bytes(Vec<u8>),
    /// `a(ss)`
    TextPairs(Vec<(String, String)>),
    /// `a(st)`
    NumberPairs(Vec<(String, u64)>),
}

impl Value {
    pub(crate) fn signature(&self) -> &'static str {
        match self {
            Self::Text(_) => "s",
            Self::Bool(_) => "b",
            Self::U64(_) => "t",
            Self::U32List(_) => "au",
            Self::Bytes(_) => "ay",
            Self::TextPairs(_) => "a(ss)",
            Self::NumberPairs(_) => "a(st)",
        }
    }
}

/// Alignment of a struct and of every 64-bit type.
const EIGHT: usize = 8;

#[derive(Debug, Default)]
pub(crate) struct Encoder {
    pub(crate) bytes: Vec<u8>,
}

impl Encoder {
    pub(crate) fn align(&mut self, boundary: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(boundary), 0);
    }

    pub(crate) fn byte(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend(value.to_ne_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.align(EIGHT);
        self.bytes.extend(value.to_ne_bytes());
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.u32(value.into());
    }

    /// `s` and `o`.
    pub(crate) fn text(&mut self, value: &str) {
        self.u32(length(value.len()));
        self.bytes.extend(value.as_bytes());
        self.bytes.push(0);
    }

    /// `g`.
    pub(crate) fn signature(&mut self, value: &str) {
        self.bytes.push(u8::try_from(value.len()).expect("the signatures we write are constants shorter than 256"));
        self.bytes.extend(value.as_bytes());
        self.bytes.push(0);
    }

    /// An array: its length in bytes goes first, without the padding before the first element.
    pub(crate) fn array<T>(&mut self, boundary: usize, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.u32(0);
        let at = self.bytes.len() - 4;
        self.align(boundary);
        let start = self.bytes.len();
        for item in items {
            each(self, item);
        }
        let size = length(self.bytes.len() - start);
        self.bytes[at..at + 4].copy_from_slice(&size.to_ne_bytes());
    }

    pub(crate) fn structure(&mut self, fields: impl FnOnce(&mut Self)) {
        self.align(EIGHT);
        fields(self);
    }

    pub(crate) fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        self.value(value);
    }

    /// `a(sv)`: properties by name.
    pub(crate) fn properties(&mut self, properties: &[(&'static str, Value)]) {
        self.array(EIGHT, properties, |encoder, (name, value)| {
            encoder.structure(|encoder| {
                encoder.text(name);
                encoder.variant(value);
            });
        });
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Text(text) => self.text(text),
            Value::Bool(value) => self.bool(*value),
            Value::U64(value) => self.u64(*value),
            Value::U32List(list) => self.array(4, list, |encoder, item| encoder.u32(*item)),
            Value::Bytes(bytes) => self.array(1, bytes, |encoder, byte| encoder.byte(*byte)),
            Value::TextPairs(pairs) => self.array(EIGHT, pairs, |encoder, (first, second)| {
                encoder.structure(|encoder| {
                    encoder.text(first);
                    encoder.text(second);
                });
            }),
            Value::NumberPairs(pairs) => self.array(EIGHT, pairs, |encoder, (first, second)| {
                encoder.structure(|encoder| {
                    encoder.text(first);
                    encoder.u64(*second);
                });
            }),
        }
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("what we send is far below 4 GiB")
}

/// Reads from the start of a message or a body; `None` when the bytes end too early or are not what they should be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn align(&mut self, boundary: usize) {
        self.at = self.at.next_multiple_of(boundary);
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.align(4);
        Some(u32::from_ne_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.u32()?).ok()?;
        self.terminated(length)
    }

    pub(crate) fn signature(&mut self) -> Option<&'a str> {
        let length = usize::from(self.byte()?);
        self.terminated(length)
    }

    fn terminated(&mut self, length: usize) -> Option<&'a str> {
        let (text, end) = self.take(length.checked_add(1)?)?.split_at(length);
        (end == [0]).then(|| std::str::from_utf8(text).ok()).flatten()
    }
}
