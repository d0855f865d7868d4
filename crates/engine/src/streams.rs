//! Byte streams between async faces and blocking work: bounded channels of chunks, as `Read` and `Write`.

use std::io::{self, Read, Write};

use tokio::sync::mpsc;

use crate::api::ByteStream;
use crate::engine::Engine;
use crate::error::{EngineError, Result};

/// Chunks under way; with their size the memory a slow client can hold.
const CHANNEL: usize = 4;
const CHUNK_BYTES: usize = 256 * 1024;

/// A stream as a blocking reader. An error of the sender's comes out as an I/O error with its text.
#[derive(Debug)]
pub(crate) struct ChannelReader {
    stream: ByteStream,
    chunk: Vec<u8>,
    at: usize,
}

impl ChannelReader {
    pub(crate) const fn new(stream: ByteStream) -> Self {
        Self { stream, chunk: Vec::new(), at: 0 }
    }
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            match self.stream.blocking_recv() {
                None => return Ok(0),
                Some(Ok(chunk)) => (self.chunk, self.at) = (chunk, 0),
                Some(Err(error)) => return Err(io::Error::other(error)),
            }
        }
        let rest = &self.chunk[self.at..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.at += length;
        Ok(length)
    }
}

/// A blocking writer into a stream; waits for a slow client, fails when it is gone.
#[derive(Debug)]
pub(crate) struct ChannelWriter {
    sender: mpsc::Sender<Result<Vec<u8>>>,
    buffer: Vec<u8>,
}

impl ChannelWriter {
    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
        self.sender.blocking_send(Ok(chunk)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(CHUNK_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..length]);
        if self.buffer.len() >= CHUNK_BYTES {
            self.send()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

impl Engine {
    /// Runs a producer on a blocking thread; its error ends the stream as the last item.
    pub(crate) fn produce(
        &self,
        work: impl FnOnce(&Self, &mut ChannelWriter) -> Result<()> + Send + 'static,
    ) -> ByteStream {
        let (sender, stream) = mpsc::channel(CHANNEL);
        let engine = self.clone();
        // The thread ends with its work or when the client is gone; nobody waits for it.
        drop(tokio::task::spawn_blocking(move || {
            let mut writer = ChannelWriter { sender, buffer: Vec::with_capacity(CHUNK_BYTES) };
            let done = work(&engine, &mut writer)
                .and_then(|()| writer.flush().map_err(|error| EngineError::internal(error.to_string())));
            if let Err(error) = done {
                // A client that is gone does not want to know.
                drop(writer.sender.blocking_send(Err(error)));
            }
        }));
        stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let (sender, stream) = mpsc::channel(CHANNEL);
        let data: Vec<u8> = (0..300_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let sent = data.clone();
        let writer = std::thread::spawn(move || {
            let mut writer = ChannelWriter { sender, buffer: Vec::new() };
            writer.write_all(&sent).unwrap();
            writer.flush().unwrap();
        });
        let mut got = Vec::new();
        ChannelReader::new(stream).read_to_end(&mut got).unwrap();
        writer.join().unwrap();
        assert!(got == data);
    }

    #[test]
    fn errors_and_gone_clients() {
        let (sender, stream) = mpsc::channel(CHANNEL);
        sender.try_send(Err(EngineError::invalid("cut"))).unwrap();
        assert_eq!(ChannelReader::new(stream).read(&mut [0; 8]).unwrap_err().to_string(), "cut");
        let (sender, stream) = mpsc::channel(CHANNEL);
        drop(stream);
        let mut writer = ChannelWriter { sender, buffer: Vec::new() };
        assert!(writer.write_all(&[0; 2 * CHUNK_BYTES]).is_err());
    }
}
