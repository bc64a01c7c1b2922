//! Under systemd: what `make install` places, that the units are sound, and what a daemon tells its manager.

mod harness;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use harness::{BINARY, Cluster, PATIENCE, has};
use rustix::process::{Pid, Signal, kill_process};

fn make_install(variables: &[String]) -> Output {
    Command::new("make")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .arg("install")
        .arg(format!("BIN={BINARY}"))
        .args(variables)
        .output()
        .expect("make")
}

fn assert_installed(output: &Output) {
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .permissions()
        .mode()
        & 0o7777
}

#[test]
fn make_install_places_every_file_and_keeps_a_configuration_that_is_there() {
    if !has("make") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let variables = [format!("DESTDIR={}", folder.path().display())];
    assert_installed(&make_install(&variables));
    for (path, wanted) in [
        ("usr/local/bin/momo", 0o755),
        ("etc/momo/momo.conf", 0o644),
        ("usr/local/lib/systemd/system/momo@.service", 0o644),
        ("usr/local/lib/systemd/system/momo-cluster.service", 0o644),
        ("usr/local/lib/systemd/system/momo.target", 0o644),
        ("usr/local/lib/sysusers.d/momo.conf", 0o644),
        ("usr/local/lib/tmpfiles.d/momo.conf", 0o644),
    ] {
        assert_eq!(mode(&folder.path().join(path)), wanted, "{path}");
    }
    let unit = fs::read_to_string(
        folder
            .path()
            .join("usr/local/lib/systemd/system/momo@.service"),
    )
    .expect("the unit");
    assert!(
        unit.contains("ExecStart=/usr/local/bin/momo server --id %i --conf /etc/momo/momo.conf")
    );
    let conf = folder.path().join("etc/momo/momo.conf");
    fs::write(&conf, "mine\n").expect("a configuration");
    assert_installed(&make_install(&variables));
    assert_eq!(fs::read_to_string(&conf).expect("it"), "mine\n");
}

#[test]
fn the_units_are_sound() {
    if !has("make") || !has("systemd-analyze") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().display();
    assert_installed(&make_install(&[
        format!("PREFIX={root}/usr"),
        format!("SYSCONFDIR={root}/etc"),
    ]));
    let units = folder.path().join("usr/lib/systemd/system");
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(["momo@.service", "momo-cluster.service", "momo.target"].map(|unit| units.join(unit)))
        .output()
        .expect("systemd-analyze");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // Keys younger than this machine's systemd are passed over by it, and it says so; other units are not ours.
    let complaints: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("momo"))
        .filter(|line| !(line.contains("Unknown key") && line.contains("Restart")))
        .collect();
    assert!(
        output.status.success() && complaints.is_empty(),
        "{}\n{said}",
        output.status
    );
    for unit in ["momo@.service", "momo-cluster.service"] {
        // The score says what an attacker inside the daemon could still do: 0 nothing, 10 everything.
        let security = Command::new("systemd-analyze")
            .args(["security", "--offline=yes", "--threshold=30"])
            .arg(units.join(unit))
            .output()
            .expect("systemd-analyze");
        let said = String::from_utf8_lossy(&security.stderr).into_owned();
        if said.contains("unrecognized") || said.contains("offline") {
            eprintln!("skipped: this systemd-analyze knows no offline check: {said}");
            return;
        }
        assert!(
            security.status.success(),
            "{}\n{said}",
            String::from_utf8_lossy(&security.stdout)
        );
    }
}

#[test]
fn a_daemon_tells_its_manager_when_it_is_ready_that_it_lives_and_that_it_stops() {
    tells_its_manager("server");
}

#[test]
fn a_supervisor_tells_its_manager_the_same_of_itself() {
    tells_its_manager("lfd");
}

/// `momo COMMAND --id 0` under something that listens as systemd does.
fn tells_its_manager(command: &str) {
    let mut cluster = Cluster::prepare(&harness::Shape::default());
    let path = cluster.folder().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("a deadline");
    for daemon in &mut cluster.daemons[1..] {
        daemon.start();
    }
    let log = fs::File::create(&cluster.daemons[0].log).expect("a log");
    // The shell fills in the process id that the watchdog is meant for, and becomes the daemon.
    let mut child = Command::new("sh")
        .args([
            "-c",
            "WATCHDOG_PID=$$ exec \"$0\" \"$2\" --id 0 --conf \"$1\"",
        ])
        .args([Path::new(BINARY), &cluster.conf, Path::new(command)])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "1000000")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("a daemon");
    let mut heard = String::new();
    let mut listen = |wanted: &str, times: usize| {
        let start = Instant::now();
        let mut buffer = [0_u8; 1024];
        while heard.matches(wanted).count() < times && start.elapsed() < PATIENCE {
            if let Ok(count) = socket.recv(&mut buffer) {
                heard.push_str(&String::from_utf8_lossy(&buffer[..count]));
                heard.push('\n');
            }
        }
        heard.matches(wanted).count() >= times
    };
    let ready = listen("READY=1", 1);
    let lives = listen("WATCHDOG=1", 3);
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::TERM).expect("SIGTERM");
    let stopping = listen("STOPPING=1", 1);
    let start = Instant::now();
    let mut status = None;
    while status.is_none() && start.elapsed() < PATIENCE {
        status = child.try_wait().expect("state");
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
    assert!(
        ready && lives && stopping,
        "ready {ready}, lives {lives}, stopping {stopping}; heard {heard}\n{}",
        cluster.tails()
    );
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
}
