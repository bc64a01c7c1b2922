//! The upload door: a Momo client (or an original daemon that forwards) brings one file a connection. The bytes are described in `wire/momo.rs`.
//!
//! Whatever goes wrong, the connection is closed without an `ACK` and one log line says who and why. `ACK` is sent when the file is kept.

use std::fmt;
use std::io;

use super::Session;
use super::connection::{Body, Wire, hang_up, is_timeout, read_head};
use crate::base::id::NodeId;
use crate::engine::verbs::{Failure, Put, Strategy};
use crate::wire::command::Expect;
use crate::wire::momo::{
    BadHeader, METADATA_BYTES, Metadata, TIMESTAMP_BYTES, mode_digit, print_ack, timestamp,
};
use crate::wire::parsed::Parsed;
use crate::wire::record::Mode;

/// Serves one upload.
pub fn serve(session: &Session, wire: &mut dyn Wire) {
    let peer = wire.peer();
    let mut name = String::new();
    match upload(session, wire, &mut name) {
        Ok(()) => {}
        Err(Refusal::Silent) => {
            log::debug!(target: "momo::connection_unused", "peer={peer} closed without a byte");
        }
        Err(Refusal::Outcome(Failure::Unknown { message })) => {
            log::warn!(target: "momo::upload_unknown", "peer={peer} door=momo name={name:?}: {message}");
        }
        Err(why) => {
            log::warn!(target: "momo::upload_refused", "peer={peer} door=momo name={name:?}: {why}");
        }
    }
    hang_up(wire, session.limits);
}

/// Why there is no acknowledgement.
enum Refusal {
    /// Connected and closed: nobody asked for anything.
    Silent,
    /// A header ended early.
    Short { field: &'static str, bytes: usize },
    /// A header says what cannot be.
    Header(BadHeader),
    /// The file is larger than this daemon takes.
    TooLarge { size: u64, most: u64 },
    /// The connection failed or was too slow.
    Connection(io::Error),
    /// The engine did not keep it, or does not know.
    Outcome(Failure),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("nothing was sent"),
            Self::Short { field, bytes } => {
                write!(f, "the connection ended after {bytes} bytes of the {field}")
            }
            Self::Header(why) => why.fmt(f),
            Self::TooLarge { size, most } => {
                write!(f, "{size} bytes are over the limit of {most}")
            }
            Self::Connection(error) if is_timeout(error) => f.write_str("too slow"),
            Self::Connection(error) => error.fmt(f),
            Self::Outcome(failure) => failure.fmt(f),
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Connection(error)
    }
}

/// Steps 1 to 7; `name` is for the log.
fn upload(session: &Session, wire: &mut dyn Wire, name: &mut String) -> Result<(), Refusal> {
    let mut first = [0; TIMESTAMP_BYTES];
    let timestamp = field(session, wire, "timestamp", &mut first, timestamp)?;

    let mode = session.verbs.negotiate(timestamp);
    wire.write_all(&[mode_digit(mode)])?;
    wire.flush()?;

    let mut second = [0; METADATA_BYTES];
    let file = field(session, wire, "metadata", &mut second, Metadata::parse)?;
    file.name.as_str().clone_into(name);
    let most = session.limits.file_bytes;
    if file.size > most {
        let size = file.size;
        return Err(Refusal::TooLarge { size, most });
    }
    log::debug!(target: "momo::upload_begun", "peer={} mode={} md5={} name={name:?} size={}", wire.peer(), mode.digit(), file.md5, file.size);

    let put = Put {
        path: file.name,
        size: file.size,
        strategy: strategy(session, mode),
        class: "default".to_owned(),
        sha256: None,
        md5: Some(file.md5),
        expect: Expect::Any,
    };
    let mut body = Body::new(wire, put.size, session.limits);
    let kept = session
        .verbs
        .put(&put, &mut body)
        .map_err(Refusal::Outcome)?;

    let mut ack = Vec::new();
    print_ack(session.verbs.node(), &mut ack);
    wire.write_all(&ack)?;
    log::debug!(target: "momo::upload_kept", "peer={} door=momo name={name:?} version={} copies={} strategy={}", wire.peer(), kept.version, kept.copies, kept.strategy);
    Ok(())
}

/// While the mode is primary-splay the client goes to every daemon itself: at daemon 0 it makes a put, at the others legs of it (rule R22).
/// They answer "none" to it like to everyone.
fn strategy(session: &Session, answered: Mode) -> Strategy {
    let splayed = session.verbs.mode().new == Mode::PrimarySplay;
    if splayed && session.verbs.node() != NodeId(0) {
        Strategy::Leg
    } else {
        Strategy::Negotiated(answered)
    }
}

/// Reads a header field whole, whatever its segmentation, and parses it.
fn field<T>(
    session: &Session,
    wire: &mut dyn Wire,
    name: &'static str,
    bytes: &mut [u8],
    parse: fn(&[u8]) -> Parsed<T, BadHeader>,
) -> Result<T, Refusal> {
    let count = read_head(wire, session.limits, bytes)?;
    match parse(bytes.get(..count).unwrap_or_default()) {
        Parsed::Complete { value, .. } => Ok(value),
        Parsed::Malformed(why) => Err(Refusal::Header(why)),
        Parsed::Incomplete if count == 0 && name == "timestamp" => Err(Refusal::Silent),
        Parsed::Incomplete => Err(Refusal::Short {
            field: name,
            bytes: count,
        }),
    }
}
