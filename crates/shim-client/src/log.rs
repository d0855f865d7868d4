//! `<bundle>/log`: the FIFO into which shims write what they have to say. Without it some do not start; while nobody reads it they would stop at
//! a full pipe. Our own shim logs to a file where there is none.

use std::path::Path;

use rustix::fs::{CWD, FileType, Mode};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::unix::pipe;
use tokio::task::AbortHandle;

const FILE: &str = "log";
/// Longer lines are cut into pieces.
const LINE_BYTES_MAX: u64 = 16 << 10;

/// Makes the FIFO if need be and gives its lines, with their ends, to `take` in a job, which goes on until it is aborted.
///
/// # Errors
/// The kernel's.
pub fn follow_log(bundle: &Path, mut take: impl FnMut(&[u8]) + Send + 'static) -> std::io::Result<AbortHandle> {
    let path = bundle.join(FILE);
    match rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    // For writing, too: so it never ends, however many shims come and go.
    let receiver = pipe::OpenOptions::new().read_write(true).open_receiver(&path)?;
    let job = tokio::spawn(async move {
        let mut lines = BufReader::new(receiver);
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => take(&line),
            }
        }
    });
    Ok(job.abort_handle())
}
