//! The one writer of the Raft log: takes whatever is waiting, puts it on stable storage with one sync, and says so.

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
        /// The number to answer with; `None` when nobody waits.
        number: Option<u64>,
    },
}

/// Runs until the queue is closed. Any error is final: the log is not to be trusted after a failed sync (rule R15).
pub fn run(
    mut log: RaftLog<RealDisk>,
    work: &Receiver<LogWork>,
    events: &Sender<Event>,
) -> Result<(), LogError> {
    let mut next = work.recv();
    while let Some(first) = next.take() {
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
                            // It may replace a suffix of what waits before it.
                            if let Some(first) = more.entries.first() {
                                entries.retain(|entry| entry.index < first.index);
                            }
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
                let _ = events.send(Event::Persisted { number });
            }
            LogWork::Cut(base) => log.cut(base)?,
            LogWork::Reset {
                base,
                hard_state,
                number,
            } => {
                log.reset(base, &hard_state)?;
                if let Some(number) = number {
                    let _ = events.send(Event::Persisted { number });
                }
            }
        }
        if next.is_none() {
            next = work.recv();
        }
    }
    Ok(())
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
