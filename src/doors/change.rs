//! The `change_replication` door: one JSON object in, the mode is changed for the whole cluster, one JSON line out. See `wire/change.rs`.
//!
//! As in the original, everyone who reaches the port may ask; the engine refuses what is not newer than the last change or too far ahead.

use std::io::{self, ErrorKind};

use super::Session;
use super::connection::{Wait, Wire, hang_up, is_timeout};
use crate::base::limit::CHANGE_BYTES;
use crate::wire::change::{Answer, Change, Triple, parse};
use crate::wire::parsed::Parsed;

/// Serves one change.
pub fn serve(session: &Session, wire: &mut dyn Wire) {
    let peer = wire.peer();
    let answer = match read(session, wire) {
        Ok(Ok(change)) => apply(session, change, &format!("change_replication from {peer}")),
        Ok(Err(why)) => Answer::Refused(why),
        Err(error) if is_timeout(&error) => Answer::Refused("too slow".to_owned()),
        Err(error) => {
            log::debug!(target: "momo::connection_lost", "peer={peer} door=change: {error}");
            return;
        }
    };
    if let Answer::Refused(why) = &answer {
        log::warn!(target: "momo::mode_refused", "peer={peer} door=change: {why}");
    }
    let mut line = Vec::new();
    answer.print(&mut line);
    if wire.write_all(&line).is_ok() {
        hang_up(wire, session.limits);
    }
}

fn apply(session: &Session, change: Change, cause: &str) -> Answer {
    let changed = session
        .verbs
        .set_mode(change.new, Some(change.timestamp), cause);
    match changed {
        Ok(record) => Answer::Changed(Triple {
            old: record.old,
            new: record.new,
            timestamp: record.timestamp,
        }),
        Err(failure) => Answer::Refused(failure.to_string()),
    }
}

/// Reads up to where the object's braces close.
fn read(session: &Session, wire: &mut dyn Wire) -> io::Result<Result<Change, String>> {
    let deadline = wire.now() + session.limits.head;
    wire.set_deadline(Wait::Head, deadline);
    let mut object = Vec::new();
    loop {
        let chunk = match wire.fill_buf() {
            Ok(chunk) => chunk,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let ended = chunk.is_empty();
        // Never more than the limit in memory; a longer object is refused by the grammar.
        let taken = chunk.len().min(CHANGE_BYTES.saturating_sub(object.len()));
        object.extend_from_slice(chunk.get(..taken).unwrap_or_default());
        wire.consume(taken);
        match parse(&object, ended) {
            Parsed::Complete { value, .. } => return Ok(Ok(value)),
            Parsed::Malformed(why) => return Ok(Err(why.to_string())),
            Parsed::Incomplete => {}
        }
    }
}
