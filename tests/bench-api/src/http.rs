//! An HTTP/1.1 client that costs little: requests are bytes made before, answers are looked at only as far as needed.
//!
//! A load generator that parsed what it is given would measure itself.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const BUFFER_BYTES: usize = 64 << 10;
/// What is shown of an answer that was not expected.
const SHOWN_BYTES: usize = 400;

/// How to reach a server.
#[derive(Clone)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub name: ServerName<'static>,
    pub tls: Arc<ClientConfig>,
    /// The value of the authorization header, where no certificate says who asks.
    pub bearer: Option<String>,
}

/// One connection, used for one request after the other.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
    /// What of the buffer holds bytes that were not looked at.
    begin: usize,
    end: usize,
}

/// An answer's head.
struct Head {
    status: u16,
    /// None is chunked.
    length: Option<usize>,
}

// === impl Endpoint ===

impl Endpoint {
    pub async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect(self.address)
            .await
            .with_context(|| format!("connecting to {}", self.address))?;
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(self.tls.clone()).connect(self.name.clone(), stream).await?;
        Ok(Connection { stream, buffer: vec![0; BUFFER_BYTES], begin: 0, end: 0 })
    }

    /// A request in bytes. `accept` and the content's type are JSON unless said otherwise.
    pub fn request(&self, method: &str, path: &str, accept: &str, body: &[u8]) -> Vec<u8> {
        let authorization =
            self.bearer.as_ref().map_or(String::new(), |token| format!("authorization: Bearer {token}\r\n"));
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: api\r\nuser-agent: penstock-bench\r\naccept: {accept}\r\n{authorization}\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        request
    }
}

// === impl Connection ===

impl Connection {
    /// Sends a request and gives the answer's status and body.
    pub async fn call(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>)> {
        let mut body = Vec::new();
        let status = self.exchange(request, &mut |part| body.extend_from_slice(part)).await?;
        Ok((status, body))
    }

    /// Sends a request that must succeed; gives how many bytes the answer's body had.
    pub async fn ask(&mut self, request: &[u8]) -> Result<usize> {
        let (mut bytes, mut shown) = (0, Vec::new());
        let status = self
            .exchange(request, &mut |part| {
                bytes += part.len();
                if shown.len() < SHOWN_BYTES {
                    shown.extend_from_slice(&part[..part.len().min(SHOWN_BYTES)]);
                }
            })
            .await?;
        if !(200..300).contains(&status) {
            bail!("the server answered {status}: {}", String::from_utf8_lossy(&shown));
        }
        Ok(bytes)
    }

    async fn exchange(&mut self, request: &[u8], take: &mut (dyn FnMut(&[u8]) + Send)) -> Result<u16> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        let head = self.head().await?;
        match head.length {
            Some(length) => self.take_exactly(length, take).await?,
            None => while self.chunk(take).await? {},
        }
        Ok(head.status)
    }

    /// Sends a request whose answer does not end; parts of it are then read with [`Connection::chunk`].
    pub async fn open(&mut self, request: &[u8]) -> Result<()> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        match self.head().await? {
            Head { status: 200, length: None } => Ok(()),
            Head { status, .. } => bail!("the server answered {status} to a watch"),
        }
    }

    /// Reads one chunk; false if it was the last.
    pub async fn chunk(&mut self, take: &mut (dyn FnMut(&[u8]) + Send)) -> Result<bool> {
        let line = self.line().await?;
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let length = usize::from_str_radix(str::from_utf8(digits)?.trim(), 16).context("a chunk's length")?;
        self.take_exactly(length, take).await?;
        self.take_exactly(2, &mut |_| {}).await?;
        Ok(length > 0)
    }

    async fn head(&mut self) -> Result<Head> {
        let first = self.line().await?;
        let status = str::from_utf8(&first)?.split_whitespace().nth(1).context("a status")?.parse()?;
        let mut head = Head { status, length: None };
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(head);
            }
            let line = str::from_utf8(&line)?;
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                head.length = Some(value.trim().parse()?);
            }
        }
    }

    /// A line without its end.
    async fn line(&mut self) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        loop {
            let there = &self.buffer[self.begin..self.end];
            if let Some(at) = there.iter().position(|byte| *byte == b'\n') {
                line.extend_from_slice(&there[..at]);
                self.begin += at + 1;
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(line);
            }
            line.extend_from_slice(there);
            self.begin = self.end;
            self.fill().await?;
        }
    }

    async fn take_exactly(&mut self, mut length: usize, take: &mut (dyn FnMut(&[u8]) + Send)) -> Result<()> {
        while length > 0 {
            if self.begin == self.end {
                self.fill().await?;
            }
            let part = length.min(self.end - self.begin);
            take(&self.buffer[self.begin..self.begin + part]);
            self.begin += part;
            length -= part;
        }
        Ok(())
    }

    async fn fill(&mut self) -> Result<()> {
        (self.begin, self.end) = (0, self.stream.read(&mut self.buffer).await?);
        if self.end == 0 {
            bail!("the server closed the connection");
        }
        Ok(())
    }
}
