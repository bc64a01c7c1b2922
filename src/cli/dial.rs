//! Which daemons a client may ask, and a connection to one of them with a deadline on everything.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use clap::Args;

use super::exit::Failure;
use super::locate::ConfFlag;
use crate::config::field::{address, time};
use crate::config::{Config, HostPort};

/// Whom to ask and how long to wait.
#[derive(Args, Clone, Debug)]
pub(super) struct DialFlags {
    #[command(flatten)]
    pub conf: ConfFlag,
    /// Daemon to ask instead of those of the configuration; may be repeated, the next is tried when one cannot be reached
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    pub server: Vec<HostPort>,
    /// Longest wait for a connection
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = time)]
    pub connect_timeout: Duration,
    /// Longest wait for the next byte
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    pub timeout: Duration,
    /// No progress bar
    #[arg(long, short)]
    pub quiet: bool,
}

impl DialFlags {
    /// The daemons to ask, in order: those of `--server`, or what `of` takes from the configuration.
    pub(super) fn servers(
        &self,
        of: fn(&Config) -> Vec<HostPort>,
    ) -> Result<Vec<HostPort>, Failure> {
        if !self.server.is_empty() {
            return Ok(self.server.clone());
        }
        self.conf.load().map(|config| of(&config))
    }

    /// A connection to `server`, whichever of its addresses answers first.
    pub(super) fn connect(&self, server: &HostPort) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "host has no address");
        for address in (server.host.as_str(), server.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, at_least_a_tick(self.connect_timeout)) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(at_least_a_tick(self.timeout)))?;
                    stream.set_write_timeout(Some(at_least_a_tick(self.timeout)))?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// A wait of nothing would mean for ever.
fn at_least_a_tick(wait: Duration) -> Duration {
    wait.max(Duration::from_millis(1))
}

/// An error of a socket in words that say whose wait ended.
pub(super) fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        io::ErrorKind::UnexpectedEof => "closed the connection".to_owned(),
        _ => error.to_string(),
    }
}
