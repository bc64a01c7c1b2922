//! `momo cluster`: all daemons of a configuration that belong on this machine: run them, end them, show them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::{TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command as Program, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use rustix::process::Signal;
use serde_json::json;

use super::dial::DialFlags;
use super::exit::{Failure, of_file};
use super::locate::ConfFlag;
use super::text::{Client, Stop, elsewhere};
use super::{admin, lfd, print, server};
use crate::base::id::NodeId;
use crate::config::{Config, Daemon, HostPort};
use crate::server::claim::{self, Process, Record};
use crate::server::notify;
use crate::server::watch::Times;
use crate::wire::admin::{Answer, Request as Ask};
use crate::wire::text::{Request, Verdict, verdict};

/// How long `up --detach` waits until every daemon has opened.
const DETACH_WAIT: Duration = Duration::from_mins(1);
/// Longest word of a supervisor that goes on in the background, in bytes.
const LINE_BYTES: u64 = 4 * 1024;
/// How long a daemon may take to say how it is.
const ASK: Duration = Duration::from_secs(2);
/// Daemons asked at the same time.
const ASK_AT_ONCE: usize = 16;
/// Pause between two looks at something that has no event.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Args, Debug)]
pub(super) struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run them until Ctrl-C or SIGTERM, which drains them all; one that ends or hangs is started again
    Up(Up),
    /// End those that `up` started, with their drain, and wait until they are gone
    Down(Down),
    /// Have the cluster born although not all its daemons are within reach: the others are taken in when they come
    Init(Init),
    /// Show each daemon: its process, who looks after it, how it is; exit code 1 unless all of this machine are up
    Status(Status),
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  momo cluster up
  momo cluster up --conf conf/local.conf --detach
  momo cluster up --id 0 --id 1

Which daemons belong on this machine is told by their host: an address of this machine. --id says it instead.")]
struct Up {
    #[command(flatten)]
    conf: ConfFlag,
    /// Run this [daemon.N], wherever its host is; may be repeated
    #[arg(long, value_name = "N")]
    id: Vec<u16>,
    /// Go on in the background, once all are open
    #[arg(long)]
    detach: bool,
    /// Where the log goes with --detach
    #[arg(
        long,
        value_name = "FILE",
        default_value = "momo-cluster.log",
        requires = "detach"
    )]
    log: PathBuf,
    /// This is the part that goes on in the background
    #[arg(long, hide = true, conflicts_with = "detach")]
    detached: bool,
}

#[derive(Args, Debug)]
struct Down {
    #[command(flatten)]
    conf: ConfFlag,
    /// Do not wait for what is under way
    #[arg(long)]
    now: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
A cluster is born by itself once every daemon of the file is up and empty. When one of them is never to come, this has it
born without. NOT for a cluster that was born before: what it keeps would not be in this one.")]
struct Init {
    /// Which [daemon.N] begins: it must be up, and votes alone until others have caught up
    #[arg(long, value_name = "N", default_value_t = 0)]
    id: u16,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    dial: DialFlags,
}

#[derive(Args, Debug)]
struct Status {
    #[command(flatten)]
    conf: ConfFlag,
    /// One JSON array
    #[arg(long)]
    json: bool,
}

fn init(flags: &Init) -> Result<(), Failure> {
    let config = flags.dial.conf.load()?;
    let id = server::known(&config, flags.id)?;
    let Some(daemon) = config.daemon(id) else {
        return Err(Failure::Failed(format!("no daemon {id}")));
    };
    if !flags.yes {
        print::confirm(&format!(
            "daemon {id} gives birth to a new cluster, without those that are not within reach"
        ))?;
    }
    let mut client = admin::Client::new(&flags.dial)?.only(daemon.peer().clone());
    match client.ask(&Ask::Init, admin::Kind::Change)? {
        Answer::Done { .. } => print::out(&format!("daemon {id}: the cluster is born\n")),
        other => Err(admin::nonsense(&other)),
    }
}

pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    match &flags.command {
        Command::Up(up) if up.detach => detach(up),
        Command::Up(up) => run_here(up),
        Command::Down(flags) => down(flags),
        Command::Init(flags) => init(flags),
        Command::Status(flags) => status(flags),
    }
}

// ---------------------------------------------------------------- up

fn run_here(flags: &Up) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::Failed(error.to_string());
    if flags.detached {
        // The terminal it came from is no concern of it any more.
        rustix::process::setsid().map_err(|error| failed(error.into()))?;
        notify::supervised(None).map_err(failed)?;
    }
    let config = flags.conf.load()?;
    let daemons = chosen(&config, &flags.id)?;
    lfd::supervise(&config, daemons, Vec::new(), "cluster")
}

/// The same in a process of its own, whose first words are waited for.
fn detach(flags: &Up) -> Result<(), Failure> {
    let config = flags.conf.load()?;
    let daemons = chosen(&config, &flags.id)?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&flags.log)
        .map_err(of_file(&flags.log))?;
    let failed = |error: std::io::Error| Failure::Failed(error.to_string());
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let mut program = Program::new(lfd::program()?);
    program
        .args(["cluster", "up", "--detached", "--conf"])
        .arg(&config.file);
    for id in &flags.id {
        program.args(["--id", &id.to_string()]);
    }
    let mut child = program
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log)
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC")
        .spawn()
        .map_err(failed)?;
    // The command's own copy of the stream goes with it, so that the end of the process is the end of the stream.
    drop(program);
    let (pid, log) = (child.id(), flags.log.display());
    match first_words(ours) {
        Word::Ready => print::out(&format!(
            "{} daemons are up, in the care of process {pid}; log: {log}; `momo cluster down --conf {}` ends them\n",
            daemons.len(),
            config.file.display()
        )),
        Word::Ended => {
            let end = child.wait().map_err(failed)?;
            Err(Failure::Failed(format!("it ended ({end}); see {log}")))
        }
        Word::Late(last) => Err(Failure::Failed(format!(
            "not all are open after {} s ({last}); process {pid} goes on trying, see {log}",
            DETACH_WAIT.as_secs()
        ))),
    }
}

/// What a supervisor in the background has said.
enum Word {
    Ready,
    Ended,
    /// Not all is up in time; how it stood last.
    Late(String),
}

fn first_words(stream: UnixStream) -> Word {
    let deadline = Instant::now() + DETACH_WAIT;
    let mut last = "nothing is heard".to_owned();
    let mut reader = BufReader::new(stream);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || reader.get_ref().set_read_timeout(Some(left)).is_err() {
            return Word::Late(last);
        }
        let mut line = String::new();
        match reader.by_ref().take(LINE_BYTES).read_line(&mut line) {
            Ok(0) => return Word::Ended,
            Ok(_) if line.trim_end() == "READY=1" => return Word::Ready,
            Ok(_) => {
                if let Some(status) = line.trim_end().strip_prefix("STATUS=") {
                    status.clone_into(&mut last);
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Word::Late(last);
            }
            Err(_) => return Word::Ended,
        }
    }
}

/// The daemons that are meant: those that were said, or those of this machine.
fn chosen(config: &Config, said: &[u16]) -> Result<Vec<NodeId>, Failure> {
    let mut daemons = Vec::new();
    for id in said {
        let id = server::known(config, *id)?;
        if !daemons.contains(&id) {
            daemons.push(id);
        }
    }
    if daemons.is_empty() {
        daemons = local(config);
    }
    if daemons.is_empty() {
        return Err(Failure::Failed(format!(
            "{}: no host of its daemons is an address of this machine; --id N says which belong here",
            config.file.display()
        )));
    }
    Ok(daemons)
}

/// The daemons whose host is an address of this machine.
fn local(config: &Config) -> Vec<NodeId> {
    let mut known = BTreeMap::new();
    config
        .daemons
        .iter()
        .filter(|(_, daemon)| {
            let host = daemon.host.host.as_str();
            *known.entry(host).or_insert_with(|| is_here(host))
        })
        .map(|(id, _)| *id)
        .collect()
}

/// Whether one may listen there: only an address of this machine can be.
fn is_here(host: &str) -> bool {
    let addresses = (host, 0).to_socket_addrs();
    addresses.is_ok_and(|mut all| all.any(|address| TcpListener::bind(address).is_ok()))
}

// ---------------------------------------------------------------- down

fn down(flags: &Down) -> Result<(), Failure> {
    let config = flags.conf.load()?;
    let mut supervisors: Vec<Process> = Vec::new();
    for (id, daemon) in here(&config) {
        let Some(record) = holder(daemon)? else {
            continue;
        };
        if record.by != "cluster" {
            print::warn(&format!(
                "daemon {id} stays: it is in the care of {} (process {})",
                claim::spelled(&record.by),
                record.supervisor.pid
            ));
        } else if !supervisors.contains(&record.supervisor) {
            supervisors.push(record.supervisor);
        }
    }
    if supervisors.is_empty() {
        return print::out("nothing that `momo cluster up` started runs here\n");
    }
    for supervisor in &supervisors {
        // The first signal asks for a drain, the second one does not wait for it.
        for _ in 0..=usize::from(flags.now) {
            supervisor
                .signal(Signal::TERM)
                .map_err(|error| Failure::Failed(format!("process {}: {error}", supervisor.pid)))?;
            thread::park_timeout(PAUSE);
        }
    }
    let deadline = Instant::now() + Times::of(&config).stop + Times::of(&config).stop / 2;
    let mut left: Vec<NodeId> = Vec::new();
    while Instant::now() < deadline {
        left.clear();
        for (id, daemon) in here(&config) {
            if holder(daemon)?.is_some_and(|record| supervisors.contains(&record.supervisor)) {
                left.push(id);
            }
        }
        if left.is_empty() {
            return print::out("all that `momo cluster up` started here has ended\n");
        }
        thread::park_timeout(PAUSE);
    }
    let left: Vec<String> = left.iter().map(ToString::to_string).collect();
    Err(Failure::Failed(format!(
        "still stopping: daemons {}",
        left.join(", ")
    )))
}

/// The daemons of this machine, and those in somebody's care although their host is not known to be here.
fn here(config: &Config) -> Vec<(NodeId, &Daemon)> {
    let local = local(config);
    let is_here = |(id, daemon): &(&NodeId, &Daemon)| {
        local.contains(id) || holder(daemon).is_ok_and(|r| r.is_some_and(|r| r.daemon == id.0))
    };
    let found = config.daemons.iter().filter(is_here);
    found.map(|(id, daemon)| (*id, daemon)).collect()
}

fn holder(daemon: &Daemon) -> Result<Option<Record>, Failure> {
    let dir = daemon.state_dir();
    claim::holder(&dir).map_err(of_file(&dir))
}

// ---------------------------------------------------------------- status

/// What is known of one daemon.
struct Row<'a> {
    id: NodeId,
    daemon: &'a Daemon,
    here: bool,
    record: Option<Record>,
    /// What it says of itself, or why it says nothing.
    state: Result<serde_json::Value, String>,
}

fn status(flags: &Status) -> Result<(), Failure> {
    let config = flags.conf.load()?;
    let here: Vec<NodeId> = here(&config).into_iter().map(|(id, _)| id).collect();
    let mut rows = Vec::new();
    let all: Vec<(&NodeId, &Daemon)> = config.daemons.iter().collect();
    for some in all.chunks(ASK_AT_ONCE) {
        let states: Vec<Result<serde_json::Value, String>> = thread::scope(|scope| {
            let asked: Vec<_> = some
                .iter()
                .map(|(_, daemon)| scope.spawn(|| ask(daemon.text())))
                .collect();
            let ended = || Err("could not be asked".to_owned());
            let states = asked.into_iter();
            states
                .map(|one| one.join().unwrap_or_else(|_| ended()))
                .collect()
        });
        for ((id, daemon), state) in some.iter().zip(states) {
            let found = claim::holder(&daemon.state_dir()).ok().flatten();
            let record = found.filter(|record| here.contains(id) && record.daemon == id.0);
            rows.push(Row {
                id: **id,
                daemon,
                here: here.contains(id),
                record,
                state,
            });
        }
    }
    if flags.json {
        let rows: Vec<serde_json::Value> = rows.iter().map(Row::as_json).collect();
        print::json(&serde_json::Value::Array(rows))?;
    } else {
        print::out(&table(&rows))?;
    }
    let lacking: Vec<String> = rows
        .iter()
        .filter(|row| row.here && row.state.is_err())
        .map(|row| row.id.to_string())
        .collect();
    if lacking.is_empty() {
        return Ok(());
    }
    Err(Failure::Failed(format!(
        "not up: daemons {}",
        lacking.join(", ")
    )))
}

/// The status that a daemon gives of itself.
fn ask(text: &HostPort) -> Result<serde_json::Value, String> {
    let flags = DialFlags {
        conf: ConfFlag::default(),
        server: vec![text.clone()],
        connect_timeout: ASK,
        timeout: ASK,
        quiet: true,
    };
    let answer = Client::new(&flags).and_then(|mut client| {
        client.ask(|session| {
            let request = Request::StatusJson;
            session.send(&request).map_err(|error| elsewhere(&error))?;
            let line = session.line().map_err(Stop::of_question)?;
            match verdict(&line) {
                Verdict::Err(why) => Err(Stop::Err(why.to_owned()).of_question()),
                _ => Ok(line),
            }
        })
    });
    let line = answer.map_err(|failure| failure.to_string())?;
    serde_json::from_str(&line).map_err(|_| "its answer is not understood".to_owned())
}

impl Row<'_> {
    /// What people read of its state.
    fn words(&self) -> String {
        let text = |value: &serde_json::Value, key: &str| {
            value
                .get(key)
                .and_then(serde_json::Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let state = match &self.state {
            Ok(value) => {
                let (mut words, detail) = (text(value, "state"), text(value, "detail"));
                if !detail.is_empty() {
                    let _ = write!(words, " ({detail})");
                }
                if value.get("leader") == value.get("node") {
                    words.push_str(", leads");
                }
                return words;
            }
            Err(_) => "does not answer",
        };
        match &self.record {
            Some(record) if record.stage != "up" => {
                let mut words = record.stage.clone();
                if record.failures > 0 {
                    let (times, end) = (record.failures, &record.last_end);
                    let _ = write!(words, " (ended {times} times in a row, last: {end})");
                }
                words
            }
            _ => state.to_owned(),
        }
    }

    fn as_json(&self) -> serde_json::Value {
        let (state, why) = match &self.state {
            Ok(value) => (Some(value), None),
            Err(why) => (None, Some(why)),
        };
        json!({
            "daemon": self.id, "name": self.daemon.name, "text": self.daemon.text().to_string(),
            "here": self.here, "supervision": self.record, "status": state, "error": why,
        })
    }
}

fn table(rows: &[Row<'_>]) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let mut cells = vec![
        [
            "DAEMON", "ADDRESS", "PROCESS", "CARE", "FOR", "STARTS", "STATE",
        ]
        .map(str::to_owned),
    ];
    for row in rows {
        let dash = || "-".to_owned();
        let (mut process, mut care, mut since, mut starts) = (dash(), dash(), dash(), dash());
        if let Some(record) = &row.record {
            process = record.process.map_or_else(dash, |pid| pid.to_string());
            care = format!("{} {}", record.by, record.supervisor.pid);
            since = age(now.saturating_sub(record.since_s));
            starts = record.starts.to_string();
        } else if !row.here {
            "elsewhere".clone_into(&mut care);
        }
        let address = row.daemon.text().to_string();
        let state = row.words();
        cells.push([
            row.id.to_string(),
            address,
            process,
            care,
            since,
            starts,
            state,
        ]);
    }
    let mut text = String::new();
    for line in &cells {
        let mut out = String::new();
        for (column, cell) in line.iter().enumerate() {
            let width = cells
                .iter()
                .filter_map(|line| line.get(column))
                .map(String::len);
            let width = width.max().unwrap_or_default();
            let _ = write!(out, "{cell:<width$}  ");
        }
        text.push_str(out.trim_end());
        text.push('\n');
    }
    text
}

/// Seconds as people say them.
fn age(seconds: u64) -> String {
    match seconds {
        0..=99 => format!("{seconds}s"),
        100..=5_999 => format!("{}m", seconds / 60),
        6_000..=359_999 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_this_machine_is_told_from_others() {
        assert!(is_here("127.0.0.1"));
        assert!(is_here("localhost"));
        // TEST-NET-1: nobody's.
        assert!(!is_here("192.0.2.1"));
        assert!(!is_here("no-such-host.invalid"));
    }

    #[test]
    fn an_age_fits_its_column() {
        for (seconds, words) in [
            (0, "0s"),
            (99, "99s"),
            (100, "1m"),
            (6_000, "1h"),
            (400_000, "4d"),
        ] {
            assert_eq!(age(seconds), words);
        }
    }
}
