//! `momo put`: uploads by the text door, hashed while they are sent and compared with what the daemon says it kept.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::dial::DialFlags;
use super::exit::{Failure, of_file};
use super::progress::Progress;
use super::text::{Client, Session, Stop, Trouble, elsewhere};
use super::{flow, print};
use crate::base::id::Version;
use crate::base::path::FilePath;
use crate::wire::command::Expect;
use crate::wire::parsed::number;
use crate::wire::text::{PutHead, Request, Stored};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  momo put a.iso b.iso
  pg_dump shop | momo put - --name shop.sql
  momo put report.pdf --name 2026/report.pdf --expect absent")]
pub(super) struct Flags {
    /// Files to upload; - is standard input and wants --name
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Name in the store, folders allowed; otherwise the file's own
    #[arg(long)]
    name: Option<String>,
    /// Replication strategy by name, instead of the mode in force
    #[arg(long, value_parser = word)]
    strategy: Option<String>,
    /// Class of the file
    #[arg(long, value_parser = word)]
    class: Option<String>,
    /// What must be under the name: any, absent, or a version
    #[arg(long, default_value = "any", value_parser = expect)]
    expect: Expect,
    /// One JSON object a file
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    dial: DialFlags,
}

pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    if flags.name.is_some() && flags.files.len() > 1 {
        return Err(Failure::Usage("--name is for one file".to_owned()));
    }
    // Wrong usage is said before anything is sent.
    if flags.name.is_none() && flags.files.iter().any(|path| path == Path::new("-")) {
        return Err(Failure::Usage("standard input wants --name".to_owned()));
    }
    let mut client = Client::new(&flags.dial)?;
    let mut worst = None;
    for path in &flags.files {
        let result = one(flags, &mut client, path);
        if let Err(failure) = result {
            if flags.files.len() == 1 || matches!(failure, Failure::Closed) {
                return Err(failure);
            }
            print::warn(&failure.to_string());
            worst = Some(failure.worse(worst));
        }
    }
    worst.map_or(Ok(()), |failure| Err(failure.of_several()))
}

/// Uploads one file and says what became of it.
fn one(flags: &Flags, client: &mut Client, path: &Path) -> Result<(), Failure> {
    let head = |size, name| PutHead {
        strategy: flags.strategy.clone(),
        class: flags.class.clone(),
        expect: flags.expect,
        ..PutHead::plain(size, name)
    };
    let name = name_of(flags, path)?;
    let mut file = if path == Path::new("-") {
        spool()?
    } else {
        open(path)?
    };
    let before = file.metadata().map_err(of_file(path))?;
    let head = head(before.len(), name);
    let quiet = flags.dial.quiet || flags.json;
    let stored = client
        .ask(|session| {
            let progress = Progress::new(head.name.as_str(), head.size, quiet);
            file.rewind()
                .map_err(of_file(path))
                .map_err(Trouble::Here)?;
            upload(session, &head, &mut file, path, &progress)
        })
        .map_err(|failure| failure.about(head.name.as_str()))?;
    let after = file.metadata().map_err(of_file(path))?;
    if !same(&before, &after) {
        return Err(Failure::Failed(format!(
            "{}: changed while it was sent; version {} holds what was read",
            path.display(),
            stored.version
        )));
    }
    let Stored {
        sha256,
        version,
        copies,
    } = stored;
    if flags.json {
        return print::json(&json!({
            "name": head.name, "size": head.size, "sha256": sha256, "version": version, "copies": copies,
        }));
    }
    let copies = if copies == 1 {
        "1 copy".to_owned()
    } else {
        format!("{copies} copies")
    };
    print::out(&format!(
        "{}: {} bytes, {copies}, version {version}\n",
        head.name, head.size
    ))
}

/// One attempt on one connection.
fn upload(
    session: &mut Session,
    head: &PutHead,
    file: &mut File,
    path: &Path,
    progress: &Progress,
) -> Result<Stored, Trouble> {
    let mut line = Vec::new();
    Request::Put(head.clone()).print(&mut line);
    let digest = match flow::send(&line, file, head.size, session.stream(), progress) {
        Ok(digest) => digest,
        Err(flow::Stop::Source(error)) => return Err(Trouble::Here(of_file(path)(error))),
        Err(flow::Stop::Sink(error)) => {
            // The daemon may have said why before it stopped listening. The body was short: nothing is kept.
            return Err(match session.ok() {
                Err(stop @ Stop::Err(_)) => stop.of_question(),
                _ => elsewhere(&error),
            });
        }
    };
    let rest = session.patiently(Session::ok).map_err(Stop::of_change)?;
    match Stored::parse(&rest) {
        Some(stored) if stored.sha256 == digest => Ok(stored),
        Some(stored) => Err(Trouble::Refused(format!(
            "kept other bytes than were sent: SHA-256 {} instead of {digest}",
            stored.sha256
        ))),
        None => Err(Trouble::Unknown(format!("not understood: OK {rest}"))),
    }
}

/// The name in the store.
fn name_of(flags: &Flags, path: &Path) -> Result<FilePath, Failure> {
    let own = path.file_name().and_then(|name| name.to_str());
    let text = match &flags.name {
        Some(name) => name.as_str(),
        None => own.ok_or_else(|| {
            Failure::Failed(format!(
                "{}: no file name that is UTF-8; give --name",
                path.display()
            ))
        })?,
    };
    FilePath::new(text).map_err(|why| Failure::Failed(format!("{text:?}: {why}")))
}

/// A file that can be sent: a regular one.
pub(super) fn open(path: &Path) -> Result<File, Failure> {
    let file = File::open(path).map_err(of_file(path))?;
    if !file.metadata().map_err(of_file(path))?.is_file() {
        return Err(Failure::Failed(format!(
            "{}: is not a regular file",
            path.display()
        )));
    }
    Ok(file)
}

/// True when nobody wrote to a file in between, as far as size and time of change tell.
pub(super) fn same(before: &std::fs::Metadata, after: &std::fs::Metadata) -> bool {
    before.len() == after.len() && before.modified().ok() == after.modified().ok()
}

/// Standard input as a file without a name: its size has to be known before it is sent.
fn spool() -> Result<File, Failure> {
    let directory = std::env::temp_dir();
    let path = directory.join(format!("momo-put-{}", std::process::id()));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let mut file = options.open(&path).map_err(of_file(&path))?;
    std::fs::remove_file(&path).map_err(of_file(&path))?;
    copy(&mut io::stdin().lock(), &mut file).map_err(of_file(&path))?;
    Ok(file)
}

fn copy(source: &mut impl Read, sink: &mut impl Write) -> io::Result<u64> {
    let mut buffer = io::BufWriter::with_capacity(crate::base::limit::BLOCK_BYTES, sink);
    let count = io::copy(source, &mut buffer)?;
    buffer.flush()?;
    Ok(count)
}

/// A word that fits on a line of options.
fn word(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("is one word".to_owned());
    }
    Ok(text.to_owned())
}

fn expect(text: &str) -> Result<Expect, String> {
    match text {
        "any" => Ok(Expect::Any),
        "absent" => Ok(Expect::Absent),
        version => {
            let version = number(version).ok_or("is any, absent or the number of a version")?;
            Ok(Expect::Version(Version(version)))
        }
    }
}
