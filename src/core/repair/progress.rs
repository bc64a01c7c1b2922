//! How repair goes on: figures for the status, and a few lines in the log.

use std::time::Duration;

use super::Work;
use crate::base::time::Mono;
use crate::core::node::Level;
pub use crate::wire::admin::Progress;

/// Time between two lines about the same.
const SAY: Duration = Duration::from_secs(10);
/// The pace is taken over at least this.
const WINDOW: Duration = Duration::from_secs(2);

/// Counts what is done.
#[derive(Debug, Default)]
pub(super) struct Meter {
    copies: u64,
    bytes: u64,
    pace: u64,
    /// When the pace was last taken, and the bytes then.
    taken: Option<(Mono, u64)>,
    run: Option<Run>,
    /// When the beginning of a run was last said.
    began: Option<Mono>,
}

/// From the first order to the moment when nothing is owed.
#[derive(Debug)]
struct Run {
    since: Mono,
    copies: u64,
    bytes: u64,
    /// When something was last said of it; `None` when it is not spoken of.
    said: Option<Mono>,
}

impl Meter {
    /// A copy was made.
    pub fn made(&mut self, bytes: u64) {
        self.copies += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// The figures known here.
    pub fn progress(&self) -> Progress {
        Progress {
            copies_done: self.copies,
            bytes_done: self.bytes,
            bytes_per_s: self.pace,
            ..Progress::default()
        }
    }

    /// Time passed. `debts` are objects and bytes owed.
    pub fn tick(&mut self, now: Mono, under_way: bool, debts: (u64, u64), work: &mut Work) {
        self.take_pace(now);
        let (objects, bytes) = debts;
        let Some(run) = &mut self.run else {
            if under_way {
                let speaks = self.began.is_none_or(|began| now - began >= SAY);
                if speaks {
                    self.began = Some(now);
                    let text = format!("{objects} objects lack copies, {bytes} bytes");
                    work.says.push((Level::Info, "repair_started", text));
                }
                self.run = Some(Run {
                    since: now,
                    copies: self.copies,
                    bytes: self.bytes,
                    said: speaks.then_some(now),
                });
            }
            return;
        };
        let (copies, done) = (self.copies - run.copies, self.bytes - run.bytes);
        if objects == 0 && !under_way {
            if run.said.is_some() {
                let seconds = (now - run.since).as_secs_f32();
                let text = format!("{copies} copies, {done} bytes in {seconds:.1} s");
                work.says.push((Level::Info, "repair_done", text));
            }
            self.run = None;
        } else if now - run.said.unwrap_or(run.since) >= SAY {
            run.said = Some(now);
            let pace = self.pace;
            let text = format!(
                "{copies} copies made, {done} bytes; {objects} objects lack copies, {bytes} bytes; {pace} bytes/s"
            );
            work.says.push((Level::Info, "repair_progress", text));
        }
    }

    fn take_pace(&mut self, now: Mono) {
        let Some((at, bytes)) = self.taken else {
            self.taken = Some((now, self.bytes));
            return;
        };
        let elapsed = now - at;
        if elapsed >= WINDOW {
            let done = u128::from(self.bytes - bytes) * 1_000_000;
            let pace = done / elapsed.as_micros().max(1);
            self.pace = u64::try_from(pace).unwrap_or(u64::MAX);
            self.taken = Some((now, self.bytes));
        }
    }
}
