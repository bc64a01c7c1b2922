//! Floor 5: one file per protocol, each a thin translation onto the engine's verbs; here is the table of doors.
//!
//! A door is plain blocking code over a [`Wire`]. It finds the first bytes of its protocol still unread, serves the connection to its end and
//! returns; whoever called it then drops the connection. To add a door: `wire/x.rs`, `doors/x.rs`, a row here.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

pub mod change;
pub mod connection;
pub mod momo;
pub mod reserved;
pub mod text;

pub use connection::{Limits, Wait, Wire};

use crate::config::TextAdmin;
use crate::engine::verbs::Verbs;
use crate::wire::first::Protocol;

/// What a door needs besides its connection.
#[derive(Clone, Copy)]
pub struct Session<'a> {
    /// The engine.
    pub verbs: &'a dyn Verbs,
    /// Patience and sizes.
    pub limits: &'a Limits,
    /// Who may change things by the text door (rule R21).
    pub text_admin: TextAdmin,
}

/// A row of the table.
pub struct Door {
    /// What it speaks.
    pub protocol: Protocol,
    /// Its name in log lines.
    pub name: &'static str,
    /// Serves a connection to its end.
    pub serve: fn(&Session, &mut dyn Wire),
    /// "Not now" in its words, for a connection that gets no slot; empty where only closing says so.
    pub busy: &'static [u8],
}

/// The doors. Peers are not among them: they are the engine's own.
pub const DOORS: &[Door] = &[
    Door {
        protocol: Protocol::Momo,
        name: "momo",
        serve: momo::serve,
        busy: b"",
    },
    Door {
        protocol: Protocol::Change,
        name: "change",
        serve: change::serve,
        busy: b"{\"error\":\"busy, try again\"}\n",
    },
    Door {
        protocol: Protocol::Text,
        name: "text",
        serve: text::serve,
        busy: b"ERR busy, try again\n",
    },
    Door {
        protocol: Protocol::Http,
        name: "http",
        serve: reserved::http,
        busy: b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    },
    Door {
        protocol: Protocol::Names,
        name: "names",
        serve: reserved::names,
        busy: b"ERROR|||NM|UNAVAILABLE|busy, try again\n",
    },
    Door {
        protocol: Protocol::Group,
        name: "group",
        serve: reserved::group,
        busy: b"",
    },
];

/// The door of a protocol; `None` for peers.
pub fn door(protocol: Protocol) -> Option<&'static Door> {
    DOORS.iter().find(|door| door.protocol == protocol)
}
