use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use super::message::{self, Target};
use super::wire::{Decoder, Encoder};
use super::*;

const TARGET: Target<'_> = Target { destination: "d.e", path: "/p", interface: "i.f", member: "M" };

#[test]
#[cfg(target_endian = "little")]
fn a_call_has_the_bytes_of_the_specification() {
    let bytes = message::call(7, TARGET, "su", b"\x01\0\0\0x\0\0\0\x05\0\0\0");
    let expected: Vec<u8> = [
        &b"l\x01\0\x01\x0c\0\0\0\x07\0\0\0\x48\0\0\0"[..],
        b"\x01\x01o\0\x02\0\0\0/p\0\0\0\0\0\0",
        b"\x02\x01s\0\x03\0\0\0i.f\0\0\0\0\0",
        b"\x03\x01s\0\x01\0\0\0M\0\0\0\0\0\0\0",
        b"\x06\x01s\0\x03\0\0\0d.e\0\0\0\0\0",
        b"\x08\x01g\0\x02su\0",
        b"\x01\0\0\0x\0\0\0\x05\0\0\0",
    ]
    .concat();
    assert_eq!(bytes.len(), expected.len());
    assert_eq!(bytes, expected);
}

#[test]
#[cfg(target_endian = "little")]
fn properties_are_aligned_structs_with_variants() {
    let mut encoder = Encoder::default();
    encoder.properties(&[
        ("A", Value::Bool(true)),
        ("B", Value::U64(2)),
        ("C", Value::Bytes(vec![3])),
        ("D", Value::NumberPairs(vec![("x".into(), 4)])),
        ("E", Value::U32List(vec![5])),
    ]);
    let expected: Vec<u8> = [
        &b"\x73\0\0\0\0\0\0\0"[..],
        b"\x01\0\0\0A\0\x01b\0\0\0\0\x01\0\0\0",
        b"\x01\0\0\0B\0\x01t\0\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0",
        b"\x01\0\0\0C\0\x02ay\0\0\0\x01\0\0\0\x03\0\0\0",
        b"\0\0\0\0",
        b"\x01\0\0\0D\0\x05a(st)\0\0\0\0\0\x10\0\0\0\0\0\0\0",
        b"\x01\0\0\0x\0\0\0\x04\0\0\0\0\0\0\0",
        b"\x01\0\0\0E\0\x02au\0\0\0\x04\0\0\0\x05\0\0\0",
    ]
    .concat();
    // The length is that of everything after the padding of the length itself.
    let length = u32::from_ne_bytes(encoder.bytes[..4].try_into().unwrap());
    assert_eq!(usize::try_from(length).unwrap(), encoder.bytes.len() - 8);
    assert_eq!(encoder.bytes[8..24], expected[8..24]);
    assert_eq!(encoder.bytes[24..48], expected[24..48]);
}

#[test]
fn what_we_write_we_read() {
    let bytes = message::call(9, TARGET, "s", b"\x02\0\0\0ab\0");
    let head: [u8; 16] = bytes[..16].try_into().unwrap();
    assert_eq!(Message::total_length(&head).unwrap(), bytes.len());
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((message.member.as_str(), message.signature.as_str()), ("M", "s"));
    assert_eq!(message.body().text(), Some("ab"));
}

/// Whatever arrives, reading ends in a message or in none, never in a panic or a large allocation.
#[test]
fn damaged_messages_are_refused() {
    let good = message::call(9, TARGET, "s", b"\x02\0\0\0ab\0");
    for at in 0..good.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] = value;
            let head: [u8; 16] = bad[..16].try_into().unwrap();
            assert!(Message::total_length(&head).map_or(true, |length| length <= 4 << 20));
            drop(Message::parse(&bad));
        }
        assert!(Message::parse(&good[..at]).is_none());
    }
    assert_eq!(Decoder::new(b"\xff\xff\xff\xff").text(), None);
    assert_eq!(Decoder::new(b"\x01\0\0\0\xff\0").text(), None);
    assert_eq!(Decoder::new(b"\x01\0\0\0ab").text(), None);
}

fn fake(script: impl FnOnce(std::os::unix::net::UnixStream) + Send + 'static) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || script(listener.accept().unwrap().0));
    (directory, socket)
}

fn let_in(stream: &mut std::os::unix::net::UnixStream) {
    let mut line = [0; 64];
    let count = stream.read(&mut line).unwrap();
    assert!(line[..count].starts_with(b"\0AUTH EXTERNAL ") && line[..count].ends_with(b"\r\nBEGIN\r\n"));
    stream.write_all(b"OK 0123456789abcdef\r\n").unwrap();
}

const PING: Call<'_> = Call { destination: "d", path: "/", interface: "i", member: "Ping", signature: "" };

#[test]
fn a_silent_service_is_named_with_what_was_asked() {
    let (_directory, socket) = fake(|mut stream| {
        let_in(&mut stream);
        // Held open until the client gives up.
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
    });
    let mut connection = Connection::direct(&socket, "JobRemoved", Duration::from_millis(200)).unwrap();
    let error = connection.call(&PING, |_| ()).unwrap_err();
    assert_eq!(error.class(), ErrorClass::DeadlineExceeded);
    let text = error.to_string();
    assert!(text.starts_with("no answer from ") && text.contains("socket to Ping within "), "{text}");
}

#[test]
fn a_service_that_hangs_up_or_is_not_there_is_unavailable() {
    let (_directory, socket) = fake(|mut stream| let_in(&mut stream));
    let mut connection = Connection::direct(&socket, "JobRemoved", Duration::from_secs(5)).unwrap();
    let error = connection.call(&PING, |_| ()).unwrap_err();
    assert!(matches!(error, DbusError::Closed { .. }), "{error:?}");
    let error = Connection::direct(std::path::Path::new("/nowhere/x"), "S", Duration::from_secs(5)).unwrap_err();
    assert_eq!((error.class(), error.to_string().as_str()), (ErrorClass::Unavailable, "cannot connect to /nowhere/x"));
}

#[test]
fn a_refused_uid_is_told_with_the_answer() {
    let (_directory, socket) = fake(|mut stream| {
        let mut line = [0; 64];
        assert_ne!(stream.read(&mut line).unwrap(), 0);
        stream.write_all(b"REJECTED EXTERNAL\r\n").unwrap();
    });
    let error = Connection::direct(&socket, "JobRemoved", Duration::from_secs(5)).unwrap_err();
    assert_eq!(error.class(), ErrorClass::PermissionDenied);
    assert!(error.to_string().ends_with("does not let us in: \"REJECTED EXTERNAL\""), "{error}");
}
