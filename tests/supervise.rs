//! The supervisor from outside: what it starts again and what it ends, that there is never a second process, and `momo cluster`.

mod harness;

use std::fs::{self, File};
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use harness::{BINARY, Cluster, Shape, content, eventually};
use rustix::process::{Pid, Signal, kill_process};

/// Silence after which the daemons of these tests count as hung: longer than a busy machine keeps a thread waiting.
const SILENCE: Duration = Duration::from_secs(3);

/// A supervisor under test, killed with everything below it when the test ends.
struct Supervisor {
    child: Child,
    log: PathBuf,
}

impl Supervisor {
    /// `momo ARGS --conf CONF`, its standard input closed, as under some service managers.
    fn start(cluster: &Cluster, args: &[&str]) -> Self {
        Self::of(Path::new(BINARY), cluster, args)
    }

    /// The same with another file of the program.
    fn of(program: &Path, cluster: &Cluster, args: &[&str]) -> Self {
        let log = cluster.folder().join("supervisor.log");
        let file = File::options().create(true).append(true).open(&log);
        let file = file.expect("a log");
        let child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" <&-"])
            .arg(program)
            .args(args)
            .arg("--conf")
            .arg(&cluster.conf)
            .env_remove("NOTIFY_SOCKET")
            .env_remove("MOMO_CONF")
            .stdout(file.try_clone().expect("a log"))
            .stderr(file)
            .spawn()
            .expect("a supervisor");
        Self { child, log }
    }

    fn signal(&self, signal: Signal) {
        send(self.child.id(), signal);
    }

    fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the supervisor ends", || {
            status = self.child.try_wait().expect("its state");
            status.is_some()
        });
        status.expect("its status")
    }

    fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.logged());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    kill_process(pid, signal).expect("a signal");
}

/// Whether there is such a process, other than one that only waits to be reaped.
fn runs(pid: u32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

fn state_and_parent(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// The processes that this one has started and that run.
fn children(parent: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").expect("/proc").flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers
        .filter(|pid| state_and_parent(*pid).is_some_and(|(s, p)| p == parent && s != 'Z'))
        .collect()
}

/// What the supervisor of a daemon says of it, while there is one.
fn record(cluster: &Cluster, id: usize) -> Option<serde_json::Value> {
    let path = cluster.daemons[id].data.join(".momo/state/lfd");
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The daemon's process once it is up and was started so many times.
fn process_of_start(cluster: &Cluster, id: usize, starts: u64) -> u32 {
    let mut pid = 0;
    eventually(&format!("daemon {id} is up after {starts} starts"), || {
        let Some(record) = record(cluster, id) else {
            return false;
        };
        pid = u32::try_from(record["process"].as_u64().unwrap_or_default()).expect("a pid");
        let reached = record["starts"].as_u64().unwrap_or_default();
        assert!(reached <= starts, "started too often: {record}");
        record["stage"] == "up" && reached == starts
    });
    pid
}

fn shape(daemons: usize) -> Shape {
    Shape {
        daemons,
        extra: format!(
            "[lfd]\ninterval=100\ntimeout={}\nbackoff=1000\n\n",
            SILENCE.as_millis()
        ),
        ..Shape::default()
    }
}

/// One daemon in the care of `momo lfd`, and its process.
fn lfd() -> (Cluster, Supervisor, u32) {
    let cluster = Cluster::prepare(&shape(1));
    let supervisor = Supervisor::start(&cluster, &["lfd", "--id", "0"]);
    let pid = process_of_start(&cluster, 0, 1);
    (cluster, supervisor, pid)
}

fn cluster_command(cluster: &Cluster, args: &[&str]) -> Output {
    Command::new(BINARY)
        .arg("cluster")
        .args(args)
        .arg("--conf")
        .arg(&cluster.conf)
        .current_dir(cluster.folder())
        .stdin(Stdio::null())
        .output()
        .expect("momo cluster")
}

#[track_caller]
fn says(output: &Output, code: i32, words: &str) {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(words), "{words:?} is not in {text}");
}

#[test]
fn a_daemon_that_is_killed_is_started_again_and_what_was_kept_is_there() {
    let (cluster, mut supervisor, first) = lfd();
    cluster.eventually("it takes files", |cluster| {
        let put = cluster.daemons[0]
            .text()
            .map(|mut text| text.put("kept", "", &content(1, 5_000)));
        matches!(put, Ok(Ok(Ok(_))))
    });
    send(first, Signal::KILL);
    let second = process_of_start(&cluster, 0, 2);
    assert_ne!(first, second);
    assert_eq!(children(supervisor.child.id()), [second]);
    assert_eq!(cluster.get(0, "kept"), content(1, 5_000));
    // Somebody's SIGTERM to the daemon itself is an end like another.
    send(second, Signal::TERM);
    let third = process_of_start(&cluster, 0, 3);
    supervisor.signal(Signal::TERM);
    assert!(supervisor.ended().success());
    assert!(!runs(third));
}

#[test]
fn a_daemon_that_hangs_is_killed_and_started_again_once() {
    let (cluster, mut supervisor, first) = lfd();
    send(first, Signal::STOP);
    let second = process_of_start(&cluster, 0, 2);
    assert!(!runs(first));
    assert_eq!(children(supervisor.child.id()), [second]);
    assert!(
        supervisor
            .logged()
            .contains("Server daemon.0 failed to respond after heartbeat #")
    );
    // It is left alone from then on, for longer than a silence.
    let start = Instant::now();
    while start.elapsed() < SILENCE + SILENCE / 3 {
        assert_eq!(process_of_start(&cluster, 0, 2), second);
        thread::sleep(Duration::from_millis(100));
    }
    supervisor.signal(Signal::INT);
    assert!(supervisor.ended().success());
}

#[test]
fn a_daemon_that_is_killed_while_its_cluster_is_born_comes_up_all_the_same() {
    for _ in 0..5 {
        let mut cluster = Cluster::prepare(&shape(1));
        cluster.daemons[0].start();
        let mark = cluster.daemons[0].data.join(".momo/format");
        // The cluster's id in the mark of the directory: it is being born just now.
        eventually("it is marked", || {
            fs::read_to_string(&mark).is_ok_and(|text| !text.contains("\"cluster\":null"))
        });
        cluster.daemons[0].kill();
        cluster.daemons[0].start();
        cluster.wait_ready();
    }
}

#[test]
fn a_supervisor_that_stood_still_blames_no_daemon() {
    let (cluster, supervisor, pid) = lfd();
    supervisor.signal(Signal::STOP);
    thread::sleep(SILENCE + SILENCE / 3);
    supervisor.signal(Signal::CONT);
    eventually("it says so", || supervisor.logged().contains("did not run"));
    assert_eq!(process_of_start(&cluster, 0, 1), pid);
}

#[test]
fn a_daemon_that_keeps_dying_is_waited_for_longer_and_comes_up_when_it_can() {
    let cluster = Cluster::prepare(&shape(1));
    let squatter = TcpListener::bind(cluster.daemons[0].host).expect("the daemon's address");
    let mut supervisor = Supervisor::start(&cluster, &["lfd", "--id", "0"]);
    eventually("it says that it waits", || {
        let log = supervisor.logged();
        log.contains("has ended 5 times in a row") && log.contains("will not be given up")
    });
    assert!(children(supervisor.child.id()).len() <= 1);
    says(
        &cluster_command(&cluster, &["status"]),
        1,
        "times in a row, last: exit status: 1",
    );
    drop(squatter);
    eventually("it is up", || {
        record(&cluster, 0).is_some_and(|record| record["stage"] == "up")
    });
    supervisor.signal(Signal::TERM);
    assert!(supervisor.ended().success());
}

#[test]
fn a_daemon_ends_with_its_supervisor_also_when_it_hangs() {
    for stopped in [false, true] {
        let (_cluster, mut supervisor, pid) = lfd();
        if stopped {
            send(pid, Signal::STOP);
        }
        supervisor.signal(Signal::KILL);
        supervisor.ended();
        eventually("the daemon has ended", || !runs(pid));
    }
}

#[test]
fn a_second_signal_does_not_wait_for_the_drain() {
    let (_cluster, mut supervisor, pid) = lfd();
    send(pid, Signal::STOP);
    supervisor.signal(Signal::TERM);
    eventually("the first is heard", || {
        supervisor
            .logged()
            .contains("a second signal does not wait")
    });
    supervisor.signal(Signal::TERM);
    assert_eq!(supervisor.ended().code(), Some(1));
    assert!(!runs(pid));
    assert!(
        supervisor
            .logged()
            .contains("killed, since they did not stop in time")
    );
}

#[test]
fn a_daemon_has_one_supervisor() {
    let (cluster, first, pid) = lfd();
    let mut second = Supervisor::start(&cluster, &["lfd", "--id", "0"]);
    assert_eq!(second.ended().code(), Some(1));
    let words = format!(
        "already in the care of `momo lfd` (process {})",
        first.child.id()
    );
    assert!(second.logged().contains(&words));
    says(&cluster_command(&cluster, &["up"]), 1, &words);
    // What another one started is not `cluster`'s to end.
    says(&cluster_command(&cluster, &["down"]), 0, "daemon 0 stays");
    assert_eq!(process_of_start(&cluster, 0, 1), pid);
    assert_eq!(children(first.child.id()), [pid]);
}

#[test]
fn an_emptied_directory_costs_neither_the_watch_nor_the_way_to_end_it() {
    let cluster = Cluster::prepare(&shape(1));
    let mut supervisor = Supervisor::start(&cluster, &["cluster", "up"]);
    let first = process_of_start(&cluster, 0, 1);
    fs::remove_dir_all(&cluster.daemons[0].data).expect("an emptied disk");
    send(first, Signal::KILL);
    process_of_start(&cluster, 0, 2);
    says(&cluster_command(&cluster, &["down"]), 0, "has ended");
    assert!(supervisor.ended().success());
}

#[test]
fn a_program_that_is_replaced_runs_from_the_next_start_on() {
    let cluster = Cluster::prepare(&shape(1));
    let program = cluster.folder().join("momo");
    let place = || {
        fs::hard_link(BINARY, &program)
            .or_else(|_| fs::copy(BINARY, &program).map(drop))
            .expect("a program");
    };
    place();
    let mut supervisor = Supervisor::of(&program, &cluster, &["lfd", "--id", "0"]);
    let first = process_of_start(&cluster, 0, 1);
    // In the middle of an upgrade there is none: that is waited for like any other end.
    fs::remove_file(&program).expect("the old one goes");
    send(first, Signal::KILL);
    eventually("it says so", || {
        supervisor.logged().contains("daemon 0 cannot be started")
    });
    place();
    eventually("it is up", || {
        record(&cluster, 0).is_some_and(|record| record["stage"] == "up")
    });
    supervisor.signal(Signal::TERM);
    assert!(supervisor.ended().success());
}

#[test]
fn daemons_of_other_machines_are_left_to_them() {
    let cluster = Cluster::prepare(&shape(2));
    let text = fs::read_to_string(&cluster.conf).expect("the configuration");
    // One file on every machine, with the same directory everywhere; nobody has an address of TEST-NET-1.
    let text = text
        .replace(&cluster.daemons[1].host.to_string(), "192.0.2.1:3333")
        .replace(&cluster.daemons[1].change.to_string(), "192.0.2.1:2222")
        .replace("data-1", "data-0");
    fs::write(&cluster.conf, text).expect("the configuration");
    fs::write(cluster.folder().join("momo.secret"), [b'x'; 64]).expect("a secret");
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(cluster.folder().join("momo.secret"), private).expect("its mode");
    let mut supervisor = Supervisor::start(&cluster, &["cluster", "up"]);
    let pid = process_of_start(&cluster, 0, 1);
    assert_eq!(children(supervisor.child.id()), [pid]);
    let status = cluster_command(&cluster, &["status"]);
    says(&status, 0, "elsewhere");
    says(&cluster_command(&cluster, &["down"]), 0, "has ended");
    assert!(supervisor.ended().success());
}

#[test]
fn all_daemons_of_a_file_live_and_end_together() {
    let cluster = Cluster::prepare(&shape(3));
    let mut supervisor = Supervisor::start(&cluster, &["cluster", "up"]);
    let pids = [0, 1, 2].map(|id| process_of_start(&cluster, id, 1));
    eventually("all are ready", || {
        let output = cluster_command(&cluster, &["status"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success() && text.matches(" ready").count() == 3 && text.contains("leads")
    });
    let json = cluster_command(&cluster, &["status", "--json"]);
    let rows: serde_json::Value = serde_json::from_slice(&json.stdout).expect("json");
    for (id, pid) in pids.iter().enumerate() {
        assert_eq!(rows[id]["supervision"]["process"], *pid, "{rows}");
        assert_eq!(rows[id]["supervision"]["by"], "cluster");
        assert_eq!(rows[id]["status"]["node"], id);
    }
    send(pids[1], Signal::KILL);
    let again = process_of_start(&cluster, 1, 2);
    let mut running = children(supervisor.child.id());
    running.sort_unstable();
    let mut wanted = [pids[0], again, pids[2]];
    wanted.sort_unstable();
    assert_eq!(running, wanted);
    supervisor.signal(Signal::INT);
    assert!(supervisor.ended().success());
    for pid in wanted {
        assert!(!runs(pid));
    }
    says(
        &cluster_command(&cluster, &["status"]),
        1,
        "not up: daemons 0, 1, 2",
    );
}

#[test]
fn a_cluster_in_the_background_is_ended_by_its_name() {
    let cluster = Cluster::prepare(&shape(2));
    let up = cluster_command(&cluster, &["up", "--detach"]);
    says(&up, 0, "2 daemons are up");
    let record = record(&cluster, 0).expect("a record");
    let supervisor =
        u32::try_from(record["supervisor"]["pid"].as_u64().expect("a pid")).expect("a pid");
    let end_with_the_test = Background(supervisor);
    let mut pids = children(supervisor);
    assert_eq!(pids.len(), 2);
    says(
        &cluster_command(&cluster, &["up", "--detach"]),
        1,
        "momo-cluster.log",
    );
    assert!(logged(cluster.folder()).contains("already in the care of `momo cluster up`"));
    says(&cluster_command(&cluster, &["down"]), 0, "has ended");
    pids.push(supervisor);
    for pid in pids {
        eventually("it is gone", || !runs(pid));
    }
    drop(end_with_the_test);
    says(&cluster_command(&cluster, &["down"]), 0, "nothing that");
}

fn logged(folder: &Path) -> String {
    let mut text = String::new();
    let file = File::open(folder.join("momo-cluster.log"));
    file.and_then(|mut file| file.read_to_string(&mut text))
        .expect("the log");
    text
}

/// A process that is nobody's child any more, ended when the test fails.
struct Background(u32);

impl Drop for Background {
    fn drop(&mut self) {
        if thread::panicking() && runs(self.0) {
            send(self.0, Signal::KILL);
        }
    }
}

#[test]
fn what_cannot_be_started_is_said_at_once() {
    let cluster = Cluster::prepare(&shape(1));
    let mut wrong = Supervisor::start(&cluster, &["lfd", "--id", "7"]);
    assert_eq!(wrong.ended().code(), Some(1));
    assert!(wrong.logged().contains("no [daemon.7]"));
    // By hand it has no supervisor to end with.
    let alone = Command::new(BINARY)
        .args([
            "server",
            "--id",
            "0",
            "--supervisor",
            "1",
            "--heartbeat",
            "1s",
            "--conf",
        ])
        .arg(&cluster.conf)
        .stdin(Stdio::null())
        .output()
        .expect("a daemon");
    assert_eq!(alone.status.code(), Some(1));
}
