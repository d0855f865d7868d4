//! Where a finished document goes: a stream, a file, or an OTLP collector by one HTTP request.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::Form;
use super::form::{Collector, Target};
use crate::failure::{Failure, Outcome};
use crate::output::Output;

const PATIENCE: Duration = Duration::from_secs(5);
/// What is read of a collector's answer.
const ANSWER_BYTES_MAX: u64 = 4096;

pub(super) fn deliver(document: &str, form: &Form) -> Outcome<()> {
    match &form.target {
        Target::Stderr => {
            Output::error_bytes(document.as_bytes());
            Ok(())
        }
        Target::Stdout => {
            let mut out = Output::new();
            out.write(document.as_bytes())?;
            out.flush()
        }
        Target::File(path) => std::fs::write(path, document)
            .map_err(|error| Failure::new(format!("cannot write the trace to {}: {error}", path.display()))),
        Target::Collector(collector) => post(document, collector).map_err(|error| {
            Failure::new(format!("cannot send the trace to {}:{}: {error}", collector.host, collector.port))
                .hint("is a collector listening there for OTLP over HTTP?")
        }),
    }
}

fn post(document: &str, collector: &Collector) -> std::io::Result<()> {
    let addresses = (collector.host.as_str(), collector.port).to_socket_addrs()?;
    let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
    for address in addresses {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return exchange(stream, document, collector),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn exchange(mut stream: TcpStream, document: &str, collector: &Collector) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let host = if collector.host.contains(':') { format!("[{}]", collector.host) } else { collector.host.clone() };
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {host}:{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        collector.path,
        collector.port,
        document.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(document.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.lines().next().unwrap_or_default().to_owned();
    match status.split(' ').nth(1) {
        Some(code) if code.starts_with('2') => Ok(()),
        _ => Err(std::io::Error::other(format!("it answered {status:?}"))),
    }
}
