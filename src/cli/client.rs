//! `momo client`: uploads by the Momo protocol, to our daemons and to original ones.
//!
//! Original listeners take each field with one read, so timestamp and metadata leave in one write each; they crash on a
//! connection that says nothing, so nothing is dialled before the file has been opened, checked and hashed.

use std::fs::{File, Metadata as FileMetadata};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use md5::Digest;
use serde_json::json;

use super::dial::{DialFlags, words};
use super::exit::{Failure, of_file};
use super::progress::Progress;
use super::{print, put};
use crate::base::digest::Md5;
use crate::base::limit::BLOCK_BYTES;
use crate::base::path::FilePath;
use crate::config::field::time;
use crate::config::{Config, HostPort};
use crate::wire::momo::{ACK_BYTES, Metadata, ack, mode, padding, print_timestamp};
use crate::wire::parsed::Parsed;
use crate::wire::record::Mode;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  momo client --file report.pdf
  momo -imp client -file report.pdf
  momo client --file report.pdf --server 10.0.0.5:3333")]
pub(super) struct Flags {
    /// File to upload
    #[arg(long, value_name = "PATH")]
    file: PathBuf,
    /// Name in the store, at most 64 bytes, no folders; otherwise the file's own
    #[arg(long)]
    name: Option<String>,
    /// Daemon to upload to first
    #[arg(long, value_name = "N", default_value_t = 0)]
    id: u16,
    /// Longest wait for the acknowledgement once everything is sent
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = time)]
    wait: Duration,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Say each step on standard error
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    dial: DialFlags,
}

/// Up to this size the content leaves in one write.
const SMALL_BYTES: u64 = 64 * 1024;
/// How long a daemon may leave the connection open behind its acknowledgement.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// The file that is sent.
struct Upload {
    path: PathBuf,
    file: File,
    before: FileMetadata,
    metadata: Metadata,
}

/// A daemon that answered the timestamp with a mode.
struct Greeted {
    server: HostPort,
    stream: TcpStream,
    mode: Mode,
}

pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    let upload = Upload::open(flags)?;
    let servers = targets(flags)?;
    say(flags, &format!("=> MD5 {}", upload.metadata.md5));
    say(flags, &format!("=> Name {}", upload.metadata.name));
    let mut warnings = Vec::new();
    let timestamp = timestamp();
    let (entry, others) = enter(flags, &servers, timestamp, &mut warnings)?;
    say(
        flags,
        &format!("mode {} ({})", entry.mode.digit(), entry.mode.name()),
    );
    let legs = match entry.mode {
        Mode::PrimarySplay => greet_legs(flags, others, timestamp, &mut warnings),
        Mode::None | Mode::Chain | Mode::Splay => Vec::new(),
    };
    for warning in &warnings {
        print::warn(warning);
    }
    let mode = entry.mode;
    let acks = deliver_all(flags, &upload, entry, legs)?;
    let Metadata { md5, name, size } = &upload.metadata;
    if flags.json {
        return print::json(&json!({
            "name": name, "size": size, "md5": md5, "mode": mode, "acks": acks, "warnings": warnings,
        }));
    }
    let acks: Vec<String> = acks.iter().map(|id| format!("ACK{id}")).collect();
    print::out(&format!(
        "{name}: {size} bytes, mode {}, {}\n",
        mode.name(),
        acks.join(" ")
    ))
}

fn say(flags: &Flags, text: &str) {
    if flags.verbose {
        print::warn(text);
    }
}

impl Upload {
    /// Checks the name, opens the file and hashes it.
    fn open(flags: &Flags) -> Result<Self, Failure> {
        let path = flags.file.clone();
        let own = path.file_name().and_then(|name| name.to_str());
        let text = flags.name.as_deref().or(own).ok_or_else(|| {
            Failure::Failed(format!(
                "{}: no file name that is UTF-8; give --name",
                path.display()
            ))
        })?;
        let unsendable = |why: &dyn std::fmt::Display| Failure::Failed(format!("{text:?}: {why}"));
        let name = FilePath::new(text).map_err(|why| unsendable(&why))?;
        Metadata::new(Md5([0; 16]), name.clone(), 0).map_err(|why| unsendable(&why))?;
        let mut file = put::open(&path)?;
        let before = file.metadata().map_err(of_file(&path))?;
        let md5 = hash(&mut file, before.len(), flags).map_err(of_file(&path))?;
        let metadata = Metadata::new(md5, name, before.len()).map_err(|why| unsendable(&why))?;
        Ok(Self {
            path,
            file,
            before,
            metadata,
        })
    }

    /// That the file is still the one that was hashed.
    fn unchanged(&self) -> Result<(), String> {
        match self.file.metadata() {
            Ok(now) if put::same(&self.before, &now) => Ok(()),
            Ok(_) => Err(format!(
                "{}: changed while it was sent",
                self.path.display()
            )),
            Err(error) => Err(format!("{}: {error}", self.path.display())),
        }
    }
}

/// MD5 of the whole file, which must have `size` bytes.
fn hash(file: &mut File, size: u64, flags: &Flags) -> io::Result<Md5> {
    let progress = Progress::new("MD5", size, flags.dial.quiet || flags.json);
    let mut hasher = md5::Md5::new();
    let mut block = vec![0; BLOCK_BYTES];
    let mut total = 0;
    loop {
        let count = match file.read(&mut block) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(block.get(..count).unwrap_or_default());
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        total += count;
        progress.add(count);
    }
    if total != size {
        return Err(io::Error::other("changed while it was read"));
    }
    Ok(Md5(hasher.finalize().into()))
}

/// The daemons an upload may go to: the entry first, then those that a mode 3 upload or a refused connection goes on to.
fn targets(flags: &Flags) -> Result<Vec<HostPort>, Failure> {
    let mut servers = flags.dial.servers(storing)?;
    if !flags.dial.server.is_empty() || flags.id == 0 {
        return Ok(servers);
    }
    let config = flags.dial.conf.load()?;
    let host = config
        .daemon(super::server::known(&config, flags.id)?)
        .map(|d| d.host.clone());
    if let Some(at) = servers
        .iter()
        .position(|server| Some(server) == host.as_ref())
    {
        servers.drain(..at);
    }
    Ok(servers)
}

/// The daemons that a whole-file strategy uses, by number.
fn storing(config: &Config) -> Vec<HostPort> {
    let most = usize::try_from(config.cluster.replicas).unwrap_or(usize::MAX);
    let storing = config.daemons.values().filter(|daemon| daemon.roles.store);
    storing
        .take(most)
        .map(|daemon| daemon.host.clone())
        .collect()
}

/// The first daemon that can be reached, greeted, and those behind it. Once one has been reached no other is asked: it may
/// have taken the upload.
fn enter<'a>(
    flags: &Flags,
    servers: &'a [HostPort],
    timestamp: u64,
    warnings: &mut Vec<String>,
) -> Result<(Greeted, &'a [HostPort]), Failure> {
    for (at, server) in servers.iter().enumerate() {
        match flags.dial.connect(server) {
            Ok(stream) => {
                let greeted = greet(server, stream, timestamp)
                    .map_err(|why| Failure::Failed(format!("{server}: {why}")))?;
                return Ok((greeted, servers.get(at + 1..).unwrap_or_default()));
            }
            Err(error) => warnings.push(format!("{server}: {}", words(&error))),
        }
    }
    Err(Failure::Failed(format!(
        "no daemon could be reached: {}",
        warnings.join("; ")
    )))
}

/// The other daemons of a mode 3 upload, greeted one after the other. One that is missing gets its copy from the first.
fn greet_legs(
    flags: &Flags,
    servers: &[HostPort],
    timestamp: u64,
    warnings: &mut Vec<String>,
) -> Vec<Greeted> {
    let mut legs = Vec::new();
    for server in servers {
        let stream = flags.dial.connect(server).map_err(|error| words(&error));
        match stream.and_then(|stream| greet(server, stream, timestamp)) {
            Ok(leg) => legs.push(leg),
            Err(why) => warnings.push(format!(
                "{server}: {why}; its copy is left to the daemon that takes the upload"
            )),
        }
    }
    legs
}

/// Steps 1 and 2: the timestamp in one write, then the digit.
fn greet(server: &HostPort, mut stream: TcpStream, timestamp: u64) -> Result<Greeted, String> {
    let mut bytes = Vec::new();
    print_timestamp(timestamp, &mut bytes);
    stream.write_all(&bytes).map_err(|error| words(&error))?;
    let mut digit = [0];
    stream
        .read_exact(&mut digit)
        .map_err(|error| words(&error))?;
    let mode = mode(digit[0]).ok_or_else(|| format!("answered {:?}, no mode", digit[0] as char))?;
    Ok(Greeted {
        server: server.clone(),
        stream,
        mode,
    })
}

/// Sends the file to all greeted daemons at the same time; their acknowledgements, the entry's first.
fn deliver_all(
    flags: &Flags,
    upload: &Upload,
    entry: Greeted,
    legs: Vec<Greeted>,
) -> Result<Vec<u64>, Failure> {
    let name = upload.metadata.name.as_str();
    let progress = Progress::new(name, upload.metadata.size, flags.dial.quiet || flags.json);
    let none = Progress::new(name, 0, true);
    say(flags, "Waiting ACK from server");
    let results = thread::scope(|scope| {
        let none = &none;
        let legs: Vec<_> = legs
            .into_iter()
            .map(|leg| scope.spawn(move || deliver(flags, upload, leg, none)))
            .collect();
        let mut results = vec![deliver(flags, upload, entry, &progress)];
        let ended = || {
            Err(Failure::Unknown(
                "a thread of this upload ended early".to_owned(),
            ))
        };
        results.extend(
            legs.into_iter()
                .map(|leg| leg.join().unwrap_or_else(|_| ended())),
        );
        results
    });
    let mut acks = Vec::new();
    let mut worst: Option<Failure> = None;
    for result in results {
        match result {
            Ok(id) => acks.push(id),
            Err(failure) => worst = Some(failure.worse(worst)),
        }
    }
    let Some(worst) = worst else { return Ok(acks) };
    let kept: Vec<String> = acks.iter().map(|id| format!("ACK{id}")).collect();
    Err(worst.about(name).with(&if kept.is_empty() {
        String::new()
    } else {
        format!(" (acknowledged by the others: {})", kept.join(" "))
    }))
}

/// Steps 3 to 8 with one daemon: what is sent, then who acknowledges.
fn deliver(
    flags: &Flags,
    upload: &Upload,
    to: Greeted,
    progress: &Progress,
) -> Result<u64, Failure> {
    let Greeted {
        server, mut stream, ..
    } = to;
    // The body was short of its size, or not what its MD5 says: no daemon keeps that.
    let failed = |why: &str| Failure::Failed(format!("{server}: {why}"));
    send(upload, &mut stream, progress).map_err(|why| failed(&why))?;
    // From here on only the acknowledgement tells whether the file was kept.
    let unknown = |why: &str| Failure::Unknown(format!("{server}: {why}; `momo stat` tells"));
    stream
        .set_read_timeout(Some(flags.wait.max(CLOSE_WAIT)))
        .map_err(|e| unknown(&words(&e)))?;
    let mut answer = Vec::new();
    let mut ended = false;
    while !ended {
        let mut bytes = [0; ACK_BYTES + 1];
        match stream.read(&mut bytes) {
            Ok(0) => ended = true,
            Ok(count) => answer.extend_from_slice(bytes.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if answer.is_empty() => return Err(unknown(&words(&error))),
            Err(_) => ended = true,
        }
        match ack(&answer, ended) {
            Parsed::Complete { value, .. } => return Ok(value),
            Parsed::Incomplete => {}
            Parsed::Malformed(_) if answer.is_empty() => {
                return Err(unknown("closed without an acknowledgement"));
            }
            Parsed::Malformed(_) => {
                let text = String::from_utf8_lossy(&answer).into_owned();
                return Err(failed(&format!(
                    "answered {text:?} instead of an acknowledgement"
                )));
            }
        }
        // Digits so far: the rest, if any, is already on its way.
        if matches!(ack(&answer, true), Parsed::Complete { .. }) {
            stream
                .set_read_timeout(Some(CLOSE_WAIT))
                .map_err(|e| unknown(&words(&e)))?;
        }
    }
    Err(unknown("closed without an acknowledgement"))
}

/// Metadata in one write, the content, and padding up to a multiple of 1024.
fn send(upload: &Upload, stream: &mut TcpStream, progress: &Progress) -> Result<(), String> {
    let size = upload.metadata.size;
    let mut head = Vec::new();
    upload.metadata.print(&mut head);
    let told = |error: io::Error| format!("did not take the file: {}", words(&error));
    stream.write_all(&head).map_err(told)?;
    let pad = usize::try_from(padding(size)).unwrap_or_default();
    if size <= SMALL_BYTES {
        let mut content = vec![0; usize::try_from(size).unwrap_or_default()];
        let read = upload.file.read_exact_at(&mut content, 0);
        read.map_err(|error| of_path(&upload.path, &error))?;
        upload.unchanged()?;
        content.resize(content.len() + pad, 0);
        // All of the content may have arrived before the write failed: the acknowledgement, or its absence, decides.
        let _ = stream.write_all(&content);
        progress.add(size);
        return Ok(());
    }
    let mut offset = 0;
    while offset < size {
        let count = usize::try_from(size - offset)
            .unwrap_or(SEND_BYTES)
            .min(SEND_BYTES);
        match rustix::fs::sendfile(&*stream, &upload.file, Some(&mut offset), count) {
            Ok(0) => return Err(format!("{}: became shorter", upload.path.display())),
            Ok(count) => progress.add(u64::try_from(count).unwrap_or_default()),
            Err(rustix::io::Errno::INTR) => {}
            // A file system without sendfile: the rest goes through a buffer.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                copy_rest(upload, stream, offset, progress)?;
                offset = size;
            }
            Err(error) => return Err(told(error.into())),
        }
    }
    upload.unchanged()?;
    // A daemon that has the content may close before the padding comes: here too the acknowledgement decides.
    let _ = stream.write_all(&vec![0; pad]);
    Ok(())
}

/// Bytes of one sendfile call: progress is shown in between.
const SEND_BYTES: usize = 4 * 1024 * 1024;

fn copy_rest(
    upload: &Upload,
    stream: &mut TcpStream,
    mut offset: u64,
    progress: &Progress,
) -> Result<(), String> {
    let mut block = vec![0; BLOCK_BYTES];
    while offset < upload.metadata.size {
        let left = usize::try_from(upload.metadata.size - offset).unwrap_or(BLOCK_BYTES);
        block.truncate(left);
        upload
            .file
            .read_exact_at(&mut block, offset)
            .map_err(|e| of_path(&upload.path, &e))?;
        stream
            .write_all(&block)
            .map_err(|e| format!("did not take the file: {}", words(&e)))?;
        let count = u64::try_from(block.len()).unwrap_or_default();
        offset += count;
        progress.add(count);
    }
    Ok(())
}

fn of_path(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

/// Now, in Unix nanoseconds.
fn timestamp() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
