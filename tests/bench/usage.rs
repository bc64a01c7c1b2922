//! What a process cost: CPU seconds and memory as the kernel counts them, the clock on the wall, medians.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// Ticks of `/proc/<pid>/stat` in a second, the same on every Linux architecture in use.
const TICKS: f64 = 100.0;
/// A measured command that takes longer than this is a failure, not a figure.
const PATIENCE: Duration = Duration::from_mins(5);

/// Wall and CPU seconds of one piece of work.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Seconds on the wall.
    pub wall: f64,
    /// CPU seconds, user and system, of every process that took part.
    pub cpu: f64,
}

/// CPU seconds a process has used, also after it ended and before it is waited for.
pub fn cpu_of(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold spaces; user and system time are the 12th and 13th field behind it.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().collect())
        .unwrap_or_default();
    let ticks = |index: usize| -> f64 {
        fields
            .get(index)
            .and_then(|field| field.parse().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / TICKS
}

/// A line of `/proc/<pid>/status` in MiB: `VmRSS` now, `VmHWM` at its peak.
pub fn memory_of(pid: u32, line: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|row| row.strip_prefix(line)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok())
        .unwrap_or(f64::NAN)
        / 1024.0
}

/// CPU seconds of the calling thread, to the nanosecond.
fn cpu_here() -> f64 {
    fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok())
        .map_or(f64::NAN, |nanoseconds| nanoseconds / 1e9)
}

/// Times work on this thread.
pub fn timed(work: impl FnOnce()) -> Cost {
    let (cpu, start) = (cpu_here(), Instant::now());
    work();
    Cost {
        wall: start.elapsed().as_secs_f64(),
        cpu: cpu_here() - cpu,
    }
}

/// Runs a client to its end and adds up what it and the servers beside it used. A client that fails ends the run.
pub fn client(command: &mut Command, servers: &[u32]) -> Cost {
    let before: f64 = servers.iter().map(|&pid| cpu_of(pid)).sum();
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let used = ended(&mut child);
    let wall = start.elapsed().as_secs_f64();
    let status = child.wait().expect("status of a child");
    assert!(status.success(), "{command:?}: {status}");
    let after: f64 = servers.iter().map(|&pid| cpu_of(pid)).sum();
    Cost {
        wall,
        cpu: used + after - before,
    }
}

/// Waits for the end of a child without taking it away, so that its times can still be read.
fn ended(child: &mut Child) -> f64 {
    let pid = Pid::from_child(child);
    let start = Instant::now();
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    loop {
        match waitid(WaitId::Pid(pid), options) {
            Ok(Some(_)) => return cpu_of(child.id()),
            Ok(None) if start.elapsed() > PATIENCE => {
                let _ = child.kill();
                panic!("a client took longer than {PATIENCE:?}");
            }
            Ok(None) => std::thread::sleep(Duration::from_micros(500)),
            Err(error) => panic!("waitid: {error}"),
        }
    }
}

/// The middle value; of an even number the lower of the two.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
        .get(sorted.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or(f64::NAN)
}
