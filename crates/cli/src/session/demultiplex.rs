//! Docker's multiplexed stream: frames of `[stream, 0, 0, 0, length as u32 big-endian]` and as many bytes.

use std::io::{self, Read};

use crate::failure::{Failure, Outcome};
use crate::output::Output;

const BUFFER_BYTES: usize = 32 << 10;

/// Where a frame's bytes go.
pub(crate) trait Target {
    fn stdout(&mut self, bytes: &[u8]) -> Outcome<()>;
    fn stderr(&mut self, bytes: &[u8]) -> Outcome<()>;
    /// Nothing more is at hand; what was written should be seen.
    fn pause(&mut self) -> Outcome<()>;
}

impl Target for Output {
    fn stdout(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.write(bytes)
    }

    fn stderr(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.flush()?;
        Self::error_bytes(bytes);
        Ok(())
    }

    fn pause(&mut self) -> Outcome<()> {
        self.flush()
    }
}

/// The frame being read: its stream and the bytes left.
#[derive(Default)]
struct Frame {
    header: [u8; 8],
    header_length: usize,
    left: usize,
}

/// Copies frames to `target` until the stream ends; an end in the middle of a frame is an error.
pub(crate) fn demultiplex(stream: &mut impl Read, target: &mut impl Target) -> Outcome<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut frame = Frame::default();
    loop {
        match stream.read(&mut buffer) {
            Ok(0) if frame.left == 0 && frame.header_length == 0 => return target.pause(),
            Ok(0) => return Err(Failure::new("the container's output ended in the middle of a frame")),
            Ok(length) => {
                frame.consume(&buffer[..length], target)?;
                if length < BUFFER_BYTES {
                    target.pause()?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::new("lost the container's output").because(&error)),
        }
    }
}

impl Frame {
    fn consume(&mut self, mut bytes: &[u8], target: &mut impl Target) -> Outcome<()> {
        while !bytes.is_empty() {
            if self.left == 0 {
                let wanted = (8 - self.header_length).min(bytes.len());
                self.header[self.header_length..self.header_length + wanted].copy_from_slice(&bytes[..wanted]);
                self.header_length += wanted;
                bytes = &bytes[wanted..];
                if self.header_length == 8 {
                    self.start()?;
                }
                continue;
            }
            let length = self.left.min(bytes.len());
            match self.header[0] {
                2 => target.stderr(&bytes[..length])?,
                _ => target.stdout(&bytes[..length])?,
            }
            bytes = &bytes[length..];
            self.left -= length;
        }
        Ok(())
    }

    fn start(&mut self) -> Outcome<()> {
        let [stream, a, b, c, size @ ..] = self.header;
        if stream > 2 || [a, b, c] != [0; 3] {
            return Err(Failure::new(format!("the container's output is not framed: header {:02x?}", self.header)));
        }
        self.left = usize::try_from(u32::from_be_bytes(size)).unwrap_or(usize::MAX);
        self.header_length = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Collected(String);

    impl Target for Collected {
        fn stdout(&mut self, bytes: &[u8]) -> Outcome<()> {
            self.0.push_str(&format!("o{}", String::from_utf8_lossy(bytes)));
            Ok(())
        }
        fn stderr(&mut self, bytes: &[u8]) -> Outcome<()> {
            self.0.push_str(&format!("e{}", String::from_utf8_lossy(bytes)));
            Ok(())
        }
        fn pause(&mut self) -> Outcome<()> {
            Ok(())
        }
    }

    /// Hands out at most `step` bytes per read.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(self.0.len()).min(out.len());
            out[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    const TWO_FRAMES: &[u8] = b"\x01\0\0\0\0\0\0\x02hi\x02\0\0\0\0\0\0\x03bad\x01\0\0\0\0\0\0\0";

    #[test]
    fn any_split_of_the_bytes() {
        for step in 1..TWO_FRAMES.len() {
            let mut seen = Collected::default();
            demultiplex(&mut Slow(TWO_FRAMES, step), &mut seen).unwrap();
            assert_eq!(seen.0.replace(['o', 'e'], ""), "hibad", "{step}");
        }
        let mut seen = Collected::default();
        demultiplex(&mut Slow(TWO_FRAMES, 100), &mut seen).unwrap();
        assert_eq!(seen.0, "ohiebad");
    }

    #[test]
    fn broken_streams() {
        let run = |bytes: &[u8]| demultiplex(&mut Slow(bytes, 100), &mut Collected::default()).unwrap_err().message;
        assert_eq!(run(&TWO_FRAMES[..4]), "the container's output ended in the middle of a frame");
        assert_eq!(run(&TWO_FRAMES[..9]), "the container's output ended in the middle of a frame");
        assert!(run(b"plain text here").starts_with("the container's output is not framed"));
    }
}
