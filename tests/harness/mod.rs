//! A cluster of real daemons on loopback for the black-box tests: started, spoken to in raw bytes, killed and restarted by pid.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod momo;
pub mod mount;
pub mod net;
pub mod text;

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use md5::{Digest, Md5};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use net::Net;
use text::Text;

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_momo");
/// How long anything may take that is expected to happen at all; generous, because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Lines of each daemon's log that a failure shows.
const TAIL: usize = 40;

/// What differs from the usual cluster of three.
#[derive(Clone, Debug)]
pub struct Shape {
    /// How many daemons.
    pub daemons: usize,
    /// `replication_order`; the first is the mode at birth.
    pub order: String,
    /// Lines for the `[global]`... sections, section headers included.
    pub extra: String,
    /// Data directories that do not lie in the cluster's own folder, by daemon.
    pub data: Vec<(usize, PathBuf)>,
    /// Where the cluster's folder is made; the system's temporary directory otherwise.
    pub parent: Option<PathBuf>,
    /// Whether the log tells every step, or only what went wrong.
    pub debug: bool,
    /// Whether the timers are made fast for tests; a measurement keeps the defaults.
    pub fast: bool,
    /// Where log and tables lie, a folder below it for each daemon; in the data directories otherwise.
    pub state: Option<PathBuf>,
    /// Whether the links between daemons go through [`Cluster::net`], where a test can cut them.
    pub proxied: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            daemons: 3,
            order: "2,1,3,0".to_owned(),
            extra: String::new(),
            data: Vec::new(),
            parent: None,
            debug: true,
            fast: true,
            state: None,
            proxied: false,
        }
    }
}

/// One daemon of a [`Cluster`], running or not.
#[derive(Debug)]
pub struct Daemon {
    /// Its number, the N of `[daemon.N]`.
    pub id: usize,
    /// Where every door but one listens.
    pub host: SocketAddr,
    /// The `change_replication` port.
    pub change: SocketAddr,
    /// Its data directory.
    pub data: PathBuf,
    /// Its stderr, over all its lives.
    pub log: PathBuf,
    /// More for its command line.
    pub args: Vec<String>,
    conf: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    /// Starts the process; does not wait until it is ready.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "daemon {} runs already", self.id);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("log of a daemon");
        let child = self
            .command()
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log of a daemon"))
            .stderr(log)
            .spawn()
            .expect("start of a daemon");
        self.child = Some(child);
    }

    /// The command line that starts it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(["server", "--id", &self.id.to_string(), "--conf"])
            .arg(&self.conf)
            .args(&self.args)
            .env_remove("NOTIFY_SOCKET")
            .env_remove("MOMO_CONF");
        command
    }

    /// The configuration it is started with.
    pub fn conf(&self) -> &Path {
        &self.conf
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running daemon").id()
    }

    /// Whether it was started and neither killed nor waited for.
    pub fn started(&self) -> bool {
        self.child.is_some()
    }

    /// Whether its process has not ended.
    pub fn alive(&self) -> bool {
        self.started()
            && fs::read_to_string(format!("/proc/{}/stat", self.pid()))
                .ok()
                .and_then(|stat| stat.rsplit_once(')').map(|(_, rest)| rest.to_owned()))
                .is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X']))
    }

    /// Sends a signal to its process.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("pid")).expect("pid");
        kill_process(pid, signal).expect("signal to a daemon");
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM; the status it ended with, within `patience`.
    pub fn terminate(&mut self, patience: Duration) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        self.ended(patience)
    }

    /// Waits for the process to end by itself.
    pub fn ended(&mut self, patience: Duration) -> Option<ExitStatus> {
        let child = self.child.as_mut().expect("a running daemon");
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("state of a daemon") {
                self.child = None;
                return Some(status);
            }
            if start.elapsed() > patience {
                return None;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// A connection to its text door.
    pub fn text(&self) -> io::Result<Text> {
        Text::dial(self.host)
    }

    /// What it has logged so far.
    pub fn logged(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The visible file under its data directory, if there is one.
    pub fn visible(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.data.join(name)).ok()
    }

    /// Whether its disk holds these bytes as an object, visible under a name already or not yet.
    pub fn holds(&self, bytes: &[u8]) -> bool {
        let sha256 = hex(&sha2::Sha256::digest(bytes));
        let path = self
            .data
            .join(".momo/objects")
            .join(&sha256[..2])
            .join(&sha256);
        fs::read(path).is_ok_and(|found| found == bytes)
    }

    /// Names of what lies in `.momo/tmp`: uploads that have not ended, or strays.
    pub fn temporaries(&self) -> Vec<String> {
        names_in(&self.data.join(".momo/tmp"))
    }

    /// Names of visible files, folders included, without `.momo`.
    pub fn visible_names(&self) -> Vec<String> {
        let mut names = names_in(&self.data);
        names.retain(|name| name != ".momo");
        names
    }

    /// The last lines of its log.
    pub fn tail(&self) -> String {
        let logged = self.logged();
        let lines: Vec<&str> = logged.lines().collect();
        let from = lines.len().saturating_sub(TAIL);
        lines[from..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Daemons that form one cluster, in a folder that goes away with them.
#[derive(Debug)]
pub struct Cluster {
    /// The daemons, by number.
    pub daemons: Vec<Daemon>,
    /// The configuration they share.
    pub conf: PathBuf,
    net: Option<Net>,
    folder: TempDir,
}

impl Cluster {
    /// Starts daemons of a shape and waits until every one of them serves.
    pub fn start(shape: &Shape) -> Self {
        let mut cluster = Self::prepare(shape);
        for daemon in &mut cluster.daemons {
            daemon.start();
        }
        cluster.wait_ready();
        cluster
    }

    /// Three daemons, fast timers.
    pub fn three() -> Self {
        Self::start(&Shape::default())
    }

    /// Writes the configuration and starts nothing.
    pub fn prepare(shape: &Shape) -> Self {
        let mut builder = tempfile::Builder::new();
        builder.prefix("momo-");
        let folder = match &shape.parent {
            Some(parent) => {
                fs::create_dir_all(parent).expect("parent folder");
                builder.tempdir_in(parent)
            }
            None => builder.tempdir(),
        }
        .expect("temporary folder");
        let conf = folder.path().join("momo.conf");
        let addresses = free_addresses(shape.daemons * 2);
        let proxies = if shape.proxied {
            proxies(shape.daemons)
        } else {
            Vec::new()
        };
        let mut daemons = Vec::new();
        let mut text = format!(
            "[global]\ndebug={}\nreplication_order={}\npolymorphic_system=false\n\n\
             [metrics]\ninterval=300000\nfallback_interval=1800000\nmin_threshold=0.25\nmax_threshold=0.75\n\n",
            shape.debug, shape.order
        );
        if shape.fast {
            text.push_str(FAST);
        }
        if shape.proxied {
            // What the links carry must go through the proxies, whatever the daemons tell each other.
            text.push_str("[membership]\nfixed_addresses=true\n\n");
        }
        text.push_str(&shape.extra);
        for id in 0..shape.daemons {
            let data = shape
                .data
                .iter()
                .find(|(number, _)| *number == id)
                .map_or_else(
                    || folder.path().join(format!("data-{id}")),
                    |(_, path)| path.clone(),
                );
            let (host, change) = (addresses[id * 2], addresses[id * 2 + 1]);
            let _ = write!(
                text,
                "\n[daemon.{id}]\nhost={host}\nchange_replication={change}\ndata={}\ndrive=/dev/sda\n",
                data.display()
            );
            if let Some(state) = &shape.state {
                let _ = writeln!(text, "state_dir={}", state.join(id.to_string()).display());
            }
            daemons.push(Daemon {
                id,
                host,
                change,
                data,
                log: folder.path().join(format!("daemon-{id}.log")),
                args: Vec::new(),
                conf: conf.clone(),
                child: None,
            });
        }
        fs::write(&conf, &text).expect("configuration");
        for daemon in daemons.iter_mut().filter(|_| shape.proxied) {
            daemon.conf = folder.path().join(format!("daemon-{}.conf", daemon.id));
            fs::write(&daemon.conf, behind_proxies(&text, &proxies, daemon.id))
                .expect("configuration");
        }
        Self {
            daemons,
            conf,
            net: shape.proxied.then(|| Net::start(&proxies)),
            folder,
        }
    }

    /// The links between the daemons, where the shape asked for them.
    pub fn net(&self) -> &Net {
        self.net.as_ref().expect("a proxied cluster")
    }

    /// A daemon that is in nobody's configuration but its own, which names it alone: not started yet.
    pub fn newcomer(&mut self, id: usize, shape: &Shape) -> &mut Daemon {
        let addresses = free_addresses(2);
        let (host, change) = (addresses[0], addresses[1]);
        let data = self.folder().join(format!("data-{id}"));
        let conf = self.folder().join(format!("daemon-{id}.conf"));
        let fast = if shape.fast { FAST } else { "" };
        let text = format!(
            "[global]\ndebug={}\nreplication_order={}\n\n{fast}{}\n[daemon.{id}]\nhost={host}\n\
             change_replication={change}\ndata={}\n",
            shape.debug,
            shape.order,
            shape.extra,
            data.display()
        );
        fs::write(&conf, text).expect("configuration");
        self.daemons.push(Daemon {
            id,
            host,
            change,
            data,
            log: self.folder().join(format!("daemon-{id}.log")),
            args: Vec::new(),
            conf,
            child: None,
        });
        self.daemons.last_mut().expect("a daemon")
    }

    /// A daemon's machine got another address: its own configuration says so, nobody else's does. It must not be running.
    pub fn readdress(&mut self, id: usize) {
        let host = free_addresses(1)[0];
        let folder = self.folder().to_owned();
        let daemon = &mut self.daemons[id];
        assert!(daemon.child.is_none(), "daemon {id} runs");
        let text = fs::read_to_string(&daemon.conf).expect("configuration");
        let text = text.replace(
            &format!("host={}\n", daemon.host),
            &format!("host={host}\n"),
        );
        daemon.conf = folder.join(format!("moved-{id}.conf"));
        fs::write(&daemon.conf, text).expect("configuration");
        daemon.host = host;
    }

    /// The cluster's own folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits until every running daemon serves fresh look-ups.
    pub fn wait_ready(&self) {
        let running: Vec<usize> = self
            .daemons
            .iter()
            .filter(|daemon| daemon.child.is_some())
            .map(|daemon| daemon.id)
            .collect();
        for id in running {
            self.wait_serving(id);
        }
    }

    /// Waits until one daemon serves fresh look-ups: it knows a leader and has applied what was committed.
    pub fn wait_serving(&self, id: usize) {
        let start = Instant::now();
        loop {
            assert!(
                self.daemons[id].alive(),
                "daemon {id} ended\n{}",
                self.tails()
            );
            let fresh = self.daemons[id].text().and_then(|mut text| text.is_fresh());
            if matches!(fresh, Ok(true)) {
                return;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "daemon {id} does not serve: {fresh:?}\n{}",
                self.tails()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Polls until a condition holds; fails with `what` and the ends of the logs.
    pub fn eventually(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            assert!(
                start.elapsed() < PATIENCE,
                "never: {what}\n{}",
                self.tails()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// How many daemons' disks show exactly these bytes under this name.
    pub fn copies(&self, name: &str, bytes: &[u8]) -> usize {
        self.holders(name, bytes).len()
    }

    /// How many daemons hold these bytes durably: what an acknowledgement counts. Names follow when the commit is applied there.
    pub fn durable(&self, bytes: &[u8]) -> usize {
        self.daemons
            .iter()
            .filter(|daemon| daemon.holds(bytes))
            .count()
    }

    /// The daemons whose disks show exactly these bytes under this name.
    pub fn holders(&self, name: &str, bytes: &[u8]) -> Vec<usize> {
        let wanted = md5_hex(bytes);
        self.daemons
            .iter()
            .filter(|daemon| {
                daemon
                    .visible(name)
                    .is_some_and(|found| md5_hex(&found) == wanted)
            })
            .map(|daemon| daemon.id)
            .collect()
    }

    /// Puts the cluster into a mode and waits until every running daemon knows it.
    pub fn set_mode(&self, mode: u8) {
        let start = Instant::now();
        loop {
            let answer = self.daemons[0]
                .text()
                .and_then(|mut text| text.ask(&format!("MODE {mode}")));
            if matches!(&answer, Ok(line) if !line.starts_with("ERR")) {
                return;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "MODE {mode}: {answer:?}\n{}",
                self.tails()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Reads a file by the text door of a daemon; retries while the cluster is between leaders.
    pub fn get(&self, id: usize, name: &str) -> Vec<u8> {
        let start = Instant::now();
        loop {
            let answer = self.daemons[id]
                .text()
                .and_then(|mut text| text.get(name))
                .and_then(|answer| answer.map_err(io::Error::other));
            match answer {
                Ok(bytes) => return bytes,
                Err(error) => assert!(
                    start.elapsed() < PATIENCE,
                    "FILE GET {name} at daemon {id}: {error}\n{}",
                    self.tails()
                ),
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// No upload has left anything: `.momo/tmp` is empty everywhere, and the trees hold these names only.
    pub fn assert_clean(&self, names: &[&str]) {
        self.eventually("nothing in .momo/tmp", |cluster| {
            cluster
                .daemons
                .iter()
                .all(|daemon| daemon.temporaries().is_empty())
        });
        for daemon in &self.daemons {
            let strays: Vec<String> = daemon
                .visible_names()
                .into_iter()
                .filter(|name| !names.contains(&name.as_str()))
                .collect();
            assert!(
                strays.is_empty(),
                "strays at daemon {}: {strays:?}\n{}",
                daemon.id,
                self.tails()
            );
        }
    }

    /// Every daemon that was started still runs.
    pub fn assert_alive(&self) {
        let dead: Vec<usize> = self
            .daemons
            .iter()
            .filter(|daemon| daemon.started() && !daemon.alive())
            .map(|daemon| daemon.id)
            .collect();
        assert!(dead.is_empty(), "daemons {dead:?} died\n{}", self.tails());
    }

    /// The ends of all logs, for the message of a failure.
    pub fn tails(&self) -> String {
        let mut text = String::new();
        for daemon in &self.daemons {
            let _ = write!(
                text,
                "\n--- daemon {} ({}) ---\n{}\n",
                daemon.id,
                daemon.host,
                daemon.tail()
            );
        }
        text
    }

    /// A client command line (`momo put ...`) against this cluster.
    pub fn client(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(args)
            .arg("--conf")
            .arg(&self.conf)
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.tails());
        }
        for daemon in &mut self.daemons {
            daemon.kill();
        }
    }
}

/// For each daemon a proxy that listens, and the address of the peer door behind it.
fn proxies(daemons: usize) -> Vec<(TcpListener, SocketAddr)> {
    (0..daemons)
        .map(|_| {
            let addresses = free_addresses(2);
            let listener = TcpListener::bind(addresses[0]).expect("a proxy");
            (listener, addresses[1])
        })
        .collect()
}

/// The configuration as one daemon sees it: its own peer door where it really is, the others' where their proxies listen.
fn behind_proxies(text: &str, proxies: &[(TcpListener, SocketAddr)], own: usize) -> String {
    proxies
        .iter()
        .enumerate()
        .fold(text.to_owned(), |text, (id, (listener, door))| {
            let peer = if id == own {
                *door
            } else {
                listener.local_addr().expect("a proxy")
            };
            let section = format!("[daemon.{id}]\n");
            text.replace(&section, &format!("{section}peer={peer}\n"))
        })
}

/// Timers that let a test see in a second what takes a minute in earnest.
const FAST: &str = "[heartbeat]\ninterval=200\ntimeout=1000\n\n\
    [raft]\ntick_ms=20\nelection_ticks=15\nheartbeat_ticks=3\n\n\
    [repair]\ngrace=500\n\n";

/// Loopback addresses that nobody uses: an address of 127/8 of this process's own, and ports no kernel hands out.
pub fn free_addresses(count: usize) -> Vec<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(10_000);
    let pid = std::process::id();
    let [_, high, middle, low] = pid.to_be_bytes();
    let ip = [127, 64 | (high & 63), middle, low.max(1)];
    let mut addresses = Vec::new();
    while addresses.len() < count {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(port < 32_000, "no free port");
        let address = SocketAddr::from((ip, port));
        if TcpListener::bind(address).is_ok() {
            addresses.push(address);
        }
    }
    addresses
}

/// A TCP connection with a deadline on everything.
pub fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What a peer sends until it closes; an error where it neither sends nor closes in time. A reset counts as a close.
pub fn until_close(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut block = [0_u8; 4096];
    loop {
        match stream.read(&mut block) {
            Ok(0) => return Ok(bytes),
            Ok(count) => bytes.extend_from_slice(&block[..count]),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(bytes),
            Err(error) => return Err(error),
        }
    }
}

/// MD5 in lowercase hex.
pub fn md5_hex(bytes: &[u8]) -> String {
    hex(&Md5::digest(bytes))
}

/// Bytes in lowercase hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Bytes that differ by seed and repeat nowhere soon.
pub fn content(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

/// Writes a file for a client to send.
pub fn write_file(path: &Path, bytes: &[u8]) {
    File::create(path)
        .and_then(|mut file| file.write_all(bytes))
        .expect("a file to send");
}

/// Polls until a condition holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a program is on this machine; a test that needs it says so and passes over itself otherwise.
pub fn has(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}
