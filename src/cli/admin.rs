//! The client's side of the administrative connection: the next daemon when one cannot be reached, and what became of a change.

use std::io;
use std::time::Duration;

use super::dial::{DialFlags, words};
use super::exit::Failure;
use crate::config::{Config, Daemon, HostPort};
use crate::engine::frame::FrameStream;
use crate::engine::handshake::{PATIENCE, Secret, dial_as_operator};
use crate::server::settings;
use crate::wire::admin::{Answer, Request};
use crate::wire::command::Code;

/// Longest write to a daemon.
const WRITE: Duration = Duration::from_secs(10);
/// What a daemon may take for an answer, at least: a change waits for a majority first.
const ANSWER: Duration = Duration::from_mins(1);

/// What a request may be asked for again after its connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It changes nothing.
    Question,
    /// It changes something, and twice the same as once.
    Change,
}

/// The peer doors of a configuration, by number.
fn doors(config: &Config) -> Vec<HostPort> {
    config.daemons.values().map(Daemon::peer).cloned().collect()
}

/// The daemons an operator may ask, and the connection to the one that answered last.
pub(super) struct Client<'a> {
    flags: &'a DialFlags,
    servers: Vec<HostPort>,
    secret: Secret,
    /// The daemon of `stream`, and the first to be asked.
    at: usize,
    stream: Option<FrameStream>,
}

impl<'a> Client<'a> {
    /// Reads the configuration: it names the secret, and the daemons unless `--server` does.
    pub(super) fn new(flags: &'a DialFlags) -> Result<Self, Failure> {
        let config = flags.conf.load()?;
        let secret =
            settings::secret(&config).map_err(|error| Failure::Failed(error.to_string()))?;
        let servers = if flags.server.is_empty() {
            doors(&config)
        } else {
            flags.server.clone()
        };
        Ok(Self {
            flags,
            servers,
            secret,
            at: 0,
            stream: None,
        })
    }

    /// The same, for one daemon only.
    pub(super) fn only(&self, server: HostPort) -> Self {
        Self {
            flags: self.flags,
            servers: vec![server],
            secret: self.secret.clone(),
            at: 0,
            stream: None,
        }
    }

    /// Asks, and gives the answer unless it is a refusal. The next daemon is asked when one cannot be reached, is not able
    /// to answer now, or breaks off.
    pub(super) fn ask(&mut self, request: &Request, kind: Kind) -> Result<Answer, Failure> {
        let mut tried = Vec::new();
        let mut unknown = None;
        // A kept connection may have been closed meanwhile: its daemon then gets a second chance.
        let extra = usize::from(self.stream.is_some());
        for attempt in 0..self.servers.len() + extra {
            if attempt > extra {
                self.at = (self.at + 1) % self.servers.len();
            }
            let Some(server) = self.servers.get(self.at).cloned() else {
                break;
            };
            let mut stream = match self.stream.take().map_or_else(|| self.dial(&server), Ok) {
                Ok(stream) => stream,
                Err(error) => {
                    tried.push(format!("{server}: {}", words(&error)));
                    continue;
                }
            };
            let answer = stream.send(request).and_then(|()| stream.receive_value());
            match answer {
                Ok(Answer::Refused {
                    code: Code::Unavailable,
                    message,
                }) => tried.push(format!("{server}: {message}")),
                Ok(Answer::Refused { message, .. }) => {
                    // What one daemon may have done already, the next one refuses to do again.
                    return Err(match unknown {
                        Some(why) => Failure::Unknown(format!("{why}; {server}: {message}")),
                        None => Failure::Failed(message),
                    });
                }
                Ok(Answer::Unknown { message }) => {
                    unknown = Some(format!("{server}: {message}"));
                }
                Ok(answer) => {
                    self.stream = Some(stream);
                    return Ok(answer);
                }
                Err(error) => {
                    let why = format!("{server}: {}", words(&error));
                    if kind == Kind::Change {
                        unknown = Some(why.clone());
                    }
                    tried.push(why);
                }
            }
        }
        Err(match unknown {
            Some(why) => Failure::Unknown(why),
            None => Failure::Failed(format!("no daemon could do it: {}", tried.join("; "))),
        })
    }

    /// The connection on which the last answer came, for what is more than an answer.
    pub(super) fn take(&mut self) -> Option<FrameStream> {
        self.stream.take()
    }

    fn dial(&self, server: &HostPort) -> io::Result<FrameStream> {
        let socket = self.flags.connect(server)?;
        let (mut stream, _) = dial_as_operator(socket, self.secret.clone(), PATIENCE)?;
        stream.set_timeouts(self.flags.timeout.max(ANSWER), WRITE)?;
        Ok(stream)
    }
}

/// An answer to another question.
pub(super) fn nonsense(answer: &Answer) -> Failure {
    let text = format!("{answer:?}");
    let start: String = text.chars().take(80).collect();
    Failure::Failed(format!("reply not understood: {start}"))
}
