//! The `change_replication` port: one JSON object a connection, `{"old":2,"new":1,"timestamp":1763668800000000000}`, answered by one JSON line.
//!
//! Original senders send under 64 bytes without a line end and close. Keys are matched in any case, keys that are not known are ignored, as
//! is `old`. The object is complete when its braces close, however it is fragmented. The answer is the look-back triple in the same form, or `{"error":"..."}`.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

use std::fmt;

use serde_json::{Map, Value, json};

use super::parsed::Parsed;
use super::record::Mode;
use crate::base::limit::CHANGE_BYTES;

/// A wish to change the mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The mode wanted.
    pub new: Mode,
    /// When it was wanted, Unix nanoseconds.
    pub timestamp: u64,
}

/// Why bytes are no change of mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadChange {
    /// Not a JSON object.
    NotAnObject,
    /// Over [`CHANGE_BYTES`].
    TooLong,
    /// The input ended before the object did.
    Short,
    /// A key is missing.
    Missing(&'static str),
    /// `new` is not 0 to 3.
    InvalidMode,
    /// `timestamp` is not a whole number of nanoseconds since the epoch.
    InvalidTimestamp,
}

impl fmt::Display for BadChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnObject => f.write_str("not a JSON object"),
            Self::TooLong => write!(f, "too long (at most {CHANGE_BYTES} bytes)"),
            Self::Short => f.write_str("the input ended inside the object"),
            Self::Missing(key) => write!(f, "\"{key}\" is missing"),
            Self::InvalidMode => f.write_str("a mode is 0, 1, 2 or 3"),
            Self::InvalidTimestamp => f.write_str("\"timestamp\" is not in Unix nanoseconds"),
        }
    }
}

impl std::error::Error for BadChange {}

/// The change that `bytes` begin with. `ended` says that no more will come.
pub fn parse(bytes: &[u8], ended: bool) -> Parsed<Change, BadChange> {
    let window = bytes.get(..CHANGE_BYTES).unwrap_or(bytes);
    match extent(window) {
        Extent::None => Parsed::Malformed(BadChange::NotAnObject),
        Extent::Open if window.len() == CHANGE_BYTES => Parsed::Malformed(BadChange::TooLong),
        Extent::Open if ended => Parsed::Malformed(BadChange::Short),
        Extent::Open => Parsed::Incomplete,
        Extent::Closed(end) => {
            let object = serde_json::from_slice(window.get(..end).unwrap_or(window));
            match object
                .map_err(|_| BadChange::NotAnObject)
                .and_then(|map| from_map(&map))
            {
                Ok(change) => Parsed::complete(change, end),
                Err(why) => Parsed::Malformed(why),
            }
        }
    }
}

/// How far an object reaches.
enum Extent {
    /// It does not begin here.
    None,
    /// Its end is not here yet.
    Open,
    /// To this byte, exclusive.
    Closed(usize),
}

fn extent(bytes: &[u8]) -> Extent {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, byte) in bytes.iter().enumerate() {
        if quoted {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'{' => depth += 1,
            b' ' | b'\t' | b'\r' | b'\n' => {}
            _ if depth == 0 => return Extent::None,
            b'"' => quoted = true,
            b'}' if depth == 1 => return Extent::Closed(at + 1),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    Extent::Open
}

fn from_map(map: &Map<String, Value>) -> Result<Change, BadChange> {
    let new = key(map, "new")?.as_u64().and_then(Mode::from_digit);
    let timestamp = key(map, "timestamp")?.as_u64();
    Ok(Change {
        new: new.ok_or(BadChange::InvalidMode)?,
        timestamp: timestamp.ok_or(BadChange::InvalidTimestamp)?,
    })
}

/// The value of a key: as it is written here, else in any case.
fn key<'a>(map: &'a Map<String, Value>, name: &'static str) -> Result<&'a Value, BadChange> {
    let folded = || map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    map.get(name)
        .or_else(|| folded().map(|(_, value)| value))
        .ok_or(BadChange::Missing(name))
}

/// The look-back triple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Triple {
    /// The mode before.
    pub old: Mode,
    /// The mode since.
    pub new: Mode,
    /// Since when, Unix nanoseconds.
    pub timestamp: u64,
}

impl Triple {
    /// Appends the triple as a sender writes it: without a line end, under 64 bytes.
    pub fn print(&self, out: &mut Vec<u8>) {
        let (old, new, timestamp) = (self.old.digit(), self.new.digit(), self.timestamp);
        let text = format!("{{\"old\":{old},\"new\":{new},\"timestamp\":{timestamp}}}");
        out.extend_from_slice(text.as_bytes());
    }
}

/// What the port answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The change is committed: this is the triple now.
    Changed(Triple),
    /// It is not.
    Refused(String),
}

impl Answer {
    /// Appends the answer as a line.
    pub fn print(&self, out: &mut Vec<u8>) {
        match self {
            Self::Changed(triple) => triple.print(out),
            Self::Refused(why) => {
                out.extend_from_slice(json!({ "error": why }).to_string().as_bytes());
            }
        }
        out.push(b'\n');
    }

    /// Reads an answer, with or without its line end.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let map: Map<String, Value> = serde_json::from_slice(line).ok()?;
        if let Some(why) = map.get("error") {
            return Some(Self::Refused(why.as_str()?.to_owned()));
        }
        let mode = |name| Mode::from_digit(map.get(name)?.as_u64()?);
        Some(Self::Changed(Triple {
            old: mode("old")?,
            new: mode("new")?,
            timestamp: map.get("timestamp")?.as_u64()?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<Change, BadChange> {
        match parse(text.as_bytes(), true) {
            Parsed::Complete { value, .. } => Ok(value),
            Parsed::Malformed(why) => Err(why),
            Parsed::Incomplete => panic!("incomplete at the end of the input: {text}"),
        }
    }

    #[test]
    fn keys_are_taken_in_any_case_and_others_ignored() {
        let change = Change {
            new: Mode::Chain,
            timestamp: 1_763_668_800_000_000_000,
        };
        for text in [
            r#"{"old":2,"new":1,"timestamp":1763668800000000000}"#,
            r#"{"Old":9,"NEW":1,"TimeStamp":1763668800000000000,"x":{"y":["}"]}}"#,
            " {\r\n\"new\" : 1 , \"timestamp\" : 1763668800000000000 }\n",
            r#"{"new":1,"New":3,"timestamp":1763668800000000000}garbage"#,
        ] {
            assert_eq!(value(text), Ok(change), "{text}");
        }
    }

    #[test]
    fn what_is_no_change_is_refused_with_its_reason() {
        for (text, why) in [
            ("", BadChange::Short),
            ("{\"new\":1", BadChange::Short),
            ("[1]", BadChange::NotAnObject),
            ("{new:1}", BadChange::NotAnObject),
            ("{}", BadChange::Missing("new")),
            (r#"{"new":1}"#, BadChange::Missing("timestamp")),
            (r#"{"new":4,"timestamp":1}"#, BadChange::InvalidMode),
            (r#"{"new":-1,"timestamp":1}"#, BadChange::InvalidMode),
            (r#"{"new":"1","timestamp":1}"#, BadChange::InvalidMode),
            (r#"{"new":1,"timestamp":-1}"#, BadChange::InvalidTimestamp),
            (r#"{"new":1,"timestamp":1e30}"#, BadChange::InvalidTimestamp),
        ] {
            assert_eq!(value(text), Err(why), "{text}");
        }
        assert_eq!(value(&"{".repeat(CHANGE_BYTES - 1)), Err(BadChange::Short));
        assert_eq!(value(&"{".repeat(CHANGE_BYTES)), Err(BadChange::TooLong));
        let deep = format!("{}{}", "{\"a\":".repeat(600), "}".repeat(600));
        assert_eq!(value(&deep), Err(BadChange::NotAnObject));
    }

    #[test]
    fn what_a_sender_writes_stays_under_64_bytes() {
        let mut out = Vec::new();
        let triple = Triple {
            old: Mode::Splay,
            new: Mode::Chain,
            timestamp: u64::MAX,
        };
        triple.print(&mut out);
        assert!(out.len() < 64);
        assert_eq!(Answer::parse(&out), Some(Answer::Changed(triple)));
    }
}
