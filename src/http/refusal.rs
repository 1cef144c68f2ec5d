//! What a client is told whose request cannot be read as HTTP/1.1.
//!
//! actix-http answers such a request by itself, with a status and no body, and then drops the connection.
//! What the client has sent and nobody has read resets the connection, and the answer may be lost with it.
//! So the answer gets its body here, on its way out. Then the connection is closed as RFC 9112, section 9.6,
//! says: first for writing, and for good once the client has closed it, too, or its last second is over.

use super::connections::Connection;
use super::problem::{Problem, ProblemReason};
use crate::telemetry::connections::ConnectionEnd;
use actix_web::web::{Buf, Bytes};
use std::io::Result;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection of TCP or TLS.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

/// A connection as the server of HTTP sees it.
pub(super) struct Stream {
    io: Box<dyn Duplex>,
    connection: Arc<Connection>,
    refusal: Option<Refusal>,
}

/// How far the last answer is.
enum Refusal {
    /// This is still to be written.
    Writing(Bytes),
    /// All is written.
    Closing,
    /// What still comes is read, and nothing is done with it.
    Draining,
    /// The client has it, or has gone.
    Over,
}

impl Stream {
    pub(super) fn new(io: impl Duplex + 'static, connection: Arc<Connection>) -> Self {
        Self { io: Box::new(io), connection, refusal: None }
    }

    /// Brings the last answer to the client.
    fn poll_refusal(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let io = Pin::new(&mut *self.io);
        let Some(refusal) = &mut self.refusal else { return Poll::Ready(()) };
        let next = match refusal {
            Refusal::Writing(rest) if rest.is_empty() => Refusal::Closing,
            Refusal::Writing(rest) => match ready!(io.poll_write(context, rest)) {
                Ok(written) if written > 0 => {
                    rest.advance(written);
                    return self.poll_refusal(context);
                }
                _ => Refusal::Over,
            },
            Refusal::Closing => match ready!(io.poll_shutdown(context)) {
                Ok(()) => Refusal::Draining,
                Err(_) => Refusal::Over,
            },
            Refusal::Draining => {
                let mut read = [0; 4096];
                let mut read = ReadBuf::new(&mut read);
                match ready!(io.poll_read(context, &mut read)) {
                    Ok(()) if !read.filled().is_empty() => Refusal::Draining,
                    _ => Refusal::Over,
                }
            }
            Refusal::Over => return Poll::Ready(()),
        };
        self.refusal = Some(next);
        self.poll_refusal(context)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        Pin::new(&mut *self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        if self.refusal.is_none() {
            match with_body(bytes) {
                None => return Pin::new(&mut *self.io).poll_write(context, bytes),
                Some((whole, end)) => {
                    self.connection.refuse(end);
                    self.refusal = Some(Refusal::Writing(whole));
                }
            }
        }
        ready!(self.poll_refusal(context));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut *self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        if self.refusal.is_some() {
            return self.poll_refusal(context).map(Ok);
        }
        Pin::new(&mut *self.io).poll_shutdown(context)
    }
}

/// The longest head that actix-http gives a refusal: a status line and a few short headers.
const LONGEST: usize = 512;

/// The bytes with the body that belongs to a refusal at their end, if there is one without a body. Every
/// refusal of our own has one.
fn with_body(bytes: &[u8]) -> Option<(Bytes, ConnectionEnd)> {
    let headers = bytes.strip_suffix(b"\r\n\r\n")?;
    let from = headers.len().saturating_sub(LONGEST);
    let version = b"HTTP/1.";
    let start = from + headers.get(from..)?.windows(version.len()).rposition(|part| part == version)?;
    let head = std::str::from_utf8(headers.get(start..)?).ok()?;
    let (reason, detail, end) = match head.get(9..12)? {
        "400" => (
            ProblemReason::RequestUnreadable,
            "the request is not HTTP/1.1: its first line, a header or its Content-Length is malformed",
            ConnectionEnd::Unreadable,
        ),
        "408" => (
            ProblemReason::HeadTooSlow,
            "the head of the request did not arrive in time",
            ConnectionEnd::TooSlow,
        ),
        "431" => {
            (ProblemReason::HeadersTooLong, "the head of the request is too long", ConnectionEnd::Unreadable)
        }
        _ => return None,
    };
    let mut lines = head.split("\r\n");
    let status = lines.next()?;
    let others: Vec<&str> = lines.filter(|line| !line.starts_with("connection:")).collect();
    if !others.contains(&"content-length: 0") {
        return None;
    }
    let others = others.into_iter().filter(|line| *line != "content-length: 0");
    let body = serde_json::to_string(&Problem::of(reason, detail.to_owned(), String::new())).ok()?;
    let length = format!("content-length: {}", body.len());
    let ours = [
        length.as_str(),
        "content-type: application/problem+json",
        "connection: close",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
    ];
    let head = [status].into_iter().chain(others).chain(ours).collect::<Vec<_>>().join("\r\n");
    let mut whole = bytes.get(..start)?.to_vec();
    whole.extend_from_slice(format!("{head}\r\n\r\n{body}").as_bytes());
    Some((whole.into(), end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_without_a_body_gets_one_and_nothing_else_is_touched() {
        let bare = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\ndate: now\r\n\r\n";
        let before = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        for before in ["", before] {
            let (whole, end) = with_body(format!("{before}{bare}").as_bytes()).unwrap();
            let whole = std::str::from_utf8(&whole).unwrap();
            let answer = whole.strip_prefix(before).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\ndate: now\r\n"), "{head}");
            assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{head}");
            assert!(body.contains(r#""reason":"RequestUnreadable""#), "{body}");
            assert_eq!(end, ConnectionEnd::Unreadable);
        }
        for other in [
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            // What a `HEAD` is answered with.
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 120\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\nand more",
            "data: a step\r\n\r\n",
            "\r\n\r\n",
            "",
        ] {
            assert_eq!(with_body(other.as_bytes()), None, "{other:?}");
        }
    }
}
