//! How a stream is compressed: told by its first bytes, undone while reading, and bounded so that a small file cannot grow without end.

use std::io::{self, Chain, Cursor, Read};

use crate::{ImageError, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// How far content may grow when it is unpacked. A layer may be as large as it likes, but not out of proportion to what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expansion {
    /// Unpacked bytes per compressed byte.
    pub ratio_max: u64,
    /// Up to this many bytes any ratio is fine.
    pub bytes_free: u64,
}

impl Default for Expansion {
    fn default() -> Self {
        Self { ratio_max: 250, bytes_free: 4 << 30 }
    }
}

/// How much of what was unpacked a zstd decoder must keep: its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Window {
    /// 8 MiB, what all levels but the `--ultra` ones keep to.
    Usual,
    /// 32 MiB, what `zstd -20` uses. No more is taken.
    Wide,
}

impl Window {
    /// As a power of two.
    const fn log_max(self) -> u32 {
        match self {
            Self::Usual => 23,
            Self::Wide => 25,
        }
    }
}

/// A reader whose first bytes were looked at and put back.
pub(crate) type Peeked<R> = Chain<Cursor<Vec<u8>>, R>;

/// Tells the compression from the first bytes.
///
/// # Errors
/// `InvalidArgument` for a compression by name that we do not read.
pub(crate) fn detect<R: Read>(mut source: R, what: &str) -> Result<(Compression, Peeked<R>)> {
    let mut first = vec![0; 6];
    let mut len = 0;
    while len < first.len() {
        match source.read(&mut first[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(ImageError::Io { operation: "read", object: what.to_owned(), source }),
        }
    }
    first.truncate(len);
    let compression = of_magic(&first).map_err(|name| ImageError::Invalid {
        what: "compression",
        why: format!("{what} is compressed with {name}; gzip and zstd are supported"),
    })?;
    Ok((compression, Cursor::new(first).chain(source)))
}

fn of_magic(first: &[u8]) -> std::result::Result<Compression, &'static str> {
    match first {
        [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Compression::Zstd),
        [b'B', b'Z', b'h', ..] => Err("bzip2"),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Err("xz"),
        [0x5d, 0, 0, ..] => Err("lzma"),
        [0x04, 0x22, 0x4d, 0x18, ..] => Err("lz4"),
        _ => Ok(Compression::None),
    }
}

/// Undoes the compression, within the allowed expansion.
pub(crate) fn decoder<'r>(
    compression: Compression,
    source: impl Read + Send + 'r,
    expansion: Expansion,
) -> io::Result<Box<dyn Read + Send + 'r>> {
    decoder_of(compression, Window::Wide, source, expansion)
}

/// What the stream's first frame needs; the others must do with it.
///
/// # Spec
/// RFC 8878, "Frame Header".
pub(crate) fn window<R: Read>(compression: Compression, mut source: R) -> io::Result<(Window, Peeked<R>)> {
    let mut first = Vec::new();
    if compression == Compression::Zstd {
        source.by_ref().take(FRAME_HEADER_BYTES_MAX).read_to_end(&mut first)?;
    }
    let usual = 1 << Window::Usual.log_max();
    let is_usual = compression != Compression::Zstd || frame_window(&first).is_some_and(|bytes| bytes <= usual);
    Ok((if is_usual { Window::Usual } else { Window::Wide }, Cursor::new(first).chain(source)))
}

const FRAME_HEADER_BYTES_MAX: u64 = 18;

/// `None` for what is no frame with content.
fn frame_window(first: &[u8]) -> Option<u64> {
    let rest = first.strip_prefix(&[0x28, 0xb5, 0x2f, 0xfd])?;
    let descriptor = *rest.first()?;
    let is_single_segment = descriptor & 0x20 != 0;
    if !is_single_segment {
        let window = *rest.get(1)?;
        let base = 1_u64 << (10 + u32::from(window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // The content is the window; its size follows the dictionary's id.
    let at = 1 + [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size = |bytes: usize| {
        let field = rest.get(at..at + bytes)?;
        Some(field.iter().rev().fold(0, |size, byte| size << 8 | u64::from(*byte)))
    };
    match descriptor >> 6 {
        0 => size(1),
        1 => size(2).map(|size| size + 256),
        2 => size(4),
        _ => size(8),
    }
}

/// The same with a window known before.
pub(crate) fn decoder_of<'r>(
    compression: Compression,
    window: Window,
    source: impl Read + Send + 'r,
    expansion: Expansion,
) -> io::Result<Box<dyn Read + Send + 'r>> {
    let counter = Count::default();
    let counted = Counting { inner: source, read: counter.clone() };
    let inner: Box<dyn Read + Send + 'r> = match compression {
        Compression::None => return Ok(Box::new(counted)),
        Compression::Gzip => {
            Box::new(flate2::bufread::MultiGzDecoder::new(io::BufReader::with_capacity(64 << 10, counted)))
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(counted)?;
            decoder.window_log_max(window.log_max())?;
            Box::new(decoder)
        }
    };
    Ok(Box::new(Bounded { inner, compressed: counter, unpacked: 0, expansion }))
}

/// Bytes read so far, shared by the two ends of a decoder.
#[derive(Debug, Clone, Default)]
struct Count(std::sync::Arc<std::sync::atomic::AtomicU64>);

struct Counting<R> {
    inner: R,
    read: Count,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.read.0.fetch_add(n as u64, std::sync::atomic::Ordering::Relaxed);
        Ok(n)
    }
}

struct Bounded<R> {
    inner: R,
    compressed: Count,
    unpacked: u64,
    expansion: Expansion,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.unpacked += n as u64;
        if self.unpacked > self.expansion.bytes_free {
            let compressed = self.compressed.0.load(std::sync::atomic::Ordering::Relaxed);
            if self.unpacked > compressed.saturating_mul(self.expansion.ratio_max) {
                let text = format!("{compressed} compressed bytes grow to more than {} bytes", self.unpacked);
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn read_all(bytes: &[u8], expansion: Expansion) -> io::Result<Vec<u8>> {
        let (compression, source) = detect(bytes, "it").unwrap();
        let mut out = Vec::new();
        decoder(compression, source, expansion)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn told_by_magic_and_undone() {
        let any = Expansion::default();
        assert_eq!(read_all(b"", any).unwrap(), b"");
        assert_eq!(read_all(b"abc", any).unwrap(), b"abc");
        assert_eq!(read_all(&gzip(b"hello"), any).unwrap(), b"hello");
        assert_eq!(read_all(&[gzip(b"hello"), gzip(b" you")].concat(), any).unwrap(), b"hello you");
        assert_eq!(read_all(&zstd::encode_all(&b"hello"[..], 3).unwrap(), any).unwrap(), b"hello");
        let error = detect(&b"BZh91AY"[..], "layer 3").map(|_| ()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid compression: layer 3 is compressed with bzip2; gzip and zstd are supported"
        );
    }

    #[test]
    fn bombs_are_stopped() {
        let zeros = vec![0; 8 << 20];
        let tight = Expansion { ratio_max: 250, bytes_free: 1 << 20 };
        for bomb in [gzip(&zeros), zstd::encode_all(&zeros[..], 3).unwrap()] {
            let error = read_all(&bomb, tight).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert_eq!(read_all(&bomb, Expansion::default()).unwrap().len(), 8 << 20);
        }
    }

    #[test]
    fn cut_short_or_followed_by_rubbish_is_an_error() {
        let whole = gzip(&[7; 5000]);
        assert!(read_all(&whole[..whole.len() - 1], Expansion::default()).is_err());
        assert!(read_all(&[&whole[..], b"rubbish"].concat(), Expansion::default()).is_err());
        let whole = zstd::encode_all(&[7; 5000][..], 3).unwrap();
        assert!(read_all(&whole[..whole.len() - 1], Expansion::default()).is_err());
    }

    #[test]
    fn the_window_is_in_the_first_frame() {
        let packed = |log: u32, length: usize, has_size: bool| {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
            if log > 0 {
                encoder.window_log(log).unwrap();
            }
            encoder.include_contentsize(has_size).unwrap();
            if has_size {
                encoder.set_pledged_src_size(Some(length as u64)).unwrap();
            }
            encoder.write_all(&vec![7; length]).unwrap();
            encoder.finish().unwrap()
        };
        for (bytes, expect) in [
            (packed(0, 100, true), Window::Usual),
            (packed(0, 400, true), Window::Usual),
            (packed(0, 100_000, true), Window::Usual),
            (packed(23, 20 << 20, false), Window::Usual),
            (packed(24, 20 << 20, false), Window::Wide),
            (packed(25, 40 << 20, true), Window::Wide),
            (b"\x50\x2a\x4d\x18\x00\x00\x00\x00".to_vec(), Window::Wide),
            (b"\x28\xb5\x2f".to_vec(), Window::Wide),
        ] {
            let (found, mut rest) = window(Compression::Zstd, bytes.as_slice()).unwrap();
            assert_eq!(found, expect, "{:?}", &bytes[..6.min(bytes.len())]);
            let mut again = Vec::new();
            rest.read_to_end(&mut again).unwrap();
            assert_eq!(again, bytes);
        }
        let bytes = packed(24, 20 << 20, false);
        let read = |window| {
            let mut decoder = decoder_of(Compression::Zstd, window, &bytes[..], Expansion::default()).unwrap();
            io::copy(&mut decoder, &mut io::sink())
        };
        assert!(read(Window::Usual).is_err());
        assert_eq!(read(Window::Wide).unwrap(), 20 << 20);
    }

    #[test]
    fn a_zstd_window_beyond_the_memory_limit_is_refused() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.include_contentsize(false).unwrap();
        encoder.write_all(&vec![1; 1 << 20]).unwrap();
        assert!(read_all(&encoder.finish().unwrap(), Expansion::default()).is_err());
    }
}
