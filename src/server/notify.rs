//! Telling whoever started this process how it goes: ready, alive, stopping. systemd is told by its socket, a supervisor of ours
//! by the stream that it put in the place of standard input, in the same words (`READY=1`). Silent where nobody asked.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use sd_notify::NotifyState;

/// A supervisor that does not take a line in this time is not waited for.
const TELL: Duration = Duration::from_secs(1);

/// The process of ours that started this one, where one did.
struct Supervisor {
    stream: UnixStream,
    /// How often it wants to hear that this process is alive, if it does.
    heartbeat: Option<Duration>,
}

static SUPERVISOR: OnceLock<Supervisor> = OnceLock::new();

/// From here on the process that started this one is told on standard input how it goes, and that it is alive each `heartbeat`.
///
/// # Errors
/// Standard input is not the stream that a supervisor of ours gives.
pub fn supervised(heartbeat: Option<Duration>) -> io::Result<()> {
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    stream.set_write_timeout(Some(TELL))?;
    let _ = SUPERVISOR.set(Supervisor { stream, heartbeat });
    Ok(())
}

/// Binds this process to its supervisor: it ends with it, at once, also where it hangs. What is acknowledged outlives that (the promise).
///
/// # Errors
/// The supervisor has ended already.
pub fn end_with(supervisor: u32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = getppid().map(Pid::as_raw_nonzero);
    if parent.and_then(|parent| u32::try_from(parent.get()).ok()) == Some(supervisor) {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "process {supervisor}, which is to supervise this one, is not its parent"
        )))
    }
}

fn tell(states: &[NotifyState<'_>]) {
    let Some(supervisor) = SUPERVISOR.get() else {
        if let Err(error) = sd_notify::notify(states) {
            log::warn!(target: "momo::systemd", "not told: {error}");
        }
        return;
    };
    let mut text = String::new();
    for state in states {
        let _ = writeln!(text, "{state}");
    }
    if let Err(error) = (&supervisor.stream).write_all(text.as_bytes()) {
        log::debug!(target: "momo::supervisor", "not told: {error}");
    }
}

/// The doors are open; `status` is one line for `systemctl status`.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// One line for `systemctl status`.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// This process still does its work.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// The way down has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// How often whoever started this process wants to hear that it is alive, if they do.
pub fn period() -> Option<Duration> {
    if let Some(supervisor) = SUPERVISOR.get() {
        return supervisor.heartbeat;
    }
    let period = sd_notify::watchdog_enabled()?;
    Some((period / 3).max(Duration::from_millis(10)))
}

/// Tells whoever wants to hear it that this process lives, while `alive` says so: one whose driver hangs is restarted by them.
pub fn watchdog(
    alive: impl Fn() -> bool + Send + 'static,
    stopping: Arc<AtomicBool>,
) -> io::Result<()> {
    let Some(pause) = period() else {
        return Ok(());
    };
    thread::Builder::new()
        .name("watchdog".to_owned())
        .spawn(move || {
            while !stopping.load(Ordering::Acquire) {
                if alive() {
                    self::alive();
                }
                thread::park_timeout(pause);
            }
        })?;
    Ok(())
}
