//! Telling systemd how it goes: ready, alive, stopping. Silent where no systemd asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!(target: "momo::systemd", "not told: {error}");
    }
}

/// The doors are open; `status` is one line for `systemctl status`.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The way down has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Feeds the watchdog, when there is one, while `alive` says yes: a driver that hangs lets the supervisor restart the process.
pub fn watchdog(
    alive: impl Fn() -> bool + Send + 'static,
    stopping: Arc<AtomicBool>,
) -> std::io::Result<()> {
    let Some(period) = sd_notify::watchdog_enabled() else {
        return Ok(());
    };
    let pause = (period / 3).max(Duration::from_millis(10));
    thread::Builder::new()
        .name("watchdog".to_owned())
        .spawn(move || {
            while !stopping.load(Ordering::Acquire) {
                if alive() {
                    tell(&[NotifyState::Watchdog]);
                }
                thread::park_timeout(pause);
            }
        })?;
    Ok(())
}
