//! `momo catalog`: a readable copy of the catalog as JSON lines, written out and taken in again.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde_json::json;
use sha2::Digest;

use super::admin::{Client, Kind, nonsense};
use super::dial::{DialFlags, words};
use super::exit::{Failure, of_file};
use super::locate::ConfFlag;
use super::{print, server};
use crate::base::digest::Sha256;
use crate::base::id::NodeId;
use crate::config::Config;
use crate::engine::frame::FrameStream;
use crate::store::layout;
use crate::wire::admin::{Answer, IMPORT_AT_ONCE, Outcome, Request};
use crate::wire::lines::{End, Entry, Head, LINE_BYTES, Line};
use crate::wire::peer::{BodyEnd, Kind as Frame};

/// Bytes of lines that one request carries, beyond its last.
const BATCH_BYTES: usize = 512 * 1024;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  momo catalog export /backup/catalog.jsonl
  momo catalog export | grep '^{\"file\"' | jq -r .file.path
  momo catalog import /backup/catalog.jsonl --dry-run
  momo catalog import /backup/catalog.jsonl")]
pub(super) struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write names, versions, digests and places of all files as JSON lines: as of one moment, and no file contents
    Export(Export),
    /// Free a stopped daemon's directories from a cluster that is lost, so that a new one can be born with their bytes
    Release(Release),
    /// Take the files of such a copy into an empty catalog, as far as the nodes still have their bytes
    Import(Import),
}

#[derive(Args, Debug)]
struct Export {
    /// Where to; standard output otherwise. Gets its name only when it is whole
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    dial: DialFlags,
}

#[derive(Args, Debug)]
#[command(after_long_help = "\
For a cluster whose catalog is lost on every daemon: while one has it, use `momo recover`. Run it for each daemon, on its
machine, stopped. Set `[gc] grace` to several days first: bytes that no name refers to are removed after it. Then start
all daemons, which give birth to a new cluster, and run `momo catalog import`.")]
struct Release {
    /// Which [daemon.N]
    #[arg(long, value_name = "N")]
    id: u16,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    conf: ConfFlag,
}

#[derive(Args, Debug)]
#[command(after_long_help = "\
For a cluster whose catalog is lost while its bytes are not. Every object that the copy names is looked for on every
node; a file is put under its name with the copies that are found, in the order of its versions. What is found is told
by name and size, and `momo scrub` checks the bytes. Files whose bytes nobody has are listed and left out. The catalog
must be empty: nothing that is there is replaced. Names come back with new version numbers; members, rights of the
cluster and the mode are not taken in.")]
struct Import {
    /// The copy
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Change nothing, and say what would be taken in
    #[arg(long)]
    dry_run: bool,
    /// Go on with an import that was interrupted: what is there already must be the same
    #[arg(long)]
    resume: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    dial: DialFlags,
}

pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    match &flags.command {
        Command::Export(export) => self::export(export),
        Command::Import(import) => self::import(import),
        Command::Release(release) => self::release(release),
    }
}

fn release(release: &Release) -> Result<(), Failure> {
    let config = release.conf.load()?;
    let id = server::known(&config, release.id)?;
    if !release.yes {
        print::confirm(&format!(
            "daemon {id} forgets its cluster and its copy of the catalog (put aside, not removed); its files' bytes stay"
        ))?;
    }
    print::out(&format!("daemon {id}: released{}\n", forget(&config, id)?))
}

/// Puts a stopped daemon's catalog aside and frees its directories from their cluster; where the catalog is then, in words.
pub(super) fn forget(config: &Config, id: NodeId) -> Result<String, Failure> {
    let Some(daemon) = config.daemon(id) else {
        return Err(Failure::Failed(format!("no daemon {id}")));
    };
    let state = daemon.state_dir();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut name = state.file_name().unwrap_or_default().to_owned();
    name.push(format!(".released-{}", now.map_or(0, |now| now.as_secs())));
    let aside = state.with_file_name(name);
    let put_aside = layout::release(&daemon.data, &state, id, &aside)
        .map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(if put_aside {
        format!(", its state is in {}", aside.display())
    } else {
        String::new()
    })
}

fn export(export: &Export) -> Result<(), Failure> {
    let mut client = Client::new(&export.dial)?;
    match client.ask(&Request::Export, Kind::Question)? {
        Answer::Export => {}
        other => return Err(nonsense(&other)),
    }
    let Some(mut stream) = client.take() else {
        return Err(Failure::Failed("the connection is gone".to_owned()));
    };
    let Some(path) = &export.file else {
        return receive(
            &mut stream,
            &mut io::stdout().lock(),
            &|error| match error.kind() {
                io::ErrorKind::BrokenPipe => Failure::Closed,
                _ => Failure::Failed(format!("standard output: {error}")),
            },
        );
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let coming = folder.join(format!(".{name}.{}.part", std::process::id()));
    let written = write(&mut stream, &coming, path, folder);
    if written.is_err() {
        let _ = fs::remove_file(&coming);
    }
    written
}

/// The copy under a name of its own, then, synced, under the one it was asked for by.
fn write(
    stream: &mut FrameStream,
    coming: &Path,
    path: &Path,
    folder: &Path,
) -> Result<(), Failure> {
    let mut file = File::create(coming).map_err(of_file(coming))?;
    receive(stream, &mut file, &|error| of_file(coming)(error))?;
    file.sync_all().map_err(of_file(coming))?;
    fs::rename(coming, path).map_err(of_file(path))?;
    let folder = File::open(folder).and_then(|folder| folder.sync_all());
    folder.map_err(of_file(path))
}

/// Takes the bytes of a copy, and compares their digest.
fn receive(
    stream: &mut FrameStream,
    to: &mut impl Write,
    of_sink: &dyn Fn(io::Error) -> Failure,
) -> Result<(), Failure> {
    let broken =
        |error: io::Error| Failure::Failed(format!("the copy broke off: {}", words(&error)));
    let mut hash = sha2::Sha256::default();
    let mut block = Vec::new();
    loop {
        match stream.receive(&mut block).map_err(broken)?.kind {
            Frame::Block => {
                hash.update(&block);
                to.write_all(&block).map_err(of_sink)?;
            }
            Frame::Control => break,
            Frame::Raft => return Err(broken(io::ErrorKind::InvalidData.into())),
        }
    }
    to.flush().map_err(of_sink)?;
    let end: BodyEnd = serde_json::from_slice(&block).map_err(|error| broken(error.into()))?;
    if end.sha256 == Some(Sha256(hash.finalize().into())) {
        return Ok(());
    }
    Err(Failure::Failed(
        "the copy is not whole: the daemon gave up".to_owned(),
    ))
}

/// What an import has come to.
#[derive(Debug, Default)]
struct Tally {
    taken: u64,
    same: u64,
    lost: u64,
    refused: u64,
    lost_versions: u64,
}

fn import(import: &Import) -> Result<(), Failure> {
    let (head, end) = examine(&import.file)?;
    let mut client = Client::new(&import.dial)?;
    let mut tally = Tally::default();
    let mut begun = import.resume;
    let mut lines = Lines::open(&import.file)?;
    loop {
        let files = batch(&mut lines)?;
        if files.is_empty() {
            break;
        }
        let names: Vec<_> = files.iter().map(|e| e.newest.record.path.clone()).collect();
        let dry_run = import.dry_run;
        let request = Request::Import {
            files,
            begun,
            dry_run,
        };
        let outcomes = match client.ask(&request, Kind::Change)? {
            Answer::Imported { outcomes } if outcomes.len() == names.len() => outcomes,
            other => return Err(nonsense(&other)),
        };
        // From here on the catalog holds what this import has brought.
        begun = !dry_run || import.resume;
        for (name, outcome) in names.iter().zip(outcomes) {
            tally.count(name.as_str(), &outcome);
        }
    }
    tally.tell(import, &head, end)?;
    if tally.lost + tally.refused > 0 {
        return Err(Failure::Failed("not every file is there".to_owned()));
    }
    Ok(())
}

impl Tally {
    fn count(&mut self, name: &str, outcome: &Outcome) {
        match outcome {
            Outcome::Taken { lost_versions, .. } => {
                self.taken += 1;
                self.lost_versions += u64::from(*lost_versions);
            }
            Outcome::Same => self.same += 1,
            Outcome::Lost => {
                self.lost += 1;
                print::warn(&format!("{name}: no node has all of its bytes"));
            }
            Outcome::Refused { message } => {
                self.refused += 1;
                print::warn(&format!("{name}: {message}"));
            }
        }
    }

    fn tell(&self, import: &Import, head: &Head, end: End) -> Result<(), Failure> {
        let Self {
            taken,
            same,
            lost,
            refused,
            lost_versions,
        } = self;
        if import.json {
            return print::json(&json!({
                "dry_run": import.dry_run, "files": end.files, "taken": taken, "same": same,
                "lost": lost, "refused": refused, "lost_versions": lost_versions,
            }));
        }
        let would = if import.dry_run { "would be " } else { "" };
        let of = head
            .cluster
            .map_or_else(String::new, |id| format!(" of cluster {id}"));
        print::out(&format!(
            "{} files{of} as of {}: {taken} {would}taken in, {same} there already, {lost} lost, \
             {refused} refused; {lost_versions} earlier versions lost\n",
            end.files,
            head.time.rfc3339(),
        ))
    }
}

/// Reads a copy from end to end before anything is changed: it must be whole.
fn examine(path: &Path) -> Result<(Head, End), Failure> {
    let bad = |why: String| Failure::Failed(format!("{}: {why}", path.display()));
    let mut lines = Lines::open(path)?;
    let Some(Line::Catalog(head)) = lines.next()? else {
        return Err(bad("does not begin as a copy of a catalog".to_owned()));
    };
    let mut seen = End::default();
    loop {
        match lines.next()? {
            Some(Line::File(entry)) => {
                seen.files += 1;
                seen.versions += 1 + entry.earlier.len() as u64;
            }
            Some(Line::Node(_) | Line::Mode(_)) => {}
            Some(Line::Catalog(_)) => return Err(bad("begins twice".to_owned())),
            Some(Line::End(end)) if end == seen && lines.next()?.is_none() => {
                return Ok((head, end));
            }
            Some(Line::End(_)) | None => return Err(bad("is not whole".to_owned())),
        }
    }
}

/// The next files, as many as one request takes.
fn batch(lines: &mut Lines) -> Result<Vec<Entry>, Failure> {
    let mut files = Vec::new();
    let mut bytes = 0;
    while files.len() < IMPORT_AT_ONCE && bytes < BATCH_BYTES {
        match lines.next()? {
            Some(Line::File(entry)) => {
                bytes += lines.length();
                files.push(entry);
            }
            Some(_) => {}
            None => break,
        }
    }
    Ok(files)
}

/// The lines of a file, one in memory at a time.
struct Lines {
    path: PathBuf,
    input: BufReader<File>,
    line: Vec<u8>,
    number: u64,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, Failure> {
        let file = File::open(path).map_err(of_file(path))?;
        Ok(Self {
            path: path.to_owned(),
            input: BufReader::with_capacity(64 * 1024, file),
            line: Vec::new(),
            number: 0,
        })
    }

    /// Bytes of the last line.
    fn length(&self) -> usize {
        self.line.len()
    }

    fn next(&mut self) -> Result<Option<Line>, Failure> {
        self.line.clear();
        self.number += 1;
        let most = LINE_BYTES as u64;
        let mut input = self.input.by_ref().take(most);
        let read = input.read_until(b'\n', &mut self.line);
        if read.map_err(of_file(&self.path))? == 0 {
            return Ok(None);
        }
        let bad = |why: &str| {
            let (path, number) = (self.path.display(), self.number);
            Failure::Failed(format!("{path}:{number}: {why}"))
        };
        if self.line.pop() != Some(b'\n') {
            return Err(bad("the line has no end, or is too long"));
        }
        Line::parse(&self.line).map(Some).map_err(|why| bad(&why))
    }
}
