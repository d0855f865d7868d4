//! From a URL to a connected stream: TCP, through a proxy where one is configured, and TLS on top.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::ReadBufCursor;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::address;
use crate::proxy::{Proxies, Proxy};
use crate::tls::Tls;

/// The answer of a proxy to CONNECT is at most this long.
const PROXY_HEAD_BYTES_MAX: usize = 8 << 10;

#[derive(Debug, Clone)]
pub(crate) struct Connector {
    pub(crate) tls: Arc<Tls>,
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) timeout: Duration,
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let late = || io::Error::new(io::ErrorKind::TimedOut, "no connection within the time allowed");
            tokio::time::timeout(connector.timeout, connector.connect(&uri)).await.unwrap_or_else(|_| Err(late()))
        })
    }
}

impl Connector {
    pub(crate) async fn connect(&self, uri: &Uri) -> io::Result<Stream> {
        let is_tls = uri.scheme_str() == Some("https");
        let (host, port) = (address::host_of(uri), address::port_of(uri));
        let proxy = self.proxies.for_uri(uri);
        let tcp = match proxy {
            None => tcp(&host, port).await?,
            Some(proxy) => {
                let mut stream = tcp(&proxy.host, proxy.port).await?;
                if is_tls {
                    tunnel(&mut stream, proxy, &host, port).await?;
                }
                stream
            }
        };
        tcp.set_nodelay(true)?;
        if !is_tls {
            return Ok(Stream { io: TokioIo::new(Io::Plain(tcp)), is_proxied: proxy.is_some() });
        }
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let tls = TlsConnector::from(self.tls.config()?).connect(name, tcp).await?;
        Ok(Stream { io: TokioIo::new(Io::Tls(Box::new(tls))), is_proxied: false })
    }
}

/// Every address of the host in turn.
async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in tokio::net::lookup_host((host, port)).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// RFC 9110 section 9.3.6.
async fn tunnel(stream: &mut TcpStream, proxy: &Proxy, host: &str, port: u16) -> io::Result<()> {
    let target = address::joined(host, port);
    let mut head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
    if let Some(value) = &proxy.authorization {
        head.extend_from_slice(b"Proxy-Authorization: ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    stream.write_all(&head).await?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the head belongs to TLS.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= PROXY_HEAD_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the proxy's answer does not end"));
        }
        answer.push(stream.read_u8().await?);
    }
    let status = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
    let is_good = status.starts_with("HTTP/1.") && status.split(' ').nth(1).is_some_and(|code| code.starts_with('2'));
    if is_good { Ok(()) } else { Err(io::Error::other(format!("the proxy refuses to connect: {status}"))) }
}

/// A connected stream as hyper wants it.
#[derive(Debug)]
pub(crate) struct Stream {
    io: TokioIo<Io>,
    is_proxied: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.is_proxied)
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
