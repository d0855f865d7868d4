//! A connection that stopped being HTTP: raw bytes both ways, half-closed by us when stdin ends.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;

/// The upgraded stream of an attach or exec.
#[derive(Debug)]
pub(crate) struct Hijacked {
    early: io::Cursor<Vec<u8>>,
    stream: UnixStream,
}

impl Hijacked {
    pub(super) fn new(early: Vec<u8>, stream: UnixStream) -> Self {
        Self { early: io::Cursor::new(early), stream }
    }

    /// A second handle, for the direction towards the process.
    pub(crate) fn writer(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }
}

impl Read for Hijacked {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.early.read(out)? {
            0 => self.stream.read(out),
            length => Ok(length),
        }
    }
}
