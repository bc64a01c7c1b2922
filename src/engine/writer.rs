//! The one writer of the Raft log: takes whatever is waiting, puts it on stable storage with one sync, and says so.

use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, TrySendError};

use crate::core::node::{Append, Event};
use crate::engine::queue::{Receiver, Sender};
use crate::store::disk::RealDisk;
use crate::store::log::{LogBase, LogEntry, LogError, RaftLog};

/// Work for the log.
#[derive(Debug)]
pub enum LogWork {
    /// Append and sync; answered by [`Event::Persisted`].
    Append(Append),
    /// Forget a prefix.
    Cut(LogBase),
    /// Start anew behind a snapshot; answered by [`Event::Persisted`].
    Reset {
        /// Where the log starts.
        base: LogBase,
        /// The hard state to keep.
        hard_state: Vec<u8>,
        /// The number to answer with.
        number: u64,
    },
    /// Start anew with nothing; answered on the channel once that is durable.
    Forget(Sender<()>),
}

/// How often an answer is tried again that the driver's queue had no room for.
const AGAIN: Duration = Duration::from_millis(5);

/// Runs until the queue is closed. Any error is final: the log is not to be trusted after a failed sync (rule R15).
///
/// The writer never waits for the driver: the driver may be waiting for room in `work`, and each would wait for the
/// other. A number stands for all before it, so an answer that finds the driver's queue full is merged with the next.
pub fn run(
    mut log: RaftLog<RealDisk>,
    work: &Receiver<LogWork>,
    events: &Sender<Event>,
) -> Result<(), LogError> {
    let mut owed: Option<u64> = None;
    let mut next: Option<LogWork> = None;
    loop {
        if let Some(number) = owed
            && !matches!(
                events.try_send(Event::Persisted { number }),
                Err(TrySendError::Full(_))
            )
        {
            owed = None;
        }
        let first = match (next.take(), owed) {
            (Some(first), _) => first,
            (None, Some(_)) => match work.recv_timeout(AGAIN) {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            },
            (None, None) => match work.recv() {
                Some(first) => first,
                None => return Ok(()),
            },
        };
        match first {
            LogWork::Append(first) => {
                let mut hard_state = first.hard_state;
                let mut entries = entries(first.entries);
                let mut number = first.number;
                // Everything that waits shares this sync.
                for more in work.try_iter() {
                    match more {
                        LogWork::Append(more) => {
                            hard_state = more.hard_state.or(hard_state);
                            entries.extend(self::entries(more.entries));
                            number = more.number;
                        }
                        other => {
                            next = Some(other);
                            break;
                        }
                    }
                }
                log.append(hard_state.as_deref(), &entries)?;
                owed = Some(number);
            }
            LogWork::Cut(base) => log.cut(base)?,
            LogWork::Reset {
                base,
                hard_state,
                number,
            } => {
                log.reset(base, &hard_state)?;
                owed = Some(number);
            }
            LogWork::Forget(done) => {
                log.reset(LogBase { index: 0, term: 0 }, &[])?;
                let _ = done.try_send(());
            }
        }
    }
}

fn entries(records: Vec<crate::core::node::LogRecord>) -> Vec<LogEntry> {
    records
        .into_iter()
        .map(|record| LogEntry {
            index: record.index,
            term: record.term,
            bytes: record.bytes,
        })
        .collect()
}
