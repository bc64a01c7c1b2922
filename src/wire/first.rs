//! Which protocol the first bytes of a connection begin: one row per protocol, so that all doors may share an address.
//!
//! | first bytes | protocol |
//! |---|---|
//! | [`peer::MAGIC`](super::peer::MAGIC) | peers |
//! | a digit (of the 19 of a timestamp) | Momo upload |
//! | `{` | change of mode |
//! | `<` | replica group |
//! | `GET /`, `OPTIONS *`, ... | HTTP |
//! | `TYPE\|` (capitals and `_`) | names |
//! | any other letter, a blank or a line end | text |
//!
//! Every protocol here lets the dialling side speak first. Nothing is consumed: the door reads the same bytes again.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

use super::peer::MAGIC;

/// A protocol that a connection can speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Node to node.
    Peer,
    /// Momo uploads.
    Momo,
    /// `change_replication`.
    Change,
    /// Replica group.
    Group,
    /// HTTP/1.
    Http,
    /// Name server.
    Names,
    /// Lines of text.
    Text,
}

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// Not enough bytes yet.
    Undecided,
    /// This protocol.
    Known(Protocol),
    /// None that this program speaks.
    Unknown,
}

/// Bytes after which [`first`] is never undecided.
pub const DECIDED_BYTES: usize = 33;
/// Longest message type of the name server's protocol, in bytes.
const TYPE_BYTES: usize = 31;
const _: () = assert!(TYPE_BYTES + 2 <= DECIDED_BYTES);

/// What `bytes`, the first of a connection, begin. `ended` says that no more will come: an unfinished word is then a line of text.
pub fn first(bytes: &[u8], ended: bool) -> First {
    for row in ROWS {
        match (row.begins)(bytes) {
            Begins::Yes => return First::Known(row.protocol),
            Begins::Maybe if !ended => return First::Undecided,
            Begins::Maybe | Begins::No => {}
        }
    }
    First::Unknown
}

/// What a row makes of the first bytes.
enum Begins {
    Yes,
    No,
    Maybe,
}

struct Row {
    protocol: Protocol,
    begins: fn(&[u8]) -> Begins,
}

/// Asked from the top; the first that says yes has it, and one that cannot tell yet keeps those below waiting.
const ROWS: &[Row] = &[
    Row {
        protocol: Protocol::Peer,
        begins: |bytes| prefix(bytes, &MAGIC),
    },
    Row {
        protocol: Protocol::Momo,
        begins: |bytes| starts(bytes, |byte| byte.is_ascii_digit()),
    },
    Row {
        protocol: Protocol::Change,
        begins: |bytes| starts(bytes, |byte| byte == b'{'),
    },
    Row {
        protocol: Protocol::Group,
        begins: |bytes| starts(bytes, |byte| byte == b'<'),
    },
    Row {
        protocol: Protocol::Http,
        begins: http,
    },
    Row {
        protocol: Protocol::Names,
        begins: names,
    },
    Row {
        protocol: Protocol::Text,
        begins: |bytes| {
            starts(bytes, |byte| {
                byte.is_ascii_alphabetic() || byte >= 0x80 || b" \t\r\n".contains(&byte)
            })
        },
    },
];

const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT",
];

fn starts(bytes: &[u8], is: impl Fn(u8) -> bool) -> Begins {
    match bytes.first() {
        None => Begins::Maybe,
        Some(byte) if is(*byte) => Begins::Yes,
        Some(_) => Begins::No,
    }
}

fn prefix(bytes: &[u8], whole: &[u8]) -> Begins {
    if bytes.starts_with(whole) {
        Begins::Yes
    } else if whole.starts_with(bytes) {
        Begins::Maybe
    } else {
        Begins::No
    }
}

/// A method, a blank, then `/` or `*`.
fn http(bytes: &[u8]) -> Begins {
    let mut result = Begins::No;
    for method in METHODS {
        let Some(rest) = bytes.strip_prefix(method.as_bytes()) else {
            if method.as_bytes().starts_with(bytes) {
                result = Begins::Maybe;
            }
            continue;
        };
        match rest {
            [b' ', b'/' | b'*', ..] => return Begins::Yes,
            [] | [b' '] => result = Begins::Maybe,
            _ => {}
        }
    }
    result
}

/// Capitals and `_`, at most [`TYPE_BYTES`], then `|`.
fn names(bytes: &[u8]) -> Begins {
    let word = |byte: &u8| byte.is_ascii_uppercase() || *byte == b'_';
    match bytes.iter().position(|byte| !word(byte)) {
        Some(1..=TYPE_BYTES) if bytes.iter().find(|byte| !word(byte)) == Some(&b'|') => Begins::Yes,
        None if bytes.len() <= TYPE_BYTES => Begins::Maybe,
        _ => Begins::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_is_known_by_its_first_bytes() {
        for (bytes, protocol) in [
            (&MAGIC[..], Protocol::Peer),
            (b"1557906926566451195", Protocol::Momo),
            (b"1x", Protocol::Momo),
            (b"{\"old\":", Protocol::Change),
            (b"<C1,client>", Protocol::Group),
            (b"GET / HTTP/1.1\r\n", Protocol::Http),
            (b"OPTIONS * HTTP/1.1\r\n", Protocol::Http),
            (b"CLIENT_REGISTER|1|zed|CLIENT|\n", Protocol::Names),
            (b"FILE LIST\n", Protocol::Text),
            (b"get x\n", Protocol::Text),
            (b"GET x\n", Protocol::Text),
            (b"STATUS\n", Protocol::Text),
            (b"\r\n", Protocol::Text),
            (b"A234567890123456789012345678901\n", Protocol::Text),
        ] {
            let shown = String::from_utf8_lossy(bytes);
            assert_eq!(first(bytes, false), First::Known(protocol), "{shown}");
        }
    }

    #[test]
    fn a_prefix_is_undecided_until_it_can_be_told() {
        for bytes in [
            &b""[..],
            b"\x01mom",
            b"G",
            b"GET",
            b"GET ",
            b"FILE",
            b"STATUS",
        ] {
            let shown = String::from_utf8_lossy(bytes);
            assert_eq!(first(bytes, false), First::Undecided, "{shown}");
        }
        assert_eq!(first(b"", true), First::Unknown);
        assert_eq!(first(b"QUIT", true), First::Known(Protocol::Text));
    }

    #[test]
    fn what_no_door_speaks_is_unknown() {
        for bytes in [&b"\x16\x03\x01"[..], b"\x00", b"\x01momo-p2", b"-5", b"|"] {
            assert_eq!(first(bytes, false), First::Unknown, "{bytes:?}");
        }
    }
}
