//! The Momo upload protocol. D dials (a client, or a daemon that forwards), L listens. Plain TCP, no framing.
//!
//! | # | direction | bytes | content |
//! |---|---|---|---|
//! | 1 | D to L | 19 | timestamp, decimal ASCII, Unix nanoseconds, no terminator |
//! | 2 | L to D | 1 | mode digit: `0` none, `1` chain, `2` splay, `3` primary-splay |
//! | 3 | D to L | 32 | MD5 of the whole file, lowercase hex |
//! | 4 | D to L | 64 | base name, right-padded with `:` |
//! | 5 | D to L | 64 | size, decimal ASCII, right-padded with `:` |
//! | 6 | D to L | 1024 x ceil(size/1024) | content; the last block padded to 1024 (what the padding holds means nothing) |
//! | 7 | L to D | 4+ | `ACK` + decimal daemon id, e.g. `ACK0`; no newline |
//! | 8 | L | | closes |
//!
//! An empty file sends nothing in step 6. Original listeners take each of 1 and 3-5 with one read: a dialler sends the 19 bytes in one
//! write and the 160 bytes of [`Metadata`] in one write.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

use std::fmt;

use super::parsed::{Parsed, number};
use super::record::Mode;
use crate::base::digest::Md5;
use crate::base::id::NodeId;
use crate::base::limit::FILE_BYTES;
use crate::base::path::{BadPath, FilePath};

/// Bytes of the timestamp.
pub const TIMESTAMP_BYTES: usize = 19;
/// Bytes of the name's field.
pub const NAME_BYTES: usize = 64;
/// Bytes of the size's field.
pub const SIZE_BYTES: usize = 64;
/// Bytes of MD5, name and size together.
pub const METADATA_BYTES: usize = 32 + NAME_BYTES + SIZE_BYTES;
/// Content is padded to a multiple of this.
pub const PAD_BYTES: u64 = 1_024;
/// Longest acknowledgement: `ACK` and the digits of any 64-bit number.
pub const ACK_BYTES: usize = 3 + 20;

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// The timestamp is not 19 digits.
    Timestamp,
    /// The MD5 is not 32 lowercase hexadecimal digits.
    Md5,
    /// The name is not UTF-8.
    NameNotUtf8,
    /// The name has a `/`: this protocol carries base names.
    NameHasSlash,
    /// The name cannot be one.
    Name(BadPath),
    /// The name does not fit its field, or begins or ends with `:`, which the padding would swallow.
    NameUnsendable,
    /// The size is not digits.
    Size,
    /// The size is over [`FILE_BYTES`].
    TooLarge,
}

impl fmt::Display for BadHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timestamp => f.write_str("the timestamp is not 19 digits"),
            Self::Md5 => f.write_str("the MD5 is not 32 lowercase hexadecimal digits"),
            Self::NameNotUtf8 => f.write_str("the file name is not UTF-8"),
            Self::NameHasSlash => f.write_str("the file name has a '/'"),
            Self::Name(why) => why.fmt(f),
            Self::NameUnsendable => write!(
                f,
                "the Momo protocol carries names of at most {NAME_BYTES} bytes that do not begin or end with ':'"
            ),
            Self::Size => f.write_str("the size is not a number"),
            Self::TooLarge => write!(f, "the size is over {FILE_BYTES} bytes"),
        }
    }
}

impl std::error::Error for BadHeader {}

/// Step 1: the timestamp. A byte that is no digit is refused at once.
pub fn timestamp(bytes: &[u8]) -> Parsed<u64, BadHeader> {
    let field = bytes.get(..TIMESTAMP_BYTES).unwrap_or(bytes);
    if !field.iter().all(u8::is_ascii_digit) {
        return Parsed::Malformed(BadHeader::Timestamp);
    }
    if field.len() < TIMESTAMP_BYTES {
        return Parsed::Incomplete;
    }
    match std::str::from_utf8(field).ok().and_then(number) {
        Some(value) => Parsed::complete(value, TIMESTAMP_BYTES),
        None => Parsed::Malformed(BadHeader::Timestamp),
    }
}

/// Appends step 1. Timestamps of fewer than 19 digits (before September 2001) get leading zeros, those of 20 become the largest that fits.
pub fn print_timestamp(timestamp: u64, out: &mut Vec<u8>) {
    let timestamp = timestamp.min(9_999_999_999_999_999_999);
    out.extend_from_slice(format!("{timestamp:019}").as_bytes());
}

/// Step 2: the mode behind a digit.
pub fn mode(digit: u8) -> Option<Mode> {
    Mode::from_digit(u64::from(digit.checked_sub(b'0')?))
}

/// The digit of step 2.
pub const fn mode_digit(mode: Mode) -> u8 {
    b'0' + mode.digit()
}

/// Steps 3 to 5: what the file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// MD5 of the content.
    pub md5: Md5,
    /// The base name.
    pub name: FilePath,
    /// Bytes of the content, without padding.
    pub size: u64,
}

impl Metadata {
    /// Checks that the name survives the journey: `path` is a base name of at most 64 bytes that neither begins nor ends with `:`.
    pub fn new(md5: Md5, name: FilePath, size: u64) -> Result<Self, BadHeader> {
        let text = name.as_str();
        if text.contains('/') {
            return Err(BadHeader::NameHasSlash);
        }
        if text.len() > NAME_BYTES || text.starts_with(':') || text.ends_with(':') {
            return Err(BadHeader::NameUnsendable);
        }
        if size > FILE_BYTES {
            return Err(BadHeader::TooLarge);
        }
        Ok(Self { md5, name, size })
    }

    /// The metadata that `bytes` begin with.
    pub fn parse(bytes: &[u8]) -> Parsed<Self, BadHeader> {
        let fields = bytes.split_at_checked(32).and_then(|(md5, rest)| {
            let (name, rest) = rest.split_at_checked(NAME_BYTES)?;
            let (size, _) = rest.split_at_checked(SIZE_BYTES)?;
            Some((md5, name, size))
        });
        match fields.map(|(md5, name, size)| Self::from_fields(md5, name, size)) {
            None => Parsed::Incomplete,
            Some(Ok(value)) => Parsed::complete(value, METADATA_BYTES),
            Some(Err(why)) => Parsed::Malformed(why),
        }
    }

    fn from_fields(md5: &[u8], name: &[u8], size: &[u8]) -> Result<Self, BadHeader> {
        let md5 = std::str::from_utf8(md5)
            .ok()
            .and_then(|md5| md5.parse().ok());
        let name = std::str::from_utf8(name).map_err(|_| BadHeader::NameNotUtf8)?;
        let name = name.trim_matches(':');
        if name.contains('/') {
            return Err(BadHeader::NameHasSlash);
        }
        let size = std::str::from_utf8(size).map_err(|_| BadHeader::Size)?;
        let digits = size.trim_end_matches(':');
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(BadHeader::Size);
        }
        Ok(Self {
            md5: md5.ok_or(BadHeader::Md5)?,
            name: FilePath::new(name).map_err(BadHeader::Name)?,
            size: number(digits)
                .filter(|size| *size <= FILE_BYTES)
                .ok_or(BadHeader::TooLarge)?,
        })
    }

    /// Appends the 160 bytes. The value must have passed [`Metadata::new`] or come from [`Metadata::parse`].
    pub fn print(&self, out: &mut Vec<u8>) {
        let (md5, name, size) = (self.md5, self.name.as_str(), self.size);
        out.extend_from_slice(md5.to_string().as_bytes());
        for (field, width) in [(name, NAME_BYTES), (&size.to_string(), SIZE_BYTES)] {
            let field = field.as_bytes().get(..width).unwrap_or(field.as_bytes());
            out.extend_from_slice(field);
            out.resize(out.len() + (width - field.len()), b':');
        }
    }
}

/// Bytes of padding behind `size` bytes of content.
pub const fn padding(size: u64) -> u64 {
    (PAD_BYTES - size % PAD_BYTES) % PAD_BYTES
}

/// An answer that is no acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadAck;

/// Step 7: the daemon that acknowledges. It ends with the connection, so it is complete only when `ended`.
pub fn ack(bytes: &[u8], ended: bool) -> Parsed<u64, BadAck> {
    let digits = match bytes.strip_prefix(b"ACK") {
        Some(digits) => digits,
        None if b"ACK".starts_with(bytes) && !ended => return Parsed::Incomplete,
        None => return Parsed::Malformed(BadAck),
    };
    let plausible = bytes.len() <= ACK_BYTES && digits.iter().all(u8::is_ascii_digit);
    match std::str::from_utf8(digits).ok().and_then(number) {
        _ if !plausible => Parsed::Malformed(BadAck),
        _ if !ended => Parsed::Incomplete,
        Some(id) => Parsed::complete(id, bytes.len()),
        None => Parsed::Malformed(BadAck),
    }
}

/// Appends step 7.
pub fn print_ack(node: NodeId, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("ACK{node}").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &[u8] = b"b1946ac92492d2347c6235b4d2611184demo.txt::::::::::::::::::::::::::::::::::::::::::::::::::::::::6:::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::hello\n";

    fn metadata(md5: &str, name: &str, size: &str) -> Result<Metadata, BadHeader> {
        let text = format!("{md5}{name::<64}{size::<64}");
        assert_eq!(text.len(), METADATA_BYTES);
        match Metadata::parse(text.as_bytes()) {
            Parsed::Complete { value, .. } => Ok(value),
            Parsed::Malformed(why) => Err(why),
            Parsed::Incomplete => panic!("160 bytes are enough"),
        }
    }

    #[test]
    fn the_example_of_the_protocol_is_read_and_written() {
        let Parsed::Complete { value, consumed } = Metadata::parse(EXAMPLE) else {
            panic!("the example is valid");
        };
        assert_eq!((value.name.as_str(), value.size), ("demo.txt", 6));
        let mut out = Vec::new();
        value.print(&mut out);
        assert_eq!(Some(&out[..]), EXAMPLE.get(..consumed));
        assert_eq!(
            timestamp(b"15579069265664511951"),
            Parsed::complete(1_557_906_926_566_451_195, 19)
        );
        assert_eq!(Metadata::parse(&EXAMPLE[..159]), Parsed::Incomplete);
    }

    #[test]
    fn every_field_that_is_wrong_is_refused_with_its_reason() {
        let md5 = "b1946ac92492d2347c6235b4d2611184";
        for (md5, name, size, why) in [
            (&md5.to_uppercase()[..], "a", "6", BadHeader::Md5),
            (md5, "", "6", BadHeader::Name(BadPath::Empty)),
            (md5, "::", "6", BadHeader::Name(BadPath::Empty)),
            (md5, "..", "6", BadHeader::Name(BadPath::Dots)),
            (md5, ".momo", "6", BadHeader::Name(BadPath::Reserved)),
            (md5, "/etc/passwd", "6", BadHeader::NameHasSlash),
            (md5, "a/b", "6", BadHeader::NameHasSlash),
            (md5, "a\0b", "6", BadHeader::Name(BadPath::Control)),
            (md5, "a\nb", "6", BadHeader::Name(BadPath::Control)),
            (md5, "a", "", BadHeader::Size),
            (md5, "a", "+6", BadHeader::Size),
            (md5, "a", "-6", BadHeader::Size),
            (md5, "a", ":6", BadHeader::Size),
            (md5, "a", "6 ", BadHeader::Size),
            (md5, "a", "9223372036854775808", BadHeader::TooLarge),
            (md5, "a", &"9".repeat(64), BadHeader::TooLarge),
        ] {
            assert_eq!(metadata(md5, name, size), Err(why), "{name:?} {size:?}");
        }
        assert_eq!(metadata(md5, ":a:b:", "007").unwrap().name.as_str(), "a:b");
        assert_eq!(
            metadata(md5, &"x".repeat(64), "9000000000000000000")
                .unwrap()
                .size,
            9_000_000_000_000_000_000
        );
    }

    #[test]
    fn names_that_the_padding_would_change_are_refused_before_dialling() {
        let sendable =
            |name: &str| Metadata::new(Md5([0; 16]), FilePath::new(name).unwrap(), 1).map(|_| ());
        assert_eq!(sendable(&"a".repeat(64)), Ok(()));
        assert_eq!(sendable(&"a".repeat(65)), Err(BadHeader::NameUnsendable));
        assert_eq!(sendable(":a"), Err(BadHeader::NameUnsendable));
        assert_eq!(sendable("a:"), Err(BadHeader::NameUnsendable));
        assert_eq!(sendable("d/a"), Err(BadHeader::NameHasSlash));
    }

    #[test]
    fn only_ack_and_digits_acknowledge() {
        assert_eq!(ack(b"ACK0", true), Parsed::complete(0, 4));
        assert_eq!(ack(b"ACK12", true), Parsed::complete(12, 5));
        for bytes in [&b""[..], b"ACK", b"NAK0", b"ACK0\n", b"ACKx", b"ack0"] {
            assert_eq!(ack(bytes, true), Parsed::Malformed(BadAck), "{bytes:?}");
        }
        for bytes in [&b""[..], b"A", b"ACK", b"ACK1"] {
            assert_eq!(ack(bytes, false), Parsed::Incomplete, "{bytes:?}");
        }
    }

    #[test]
    fn content_is_padded_to_blocks_of_1024() {
        for (size, pad) in [(0, 0), (1, 1023), (1023, 1), (1024, 0), (FILE_BYTES, 1)] {
            assert_eq!(padding(size), pad);
        }
    }
}
