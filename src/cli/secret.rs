//! `momo secret`: makes the secret that daemons share, and says whether it is as it must be (rule R20).

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::exit::{Failure, of_file};
use super::locate::ConfFlag;
use super::print;
use crate::config::Config;
use crate::server::settings;

#[derive(Args, Debug)]
pub(super) struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new secret, readable by its owner only; an existing one is not touched
    New(New),
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  momo secret new
  momo secret new --conf /etc/momo/momo.conf
  momo secret new --file momo.secret")]
struct New {
    #[command(flatten)]
    conf: ConfFlag,
    /// Where to write it; otherwise where the configuration says
    #[arg(long, value_name = "PATH", conflicts_with = "conf")]
    file: Option<PathBuf>,
}

/// Bytes of chance in a new secret.
const SECRET_BYTES: usize = 32;

pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    let Command::New(new) = &flags.command;
    let path = match &new.file {
        Some(path) => path.clone(),
        None => new.conf.load()?.secret_file(),
    };
    make(&path)?;
    print::out(&format!(
        "{}: made; copy it to the same place for every daemon, owner and mode kept\n",
        path.display()
    ))
}

/// Writes a new secret: 64 hexadecimal digits and a line end, mode 0600, synced.
fn make(path: &Path) -> Result<(), Failure> {
    let mut chance = [0; SECRET_BYTES];
    getrandom::fill(&mut chance)
        .map_err(|error| Failure::Failed(format!("no randomness: {error}")))?;
    let mut text = chance.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    text.push('\n');
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let mut file = match file {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(Failure::Failed(format!(
                "{}: exists already; a new secret would lock out the daemons that have this one",
                path.display()
            )));
        }
        other => other.map_err(of_file(path))?,
    };
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(of_file(path))
}

/// That a daemon of this configuration may start: the secret is there and nobody else can read it, or no address of any
/// daemon can be reached from another machine.
pub(super) fn check(config: &Config) -> Result<(), Failure> {
    settings::secret(config)
        .map(drop)
        .map_err(|error| Failure::Failed(error.to_string()))
}
