//! The other end of `--console-socket`: receives the terminal's master.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

#[derive(Debug)]
pub struct DescriptorSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl DescriptorSocket {
    pub fn listen(path: &Path) -> Self {
        Self { listener: UnixListener::bind(path).unwrap(), path: path.to_owned() }
    }

    pub fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// The descriptor a runtime sent (it has ended by now, or will not wait for us).
    pub fn receive(&self) -> File {
        let (stream, _) = self.listener.accept().unwrap();
        let mut payload = [0; 256];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut payload)];
        rustix::net::recvmsg(&stream, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        let found = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        File::from(found.expect("a descriptor comes along"))
    }
}

/// Reads a terminal until a text has come; returns all that came.
pub fn read_until(master: &mut File, text: &str) -> String {
    let mut seen = String::new();
    let mut buffer = [0; 1024];
    while !seen.contains(text) {
        match master.read(&mut buffer) {
            Ok(0) | Err(_) => panic!("the terminal ended before {text:?}; it said {seen:?}"),
            Ok(length) => seen.push_str(&String::from_utf8_lossy(&buffer[..length])),
        }
    }
    seen
}

pub fn type_line(master: &mut File, line: &str) {
    master.write_all(format!("{line}\n").as_bytes()).unwrap();
}
