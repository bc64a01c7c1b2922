//! The client's side of the text door: sessions with daemons, and the next daemon when one cannot be reached.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::dial::{DialFlags, words};
use super::exit::Failure;
use crate::base::limit::LINE_BYTES;
use crate::config::{Config, Daemon, HostPort};
use crate::wire::text::{OUTCOME_UNKNOWN, Request, Verdict, verdict};

/// A daemon that answers a change has first waited for others: so much more than the wait for a byte is granted.
const CHANGE_WAIT: Duration = Duration::from_mins(1);
/// Longest reply of several lines, in bytes; a listing has no such limit.
const REPLY_BYTES: usize = 64 * 1024 * 1024;
/// Words of refusals that are about one daemon at this moment: nothing happened, and the next one may do it.
const PASSING: &[&str] = &["busy", "try again", "daemons up"];

/// Why a request did not succeed, by who can do something about it.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nothing happened here; another daemon may be asked.
    Elsewhere(String),
    /// The daemon refused; so would the others.
    Refused(String),
    /// It may have happened.
    Unknown(String),
    /// Something on this side.
    Here(Failure),
}

/// An error of the connection before anything could have happened.
pub(super) fn elsewhere(error: &io::Error) -> Trouble {
    Trouble::Elsewhere(words(error))
}

/// The text doors of a configuration, by number.
pub(super) fn doors(config: &Config) -> Vec<HostPort> {
    config.daemons.values().map(Daemon::text).cloned().collect()
}

/// The daemons a command may ask, and the session with the one that answered last.
pub(super) struct Client<'a> {
    flags: &'a DialFlags,
    servers: Vec<HostPort>,
    /// The daemon of `session`, and the first to be asked.
    at: usize,
    session: Option<Session>,
}

impl<'a> Client<'a> {
    pub(super) fn new(flags: &'a DialFlags) -> Result<Self, Failure> {
        Ok(Self {
            flags,
            servers: flags.servers(doors)?,
            at: 0,
            session: None,
        })
    }

    /// Does `work` with a daemon; with the next one while it says [`Trouble::Elsewhere`].
    pub(super) fn ask<T>(
        &mut self,
        mut work: impl FnMut(&mut Session) -> Result<T, Trouble>,
    ) -> Result<T, Failure> {
        let mut tried = Vec::new();
        // A kept session may have been closed meanwhile: its daemon then gets a second chance.
        let extra = usize::from(self.session.is_some());
        for attempt in 0..self.servers.len() + extra {
            if attempt > extra {
                self.at = (self.at + 1) % self.servers.len();
            }
            let Some(server) = self.servers.get(self.at) else {
                break;
            };
            let session = match self.session.take() {
                Some(session) => Ok(session),
                None => Session::connect(self.flags, server),
            };
            let mut session = match session {
                Ok(session) => session,
                Err(error) => {
                    tried.push(format!("{server}: {}", words(&error)));
                    continue;
                }
            };
            match work(&mut session) {
                Ok(value) => {
                    self.session = Some(session);
                    return Ok(value);
                }
                Err(Trouble::Elsewhere(why)) => tried.push(format!("{server}: {why}")),
                Err(Trouble::Refused(why)) => {
                    return Err(Failure::Failed(why));
                }
                Err(Trouble::Unknown(why)) => {
                    return Err(Failure::Unknown(format!("{server}: {why}")));
                }
                Err(Trouble::Here(failure)) => return Err(failure),
            }
        }
        Err(Failure::Failed(format!(
            "no daemon could do it: {}",
            tried.join("; ")
        )))
    }

    /// A question that changes nothing, and the lines before the `OK` of its reply.
    pub(super) fn question(&mut self, request: &Request) -> Result<Vec<String>, Failure> {
        self.ask(|session| {
            session.send(request).map_err(|error| elsewhere(&error))?;
            session.reply().map_err(Stop::of_question)
        })
    }

    /// A change, and the lines before the `OK` of its reply. Once it has been sent, only the reply tells what became of it.
    pub(super) fn change(&mut self, request: &Request) -> Result<Vec<String>, Failure> {
        self.ask(|session| {
            session.send(request).map_err(|error| elsewhere(&error))?;
            session.patiently(Session::reply).map_err(Stop::of_change)
        })
    }
}

/// A connection to one daemon's text door.
pub(super) struct Session {
    reader: BufReader<TcpStream>,
    wait: Duration,
}

/// Why no `OK` came.
#[derive(Debug)]
pub(super) enum Stop {
    /// An `ERR` line.
    Err(String),
    /// The connection failed.
    Io(io::Error),
    /// Something else came.
    Nonsense(String),
}

impl Stop {
    /// What it means for a request that changes nothing.
    pub(super) fn of_question(self) -> Trouble {
        match self {
            Self::Err(why) if PASSING.iter().any(|words| why.contains(words)) => {
                Trouble::Elsewhere(why)
            }
            Self::Err(why) => Trouble::Refused(why),
            Self::Io(error) => elsewhere(&error),
            Self::Nonsense(line) => Trouble::Elsewhere(format!("not a text door: {line:?}")),
        }
    }

    /// What it means for a change that was sent whole.
    pub(super) fn of_change(self) -> Trouble {
        match self {
            Self::Err(why) => match why.strip_prefix(OUTCOME_UNKNOWN) {
                Some(rest) => Trouble::Unknown(rest.trim_start_matches([',', ' ', ':']).to_owned()),
                None => Self::Err(why).of_question(),
            },
            Self::Io(error) => Trouble::Unknown(words(&error)),
            Self::Nonsense(line) => Trouble::Unknown(format!("not a text door: {line:?}")),
        }
    }
}

impl Session {
    fn connect(flags: &DialFlags, server: &HostPort) -> io::Result<Self> {
        let stream = flags.connect(server)?;
        Ok(Self {
            reader: BufReader::with_capacity(16 * 1024, stream),
            wait: flags.timeout,
        })
    }

    /// Sends a request in one write.
    pub(super) fn send(&mut self, request: &Request) -> io::Result<()> {
        let mut line = Vec::new();
        request.print(&mut line);
        self.stream().write_all(&line)
    }

    /// Where bytes go out.
    pub(super) fn stream(&mut self) -> &mut TcpStream {
        self.reader.get_mut()
    }

    /// Where bytes come in.
    pub(super) fn reader(&mut self) -> &mut BufReader<TcpStream> {
        &mut self.reader
    }

    /// Does `work` with the longer wait that a change may take.
    pub(super) fn patiently<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        let wait = self.wait.saturating_add(CHANGE_WAIT);
        self.stream()
            .set_read_timeout(Some(wait))
            .map_err(Stop::Io)?;
        let result = work(self);
        let usual = self.wait.max(Duration::from_millis(1));
        self.stream()
            .set_read_timeout(Some(usual))
            .map_err(Stop::Io)?;
        result
    }

    /// The next line, without its end.
    pub(super) fn line(&mut self) -> Result<String, Stop> {
        let mut line = Vec::new();
        let limit = u64::try_from(LINE_BYTES).unwrap_or(u64::MAX);
        self.reader
            .by_ref()
            .take(limit)
            .read_until(b'\n', &mut line)
            .map_err(Stop::Io)?;
        if line.pop() != Some(b'\n') {
            return Err(Stop::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        String::from_utf8(line).map_err(|_| Stop::Nonsense("not UTF-8".to_owned()))
    }

    /// The one line of a reply: the words behind its `OK`.
    pub(super) fn ok(&mut self) -> Result<String, Stop> {
        let line = self.line()?;
        match verdict(&line) {
            Verdict::Ok(rest) => Ok(rest.to_owned()),
            Verdict::Err(why) => Err(Stop::Err(why.to_owned())),
            Verdict::Line(_) => Err(Stop::Nonsense(line)),
        }
    }

    /// The lines before an `OK`.
    pub(super) fn reply(&mut self) -> Result<Vec<String>, Stop> {
        let mut lines = Vec::new();
        let mut left = REPLY_BYTES;
        loop {
            let line = self.line()?;
            match verdict(&line) {
                Verdict::Ok(_) => return Ok(lines),
                Verdict::Err(why) => return Err(Stop::Err(why.to_owned())),
                Verdict::Line(_) => {}
            }
            left = left
                .checked_sub(line.len() + 1)
                .ok_or_else(|| Stop::Nonsense("a reply without an end".to_owned()))?;
            lines.push(line);
        }
    }
}
