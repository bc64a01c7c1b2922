//! Clients for many small files: the text door on kept connections, and the Momo protocol with a connection a file.

use std::io;
use std::net::SocketAddr;
use std::thread;

use crate::harness;
use crate::harness::momo::{Padding, Pieces, Upload};
use crate::harness::text::Text;

/// What a client does with each name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `FILE PUT`, splay.
    Put,
    /// `FILE GET`, compared.
    Get,
    /// `FILE STAT`: a round trip with one fresh look-up.
    Stat,
    /// `NODE PING`: a round trip and nothing else.
    Ping,
    /// An upload by the Momo protocol.
    Momo,
}

impl Verb {
    /// As it is spelt between this program and its clients.
    pub const ALL: &[(&str, Verb)] = &[
        ("put", Verb::Put),
        ("get", Verb::Get),
        ("stat", Verb::Stat),
        ("ping", Verb::Ping),
        ("momo", Verb::Momo),
    ];

    /// The verb of a word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(name, _)| *name == word)
            .map(|(_, verb)| *verb)
    }

    /// The word of the verb.
    pub fn word(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, verb)| *verb == self)
            .map_or("", |(name, _)| name)
    }
}

/// The content of a small file: different in each, cheap to make.
pub fn content(index: u64, size: u64) -> Vec<u8> {
    harness::content(index + 1, usize::try_from(size).unwrap_or(0))
}

fn wrong(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

/// `count` operations on files of `size` bytes by `clients` threads, each on a connection of its own.
pub fn run(
    verb: Verb,
    prefix: &str,
    size: u64,
    count: u64,
    clients: u64,
    address: SocketAddr,
) -> io::Result<()> {
    let step = usize::try_from(clients).unwrap_or(1);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..clients)
            .map(|own| {
                scope.spawn(move || -> io::Result<()> {
                    let mut text = Text::dial(address)?;
                    for index in (own..count).step_by(step) {
                        one(
                            verb,
                            &mut text,
                            &format!("{prefix}-{index}"),
                            index,
                            size,
                            address,
                        )?;
                    }
                    Ok(())
                })
            })
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("a client thread"))
    })
}

fn one(
    verb: Verb,
    text: &mut Text,
    name: &str,
    index: u64,
    size: u64,
    address: SocketAddr,
) -> io::Result<()> {
    match verb {
        Verb::Put => {
            let answer = text.put(name, "strategy=splay", &content(index, size))?;
            let kept = answer.map_err(wrong)?;
            if !kept.ends_with("copies=3") {
                return Err(wrong(kept));
            }
        }
        Verb::Get => {
            if text.get(name)?.map_err(wrong)? != content(index, size) {
                return Err(wrong(format!("{name} came back different")));
            }
        }
        Verb::Stat => {
            let lines = text.ask_lines(&format!("FILE STAT {name}"))?;
            if lines.last().is_some_and(|line| line.starts_with("ERR")) {
                return Err(wrong(lines.join(" ")));
            }
        }
        Verb::Ping => {
            let answer = text.ask("NODE PING")?;
            if answer != "PONG" {
                return Err(wrong(answer));
            }
        }
        Verb::Momo => {
            let mut upload = Upload::of(name, &content(index, size));
            upload.padding = Padding::Zeros;
            upload.pieces = Pieces::Whole;
            let answer = upload.send(address)?;
            if answer.acknowledged_by().is_none() {
                return Err(wrong(format!("no ACK: {answer:?}")));
            }
        }
    }
    Ok(())
}
