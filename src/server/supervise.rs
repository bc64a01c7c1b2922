//! The supervisor: starts daemons as processes of its own, hears their heartbeats, ends hung ones and starts them again.
//!
//! One thread decides everything, so there is nothing to lock; a thread for each process reads what that process says until it
//! ends. A process is signalled only while it is this one's child and has not been waited for: its number cannot be another's.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::process::{Pid, Signal, kill_process};

use super::claim::{Claim, ClaimError, Process, Record};
use super::notify;
use super::watch::{Event, Order, Reason, Stage, Times, Watch};
use crate::base::id::NodeId;
use crate::base::random::Random;
use crate::base::time::Mono;
use crate::config::Config;
use crate::engine::clock;

/// Words of daemons that wait to be taken in; a reader that finds it full waits.
const EVENTS: usize = 1_024;
/// Longest line of a daemon to its supervisor, in bytes.
const LINE_BYTES: u64 = 4 * 1024;
/// A process that has closed its stream is about to end; so often it is looked whether it has.
const ENDING: Duration = Duration::from_millis(10);
/// The longest rest between two looks, and how long this process may come too late before the log says so.
const LOOK: Duration = Duration::from_secs(1);
/// What it comes too late by beyond this is forgiven to the daemons: it is the machine's fault, or its own.
const LATE: Duration = Duration::from_millis(100);
/// Ends in a row from which the log calls it an error.
const KEEPS_ENDING: u32 = 3;

/// What a supervisor is to look after.
#[derive(Debug)]
pub struct Charge<'a> {
    /// The configuration, for times, names and state directories.
    pub config: &'a Config,
    /// The daemons, each of the configuration.
    pub daemons: Vec<NodeId>,
    /// The program that is a daemon with `server --id N --conf FILE`.
    pub program: PathBuf,
    /// The file of the configuration; each process reads it anew.
    pub conf: PathBuf,
    /// More words for the command line of each daemon.
    pub meeting: Vec<String>,
    /// How the supervisor was called, for those who look: `lfd` or `cluster`.
    pub by: &'static str,
}

/// Why a supervisor does not run, or ended otherwise than it should.
#[derive(Debug)]
pub enum SuperviseError {
    /// A daemon is not this one's to look after.
    Claim(ClaimError),
    /// These daemons had to be killed although they were asked to stop.
    Forced(Vec<NodeId>),
    /// The system refused something.
    Io(io::Error),
}

impl fmt::Display for SuperviseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(error) => error.fmt(f),
            Self::Forced(daemons) => {
                let names: Vec<String> = daemons.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "killed, since they did not stop in time: daemons {}",
                    names.join(", ")
                )
            }
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SuperviseError {}

impl From<io::Error> for SuperviseError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What the thread that decides is told.
#[derive(Clone, Copy, Debug)]
enum Told {
    /// A process of a ward said something.
    Said {
        ward: usize,
        start: u64,
        event: Event,
    },
    /// The stream of a ward's process is at its end, and so is the process, soon.
    Closed { ward: usize, start: u64 },
    /// The operator wants an end.
    Signal,
}

/// One daemon in care.
struct Ward {
    id: NodeId,
    name: String,
    claim: Claim,
    watch: Watch,
    child: Option<Child>,
    /// Its stream is at its end.
    closed: bool,
    last_end: String,
    /// What was written into the claim last.
    said: Option<(Stage, Option<u32>)>,
}

struct Supervisor<'a> {
    charge: &'a Charge<'a>,
    this: Process,
    wards: Vec<Ward>,
    tell: Sender<Told>,
    signals: u32,
    /// Whether all have been up at the same time once.
    ready: bool,
}

/// Looks after the daemons of `charge` until a signal ends it: the first one lets them drain, the second one does not.
///
/// Call it from the thread that lives as long as the process: the daemons end with that thread.
///
/// # Errors
/// Nothing was started, or a daemon had to be killed in the end.
pub fn run(charge: &Charge<'_>) -> Result<(), SuperviseError> {
    let (tell, told) = bounded(EVENTS);
    let this = Process::this()?;
    let mut wards = Vec::new();
    for id in &charge.daemons {
        wards.push(Ward::take(charge, *id)?);
    }
    let signal = tell.clone();
    ctrlc::set_handler(move || {
        let _ = signal.send(Told::Signal);
    })
    .map_err(|error| io::Error::other(error.to_string()))?;
    let mut supervisor = Supervisor {
        charge,
        this,
        wards,
        tell,
        signals: 0,
        ready: false,
    };
    supervisor.run(&told);
    let forced = |ward: &Ward| ward.watch.forced().then_some(ward.id);
    let forced: Vec<NodeId> = supervisor.wards.iter().filter_map(forced).collect();
    if forced.is_empty() {
        Ok(())
    } else {
        Err(SuperviseError::Forced(forced))
    }
}

impl Ward {
    fn take(charge: &Charge<'_>, id: NodeId) -> Result<Self, SuperviseError> {
        let Some(daemon) = charge.config.daemon(id) else {
            return Err(io::Error::other(format!("no [daemon.{id}]")).into());
        };
        let claim = Claim::take(&daemon.state_dir()).map_err(SuperviseError::Claim)?;
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
        let chance = Random::new(u64::from_ne_bytes(seed));
        Ok(Self {
            id,
            name: daemon.name.clone(),
            claim,
            watch: Watch::new(Times::of(charge.config), chance, clock::mono()),
            child: None,
            closed: false,
            last_end: String::new(),
            said: None,
        })
    }

    fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Signals the process, which is a child that has not been waited for.
    fn signal(&self, signal: Signal) {
        let Some(child) = &self.child else { return };
        if let Err(error) = kill_process(Pid::from_child(child), signal) {
            log::error!(target: "momo::lfd_signal", "daemon {}: process {}: {error}", self.id, child.id());
        }
    }

    /// Starts the process, once it is certain that nobody else may.
    fn start(&mut self, charge: &Charge<'_>) -> Result<UnixStream, String> {
        self.claim.renew().map_err(|error| error.to_string())?;
        let (ours, theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
        let heartbeat = format!("{}ms", charge.config.lfd.interval.as_millis());
        let mut command = Command::new(&charge.program);
        command
            .args(["server", "--id", &self.id.to_string(), "--conf"])
            .arg(&charge.conf)
            .args(&charge.meeting)
            .args(["--supervisor", &std::process::id().to_string()])
            .args(["--heartbeat", &heartbeat])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            // A group of its own: what a terminal sends to this process is passed on in our own words.
            .process_group(0);
        for variable in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
            command.env_remove(variable);
        }
        let child = command
            .spawn()
            .map_err(|error| format!("{}: {error}", charge.program.display()))?;
        self.child = Some(child);
        self.closed = false;
        Ok(ours)
    }

    /// Takes the process's end in, if it has ended.
    fn reap(&mut self, now: Mono) {
        let Some(child) = &mut self.child else { return };
        let end = match child.try_wait() {
            Ok(None) => return,
            Ok(Some(status)) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let (pid, asked) = (child.id(), self.watch.stage() == Stage::Leaving);
        self.child = None;
        self.ended(end, now);
        let (id, end) = (self.id, &self.last_end);
        if asked {
            log::info!(target: "momo::lfd_end", "daemon {id}: process {pid} has ended ({end})");
        } else {
            log::warn!(target: "momo::lfd_end", "daemon {id}: process {pid} has ended ({end})");
        }
        self.next(now);
    }

    fn ended(&mut self, end: String, now: Mono) {
        self.last_end = end;
        self.watch.handle(Event::Ended, now);
    }

    /// Says when the next process comes.
    fn next(&self, now: Mono) {
        let (id, failures) = (self.id, self.watch.failures());
        let (Stage::Resting, Some(at)) = (self.watch.stage(), self.watch.deadline()) else {
            return;
        };
        let wait = (at - now).as_secs_f64();
        if failures < KEEPS_ENDING {
            log::info!(target: "momo::lfd_restart", "daemon {id} is started again in {wait:.1} s");
        } else {
            log::error!(
                target: "momo::lfd_backoff",
                "daemon {id} has ended {failures} times in a row ({}); it is started again in {wait:.1} s, and will not be given up",
                self.last_end
            );
        }
    }
}

impl Supervisor<'_> {
    fn run(&mut self, told: &Receiver<Told>) {
        let mut looked = clock::mono();
        let feeding = notify::period();
        let mut fed = looked;
        loop {
            let now = clock::mono();
            for ward in &mut self.wards {
                if ward.closed {
                    ward.reap(now);
                }
            }
            for index in 0..self.wards.len() {
                self.obey(index, now);
            }
            self.say();
            if self.wards.iter().all(|w| w.watch.stage() == Stage::Gone) {
                return;
            }
            if let Some(period) = feeding
                && now - fed >= period
            {
                notify::alive();
                fed = now;
            }
            let wait = self.wait(now, feeding);
            match told.recv_timeout(wait) {
                Ok(first) => {
                    let now = self.mind(&mut looked, wait);
                    self.take(first, now);
                    // All that has come before anyone is judged by what has not.
                    for next in told.try_iter().take(EVENTS) {
                        self.take(next, now);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.mind(&mut looked, wait);
                }
                // This one holds a sender itself.
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// The time, and what passed without this thread is forgiven to all.
    fn mind(&mut self, looked: &mut Mono, wait: Duration) -> Mono {
        let now = clock::mono();
        let away = (now - *looked).saturating_sub(wait);
        *looked = now;
        if away > LOOK {
            log::warn!(target: "momo::lfd_away", "did not run for {:.1} s; no daemon is blamed for it", away.as_secs_f64());
        }
        if away > LATE {
            for ward in &mut self.wards {
                ward.watch.excuse(away);
            }
        }
        now
    }

    /// How long nothing is to be done.
    fn wait(&self, now: Mono, feeding: Option<Duration>) -> Duration {
        let ending = self.wards.iter().any(|ward| ward.closed);
        let deadlines = self.wards.iter().filter_map(|ward| ward.watch.deadline());
        let soonest = deadlines.min().map_or(LOOK, |deadline| deadline - now);
        soonest
            .min(feeding.unwrap_or(LOOK))
            .min(if ending { ENDING } else { LOOK })
    }

    fn take(&mut self, told: Told, now: Mono) {
        match told {
            Told::Said { ward, start, event } => {
                let Some(ward) = self.wards.get_mut(ward) else {
                    return;
                };
                if ward.watch.starts() != start {
                    return;
                }
                ward.watch.handle(event, now);
                let (id, count) = (ward.id, ward.watch.heartbeats());
                match event {
                    Event::Ready => {
                        log::info!(target: "momo::lfd_ready", "daemon {id} is open");
                    }
                    Event::Alive => {
                        log::debug!(target: "momo::lfd_heartbeat", "[{count}] heartbeat from {}", ward.name);
                    }
                    _ => log::info!(target: "momo::lfd_stopping", "daemon {id} stops"),
                }
            }
            Told::Closed { ward, start } => {
                if let Some(ward) = self.wards.get_mut(ward)
                    && ward.watch.starts() == start
                    && ward.child.is_some()
                {
                    ward.closed = true;
                    ward.reap(now);
                }
            }
            Told::Signal => {
                self.signals = self.signals.saturating_add(1);
                let event = if self.signals == 1 {
                    notify::stopping();
                    log::info!(target: "momo::lfd_stop", "stopping; a second signal does not wait for what is under way");
                    Event::Stop
                } else {
                    Event::Cut
                };
                for ward in &mut self.wards {
                    ward.watch.handle(event, now);
                }
            }
        }
    }

    /// Carries out what is to be done about one daemon now.
    fn obey(&mut self, index: usize, now: Mono) {
        let Some(ward) = self.wards.get_mut(index) else {
            return;
        };
        while let Some(order) = ward.watch.poll(now) {
            let (id, pid) = (ward.id, ward.pid().unwrap_or_default());
            match order {
                Order::Start => {
                    // A process that is still here is never joined by a second one.
                    assert!(ward.child.is_none(), "one process of daemon {id} at a time");
                    let start = ward.watch.starts();
                    let started = ward.start(self.charge).and_then(|stream| {
                        listen(stream, index, start, &self.tell).map_err(|e| e.to_string())
                    });
                    let pid = ward.pid();
                    match (started, pid) {
                        (Ok(()), Some(pid)) => {
                            log::info!(target: "momo::lfd_start", "daemon {id}: process {pid} is started");
                        }
                        (Err(why), Some(_)) => {
                            // Nobody hears it: it goes, and with it the attempt.
                            log::error!(target: "momo::lfd_start", "daemon {id}: {why}");
                            ward.signal(Signal::KILL);
                            ward.closed = true;
                        }
                        (started, None) => {
                            let why = started.err().unwrap_or_default();
                            log::error!(target: "momo::lfd_start", "daemon {id} cannot be started: {why}");
                            ward.ended(why, now);
                            ward.next(now);
                        }
                    }
                }
                Order::Terminate => ward.signal(Signal::TERM),
                Order::Kill(reason) => {
                    let name = &ward.name;
                    match reason {
                        Reason::Silent { heartbeats } => {
                            log::error!(target: "momo::lfd_heartbeat_failure", "Server {name} failed to respond after heartbeat #{heartbeats}; killing process {pid}");
                        }
                        Reason::NotOpen => {
                            log::error!(target: "momo::lfd_not_open", "Server {name} did not open in time; killing process {pid}");
                        }
                        Reason::NotStopped => {
                            log::error!(target: "momo::lfd_not_stopped", "Server {name} did not stop in time; killing process {pid}");
                        }
                        Reason::Cut => {
                            log::warn!(target: "momo::lfd_cut", "killing process {pid} of server {name}, as asked");
                        }
                    }
                    ward.signal(Signal::KILL);
                }
                Order::Held => {
                    log::error!(target: "momo::lfd_held", "daemon {id}: process {pid} was killed and has not ended (a disk that does not answer?); no other one is started beside it");
                }
            }
        }
    }

    /// Writes down what has changed, for those who look, and tells systemd.
    fn say(&mut self) {
        let mut changed = false;
        for ward in &mut self.wards {
            let now = (ward.watch.stage(), ward.pid());
            if ward.said == Some(now) {
                continue;
            }
            ward.said = Some(now);
            changed = true;
            let record = Record {
                supervisor: self.this.clone(),
                by: self.charge.by.to_owned(),
                daemon: ward.id.0,
                process: now.1,
                stage: now.0.word().to_owned(),
                since_s: clock::wall().0 / 1_000_000_000,
                starts: ward.watch.starts(),
                failures: ward.watch.failures(),
                last_end: ward.last_end.chars().take(200).collect(),
            };
            if let Err(error) = ward.claim.write(&record) {
                log::warn!(target: "momo::lfd_record", "daemon {}: {error}", ward.id);
            }
        }
        if !changed || self.signals > 0 {
            return;
        }
        let all = self.wards.len();
        let is_up = |ward: &&Ward| ward.watch.stage() == Stage::Up;
        let up = self.wards.iter().filter(is_up).count();
        let words: Vec<String> = self
            .wards
            .iter()
            .map(|ward| format!("{} {}", ward.id, ward.watch.stage().word()))
            .collect();
        let status = format!("{up} of {all} up: {}", words.join(", "));
        if up == all && !self.ready {
            self.ready = true;
            notify::ready(&status);
        } else {
            notify::status(&status);
        }
    }
}

/// A thread that passes on what a process says, and its end.
fn listen(stream: UnixStream, ward: usize, start: u64, tell: &Sender<Told>) -> io::Result<()> {
    let tell = tell.clone();
    thread::Builder::new()
        .name(format!("ward-{ward}"))
        .stack_size(64 * 1024)
        .spawn(move || {
            let mut reader = BufReader::with_capacity(1024, stream);
            while let Some(line) = line(&mut reader) {
                let event = match line.as_slice() {
                    b"READY=1" => Event::Ready,
                    b"WATCHDOG=1" => Event::Alive,
                    b"STOPPING=1" => Event::Stopping,
                    _ => continue,
                };
                if tell.send(Told::Said { ward, start, event }).is_err() {
                    return;
                }
            }
            let _ = tell.send(Told::Closed { ward, start });
        })
        .map(drop)
}

/// The next line without its end; `None` at the end of the stream, or where what comes is no line.
fn line(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    reader
        .by_ref()
        .take(LINE_BYTES)
        .read_until(b'\n', &mut line)
        .ok()?;
    (line.pop() == Some(b'\n')).then_some(line)
}
