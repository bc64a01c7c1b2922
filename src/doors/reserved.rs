//! Protocols that are recognised and politely declined: their doors come later.

use super::Session;
use super::connection::{Wire, hang_up};

/// HTTP: 501 and a close.
pub fn http(session: &Session, wire: &mut dyn Wire) {
    const ANSWER: &[u8] =
        b"HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    decline(session, wire, "http", ANSWER);
}

/// Name server: an error line and a close.
pub fn names(session: &Session, wire: &mut dyn Wire) {
    const ANSWER: &[u8] = b"ERROR|||NM|UNAVAILABLE|no name server here\n";
    decline(session, wire, "names", ANSWER);
}

/// Replica group: it has no word for no, so only a close.
pub fn group(session: &Session, wire: &mut dyn Wire) {
    decline(session, wire, "group", b"");
}

fn decline(session: &Session, wire: &mut dyn Wire, protocol: &str, answer: &[u8]) {
    let peer = wire.peer();
    log::warn!(target: "momo::protocol_declined", "peer={peer} protocol={protocol}: this daemon has no such door");
    if wire.write_all(answer).is_ok() {
        hang_up(wire, session.limits);
    }
}
