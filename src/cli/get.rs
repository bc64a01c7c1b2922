//! `momo get`: reads files back; what does not match its digest never gets the file's name.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::Args;
use parking_lot::Mutex;
use serde_json::json;

use super::dial::DialFlags;
use super::exit::{Failure, of_file};
use super::progress::Progress;
use super::text::{Client, Session, Stop, Trouble, elsewhere};
use super::{flow, print};
use crate::base::id::Version;
use crate::base::path::FilePath;
use crate::wire::text::{ContentHead, Request};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  momo get report.pdf
  momo get a.iso b.iso -o /srv/images/
  momo get src.tar -o - | tar x")]
pub(super) struct Flags {
    /// Names to read
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// File or directory to write to, or - for standard output; otherwise the last part of each name, here
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
    /// An earlier version instead of the newest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    version: Option<u64>,
    /// One JSON object a file
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    dial: DialFlags,
}

/// Where a file's bytes go.
enum Place {
    Stdout,
    File(PathBuf),
}

pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    if flags.json && flags.output.as_deref() == Some(Path::new("-")) {
        return Err(Failure::Usage(
            "--json and -o - both want standard output".to_owned(),
        ));
    }
    let jobs = places(flags)?;
    clean_up_when_interrupted()?;
    let mut client = Client::new(&flags.dial)?;
    let mut worst = None;
    for (name, place) in &jobs {
        let result = match place {
            Place::Stdout => to_stdout(flags, &mut client, name),
            Place::File(path) => to_file(flags, &mut client, name, path),
        };
        if let Err(failure) = result {
            if jobs.len() == 1 || matches!(failure, Failure::Closed) {
                return Err(failure);
            }
            print::warn(&failure.to_string());
            worst = Some(failure.worse(worst));
        }
    }
    worst.map_or(Ok(()), |failure| Err(failure.of_several()))
}

/// Which name goes where; no two to the same place.
fn places(flags: &Flags) -> Result<Vec<(FilePath, Place)>, Failure> {
    let mut jobs = Vec::new();
    let mut taken = BTreeSet::new();
    for text in &flags.names {
        let name =
            FilePath::new(text).map_err(|why| Failure::Failed(format!("{text:?}: {why}")))?;
        let place = match &flags.output {
            Some(output) if output == Path::new("-") => Place::Stdout,
            Some(output) if output.is_dir() => Place::File(output.join(name.name())),
            Some(output) if flags.names.len() > 1 => {
                return Err(Failure::Usage(format!(
                    "{}: several names want a directory",
                    output.display()
                )));
            }
            Some(output) => Place::File(output.clone()),
            None => Place::File(PathBuf::from(name.name())),
        };
        if let Place::File(path) = &place
            && !taken.insert(path.clone())
        {
            return Err(Failure::Usage(format!(
                "two names would become {}",
                path.display()
            )));
        }
        jobs.push((name, place));
    }
    Ok(jobs)
}

fn to_file(
    flags: &Flags,
    client: &mut Client,
    name: &FilePath,
    path: &Path,
) -> Result<(), Failure> {
    let part = Part::new(path);
    let quiet = flags.dial.quiet || flags.json;
    let head = client
        .ask(|session| {
            let head = ask(session, name, flags.version)?;
            let mut file = part.create().map_err(Trouble::Here)?;
            let progress = Progress::new(name.as_str(), head.size, quiet);
            let digest = flow::receive(session.reader(), head.size, &mut file, &progress).map_err(
                |stop| match stop {
                    flow::Stop::Source(error) => elsewhere(&error),
                    flow::Stop::Sink(error) => Trouble::Here(of_file(path)(error)),
                },
            )?;
            if digest != head.sha256 {
                return Err(Trouble::Elsewhere(mismatch(&head, digest)));
            }
            Ok(head)
        })
        .map_err(|failure| failure.about(name.as_str()))?;
    part.keep(path)?;
    warn_of_stale(name, &head);
    if flags.json {
        return print::json(&json!({
            "name": name, "file": path.to_string_lossy(), "size": head.size,
            "sha256": head.sha256, "version": head.version, "stale": head.stale,
        }));
    }
    print::out(&format!(
        "{name}: {} bytes, version {}, in {}\n",
        head.size,
        head.version,
        path.display()
    ))
}

/// What has left by standard output cannot be taken back: another daemon is asked only as long as nothing has.
fn to_stdout(flags: &Flags, client: &mut Client, name: &FilePath) -> Result<(), Failure> {
    // Past std's line buffer: blocks leave as they come.
    let stdout = io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| undelivered(&error))?;
    let mut stdout = File::from(stdout);
    let head = client
        .ask(|session| {
            let head = ask(session, name, flags.version)?;
            let progress = Progress::new(name.as_str(), head.size, flags.dial.quiet);
            let digest = flow::receive(session.reader(), head.size, &mut stdout, &progress)
                .map_err(|stop| match stop {
                    flow::Stop::Source(error) => Trouble::Refused(format!(
                        "the connection broke off; what came out is incomplete: {error}"
                    )),
                    flow::Stop::Sink(error) => Trouble::Here(undelivered(&error)),
                })?;
            if digest != head.sha256 {
                return Err(Trouble::Refused(mismatch(&head, digest)));
            }
            Ok(head)
        })
        .map_err(|failure| failure.about(name.as_str()))?;
    warn_of_stale(name, &head);
    Ok(())
}

/// Asks for the bytes; they follow what this returns.
fn ask(
    session: &mut Session,
    name: &FilePath,
    version: Option<u64>,
) -> Result<ContentHead, Trouble> {
    let request = Request::Get {
        name: name.clone(),
        version: version.map(Version),
    };
    session.send(&request).map_err(|error| elsewhere(&error))?;
    let rest = session.ok().map_err(Stop::of_question)?;
    ContentHead::parse(&rest)
        .ok_or_else(|| Trouble::Elsewhere(format!("not understood: OK {rest}")))
}

fn mismatch(head: &ContentHead, digest: crate::base::digest::Sha256) -> String {
    format!("wrong bytes: SHA-256 {digest} instead of {}", head.sha256)
}

fn warn_of_stale(name: &FilePath, head: &ContentHead) {
    if head.stale {
        print::warn(&format!(
            "{name}: no leader confirmed that version {} is the newest",
            head.version
        ));
    }
}

/// A reader that left early did not get the file: not an end to be silent about in the exit code.
fn undelivered(error: &io::Error) -> Failure {
    Failure::Failed(format!("standard output: {error}"))
}

/// A file under a name of its own until it is known to be whole; removed unless it is kept, also when a signal ends the program.
struct Part {
    path: PathBuf,
}

/// The part that is being written, for whoever gets the signal.
static UNFINISHED: Mutex<Option<PathBuf>> = Mutex::new(None);
/// What a shell says of a program that was interrupted.
const INTERRUPTED: i32 = 130;

/// From now on SIGINT and SIGTERM remove the unfinished part before they end the program.
fn clean_up_when_interrupted() -> Result<(), Failure> {
    let handler = || {
        // The lock is held to the end: no part is made after this.
        let unfinished = UNFINISHED.lock();
        if let Some(path) = unfinished.as_ref() {
            let _ = fs::remove_file(path);
        }
        std::process::exit(INTERRUPTED);
    };
    ctrlc::set_handler(handler).map_err(|error| Failure::Failed(format!("signals: {error}")))
}

impl Part {
    fn new(target: &Path) -> Self {
        let suffix = format!(".momo-part-{}", std::process::id());
        let mut name = target.file_name().unwrap_or_default().to_owned();
        // File systems take 255 bytes.
        if name.len() + suffix.len() > 255 {
            name.clear();
        }
        name.push(suffix);
        Self {
            path: target.with_file_name(name),
        }
    }

    fn create(&self) -> Result<File, Failure> {
        let mut unfinished = UNFINISHED.lock();
        *unfinished = Some(self.path.clone());
        File::create(&self.path).map_err(of_file(&self.path))
    }

    fn keep(&self, target: &Path) -> Result<(), Failure> {
        fs::rename(&self.path, target).map_err(of_file(target))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Gone already when it was kept.
        let _ = fs::remove_file(&self.path);
        *UNFINISHED.lock() = None;
    }
}
