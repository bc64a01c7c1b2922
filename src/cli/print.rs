//! Standard output and standard error: one write a piece, and a closed pipe is the end instead of a panic.

use std::io::{self, ErrorKind, IsTerminal, Write};

use super::exit::Failure;

/// Writes `text` to standard output.
pub(super) fn out(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| of_stdout(&error))
}

/// Writes one JSON value and a line end to standard output.
pub(super) fn json(value: &serde_json::Value) -> Result<(), Failure> {
    out(&format!("{value}\n"))
}

/// What an error on standard output means.
fn of_stdout(error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::Failed(format!("standard output: {error}")),
    }
}

/// Says something to the person at the terminal; nobody listening is no error.
pub(super) fn warn(text: &str) {
    let _ = io::stderr()
        .lock()
        .write_all(format!("momo: {text}\n").as_bytes());
}

/// Asks the person at the terminal; nobody there is a no.
pub(super) fn confirm(question: &str) -> Result<(), Failure> {
    warn(question);
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::Usage(
            "nobody to ask: say --yes if that is what you want".to_owned(),
        ));
    }
    warn("type yes to go on:");
    let mut line = String::new();
    let read = io::stdin().read_line(&mut line);
    if read.is_ok() && line.trim() == "yes" {
        return Ok(());
    }
    Err(Failure::Failed("nothing was changed".to_owned()))
}
