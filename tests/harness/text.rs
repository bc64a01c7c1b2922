//! The text door from outside: one connection, lines and bodies, as a person with netcat would send them.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::dial;

/// A connection to a text door that stays open between commands.
#[derive(Debug)]
pub struct Text {
    stream: BufReader<TcpStream>,
}

impl Text {
    /// Dials a daemon.
    pub fn dial(address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            stream: BufReader::with_capacity(64 * 1024, dial(address)?),
        })
    }

    /// The socket, for tests that do what no client does.
    pub fn socket(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    /// What is still to be read.
    pub fn into_reader(self) -> impl Read {
        self.stream
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// One line of an answer, without its end.
    pub fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Sends a command and reads the first line of the answer.
    pub fn ask(&mut self, command: &str) -> io::Result<String> {
        self.send(format!("{command}\n").as_bytes())?;
        self.line()
    }

    /// Sends a command and reads lines up to the one that says `OK` or `ERR`, that one included.
    pub fn ask_lines(&mut self, command: &str) -> io::Result<Vec<String>> {
        let mut lines = vec![self.ask(command)?];
        while !lines
            .last()
            .is_some_and(|line| line.starts_with("OK") || line.starts_with("ERR"))
        {
            lines.push(self.line()?);
        }
        Ok(lines)
    }

    /// Whatever comes until the door closes.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Whether the daemon answers look-ups from what is committed, and not from what it happens to have.
    pub fn is_fresh(&mut self) -> io::Result<bool> {
        let status = self.ask_lines("STATUS JSON")?;
        if !status
            .iter()
            .any(|line| line.contains("\"state\":\"ready\""))
        {
            return Ok(false);
        }
        let answer = self.ask("FILE STAT no-such-file-in-this-cluster")?;
        Ok(answer.starts_with("ERR") && answer.contains("not found"))
    }

    /// `FILE PUT`; `keys` are written before the name. The answer behind `OK `, or the one behind `ERR `.
    pub fn put(
        &mut self,
        name: &str,
        keys: &str,
        body: &[u8],
    ) -> io::Result<Result<String, String>> {
        let mut bytes = put_head(name, keys, body.len() as u64).into_bytes();
        bytes.extend_from_slice(body);
        self.send(&bytes)?;
        Ok(split(self.line()?))
    }

    /// `FILE GET`; the bytes, or what stands behind `ERR `.
    pub fn get(&mut self, name: &str) -> io::Result<Result<Vec<u8>, String>> {
        Ok(self.get_whole(name)?.map(|got| got.body))
    }

    /// So many bytes of a body, after a `FILE GET` by [`Text::ask`].
    pub fn some(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0_u8; count];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// `FILE GET`, with what the daemon said of the bytes.
    pub fn get_whole(&mut self, name: &str) -> io::Result<Result<Got, String>> {
        let head = match split(self.ask(&format!("FILE GET {name}"))?) {
            Ok(head) => head,
            Err(why) => return Ok(Err(why)),
        };
        let words: Vec<&str> = head.split_whitespace().collect();
        let number = |index: usize| -> io::Result<u64> {
            words
                .get(index)
                .and_then(|word| word.parse().ok())
                .ok_or_else(|| io::Error::other(format!("no number {index} in {head:?}")))
        };
        let mut body = vec![0_u8; usize::try_from(number(0)?).map_err(io::Error::other)?];
        self.stream.read_exact(&mut body)?;
        Ok(Ok(Got {
            body,
            version: number(2)?,
            stale: words.get(3) == Some(&"stale"),
        }))
    }
}

/// What a `FILE GET` brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// The bytes.
    pub body: Vec<u8>,
    /// The version the daemon named.
    pub version: u64,
    /// Whether it said that this may not be the newest.
    pub stale: bool,
}

/// The command line of a `FILE PUT`.
pub fn put_head(name: &str, keys: &str, size: u64) -> String {
    let mut head = format!("FILE PUT {size} ");
    if !keys.is_empty() {
        let _ = write!(head, "{keys} ");
    }
    let _ = writeln!(head, "-- {name}");
    head
}

fn split(line: String) -> Result<String, String> {
    match line.split_once(' ') {
        Some(("OK", rest)) => Ok(rest.to_owned()),
        Some(("ERR", rest)) => Err(rest.to_owned()),
        _ if line == "OK" => Ok(String::new()),
        _ => Err(line),
    }
}
