//! Bytes that go to a process and come back, exactly (S-133).

use std::io::{Read, Write};

use crate::Instance;
use crate::registry::noise;

/// Mebibytes that a test sends: these, or 1,024 in the long form.
pub fn mebibytes(short: usize) -> usize {
    std::env::var_os("BERTH_LONG_IO").map_or(short, |_| 1024)
}

/// Every mebibyte differs from the ones around it.
fn block(number: usize) -> Vec<u8> {
    noise(1 << 20, number as u64 + 1)
}

/// Writes blocks and reads them back; in the middle the daemon is killed and comes again. The input is closed when all is back.
///
/// # Panics
/// When a byte is lost, doubled or changed.
#[track_caller]
pub fn echo_over_a_restart(
    instance: &mut Instance,
    blocks: usize,
    mut stdin: impl Write + Send + 'static,
    stdout: &mut impl Read,
) {
    let writer = std::thread::spawn(move || {
        (0..blocks).for_each(|number| stdin.write_all(&block(number)).unwrap());
        stdin
    });
    let mut back = vec![0; 1 << 20];
    for number in 0..blocks {
        stdout.read_exact(&mut back).unwrap_or_else(|error| panic!("block {number}: {error}"));
        let (sent, differs) = (block(number), |(got, sent): (&u8, &u8)| got != sent);
        let place = back.iter().zip(&sent).position(differs);
        assert_eq!(place, None, "block {number}: {:?}", place.map(|place| &back[place..(place + 8).min(back.len())]));
        if number == blocks / 2 {
            instance.kill_daemon();
            instance.spawn();
        }
    }
    drop(writer.join().unwrap());
}
