//! The Momo upload protocol from outside: every field settable to anything, sent in any pieces, broken off anywhere.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::{dial, md5_hex, until_close};

/// The timestamp that every original client sends.
pub const CONSTANT: &str = "1557906926566451195";
/// Bytes of a block of content.
const BLOCK: usize = 1024;

/// What fills the last block behind the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// Zero bytes.
    Zeros,
    /// What was in the sender's buffer before, as the original sends.
    Stale,
    /// Nothing: exactly `size` bytes.
    None,
}

/// How the bytes are cut into writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pieces {
    /// Timestamp; wait for the digit; the rest in one write.
    Whole,
    /// As the original: timestamp, metadata and each block in a write of its own.
    Fields,
    /// So many bytes a write.
    Of(usize),
}

/// An upload, as wrong as a test wants it.
#[derive(Clone, Debug)]
pub struct Upload {
    /// 19 bytes of timestamp.
    pub timestamp: Vec<u8>,
    /// 32 bytes of MD5.
    pub md5: Vec<u8>,
    /// 64 bytes of name.
    pub name: Vec<u8>,
    /// 64 bytes of size.
    pub size: Vec<u8>,
    /// The content that is sent.
    pub body: Vec<u8>,
    /// What follows it.
    pub padding: Padding,
    /// How it is cut.
    pub pieces: Pieces,
}

/// What a listener said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The mode digit, if it came.
    pub mode: Option<u8>,
    /// What came after it until the close.
    pub rest: Vec<u8>,
}

impl Answer {
    /// The daemon id behind `ACK`, if this is an acknowledgement.
    pub fn acknowledged_by(&self) -> Option<usize> {
        let digits = self.rest.strip_prefix(b"ACK")?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }
}

/// A field padded on the right with `:`.
pub fn field(text: &[u8]) -> Vec<u8> {
    let mut bytes = text.to_vec();
    bytes.resize(text.len().max(64), b':');
    bytes
}

impl Upload {
    /// A correct upload of a file.
    pub fn of(name: &str, body: &[u8]) -> Self {
        Self {
            timestamp: CONSTANT.as_bytes().to_vec(),
            md5: md5_hex(body).into_bytes(),
            name: field(name.as_bytes()),
            size: field(body.len().to_string().as_bytes()),
            body: body.to_vec(),
            padding: Padding::Zeros,
            pieces: Pieces::Whole,
        }
    }

    /// The 160 bytes between the mode digit and the content.
    pub fn metadata(&self) -> Vec<u8> {
        [&self.md5[..], &self.name, &self.size].concat()
    }

    /// The content as it goes over the wire.
    pub fn content(&self) -> Vec<u8> {
        let mut bytes = self.body.clone();
        let full = bytes.len().div_ceil(BLOCK) * BLOCK;
        match self.padding {
            Padding::Zeros => bytes.resize(full, 0),
            Padding::Stale => bytes.resize(full, b'~'),
            Padding::None => {}
        }
        bytes
    }

    /// Sends it all and reads until the listener closes.
    pub fn send(&self, address: SocketAddr) -> io::Result<Answer> {
        let mut stream = dial(address)?;
        self.send_on(&mut stream)
    }

    /// The same on a connection that is already there.
    pub fn send_on(&self, stream: &mut TcpStream) -> io::Result<Answer> {
        match self.pieces {
            Pieces::Of(piece) => in_pieces(stream, &self.timestamp, piece)?,
            Pieces::Whole | Pieces::Fields => stream.write_all(&self.timestamp)?,
        }
        let Some(mode) = read_digit(stream)? else {
            return Ok(Answer {
                mode: None,
                rest: Vec::new(),
            });
        };
        let rest = [self.metadata(), self.content()].concat();
        // A listener may refuse and close while the body is still coming: a failed write is its answer, not the test's error.
        let _ = match self.pieces {
            Pieces::Whole => stream.write_all(&rest),
            Pieces::Of(piece) => in_pieces(stream, &rest, piece),
            Pieces::Fields => stream.write_all(&self.metadata()).and_then(|()| {
                self.content()
                    .chunks(BLOCK)
                    .try_for_each(|block| stream.write_all(block))
            }),
        };
        Ok(Answer {
            mode: Some(mode),
            rest: until_close(stream)?,
        })
    }

    /// Sends everything up to `body_bytes` of the content, then ends the stream and reads the answer.
    pub fn send_short(&self, address: SocketAddr, body_bytes: usize) -> io::Result<Answer> {
        let mut stream = dial(address)?;
        stream.write_all(&self.timestamp)?;
        let mode = read_digit(&mut stream)?;
        let _ = stream.write_all(&self.metadata());
        let content = self.content();
        let _ = stream.write_all(&content[..body_bytes.min(content.len())]);
        let _ = stream.shutdown(Shutdown::Write);
        Ok(Answer {
            mode,
            rest: until_close(&mut stream)?,
        })
    }
}

/// The mode digit; `None` where the listener closes instead.
pub fn read_digit(stream: &mut TcpStream) -> io::Result<Option<u8>> {
    let mut digit = [0_u8; 1];
    match io::Read::read(stream, &mut digit) {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some(digit[0])),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        Err(error) => Err(error),
    }
}

fn in_pieces(stream: &mut TcpStream, bytes: &[u8], piece: usize) -> io::Result<()> {
    bytes
        .chunks(piece.max(1))
        .try_for_each(|part| stream.write_all(part))
}
