//! The one writer of the Raft log: takes whatever is waiting, puts it on stable storage with one sync, and says so.

use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, TrySendError};

use crate::base::limit::LOG_SEGMENT_BYTES;
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

/// Appends that already carry so many bytes are synced before more join them, so that they fit into a segment.
const JOINED_BYTES: u64 = LOG_SEGMENT_BYTES / 4;

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
                let mut joined = Joined::of(first);
                // Everything that waits shares this sync.
                for more in work.try_iter() {
                    match more {
                        LogWork::Append(more) if joined.bytes < JOINED_BYTES => joined.add(more),
                        other => {
                            next = Some(other);
                            break;
                        }
                    }
                }
                log.append(joined.hard_state.as_deref(), &joined.entries)?;
                owed = Some(joined.number);
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

/// Appends that share a sync: as one that does what all of them do, in order.
struct Joined {
    hard_state: Option<Vec<u8>>,
    entries: Vec<LogEntry>,
    bytes: u64,
    number: u64,
}

impl Joined {
    fn of(first: Append) -> Self {
        let mut joined = Self {
            hard_state: None,
            entries: Vec::with_capacity(first.entries.len()),
            bytes: 0,
            number: first.number,
        };
        joined.add(first);
        joined
    }

    fn add(&mut self, more: Append) {
        if more.hard_state.is_some() {
            self.hard_state = more.hard_state;
        }
        // It may replace a suffix of what waits before it.
        if let Some(first) = more.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
        }
        for record in more.entries {
            self.bytes += record.bytes.len() as u64;
            self.entries.push(LogEntry {
                index: record.index,
                term: record.term,
                bytes: record.bytes,
            });
        }
        self.number = more.number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::node::LogRecord;

    fn append(number: u64, hard_state: Option<u8>, entries: &[(u64, u64)]) -> Append {
        let record = |(index, term): &(u64, u64)| LogRecord {
            index: *index,
            term: *term,
            bytes: vec![0; 10],
        };
        Append {
            number,
            hard_state: hard_state.map(|byte| vec![byte]),
            entries: entries.iter().map(record).collect(),
        }
    }

    #[test]
    fn appends_that_share_a_sync_leave_what_they_would_have_left_one_by_one() {
        let mut joined = Joined::of(append(1, Some(1), &[(5, 1), (6, 1), (7, 1)]));
        joined.add(append(2, None, &[(8, 1)]));
        joined.add(append(3, Some(2), &[(6, 2), (7, 2)]));
        joined.add(append(4, None, &[]));
        let left: Vec<_> = joined.entries.iter().map(|e| (e.index, e.term)).collect();
        assert_eq!(left, [(5, 1), (6, 2), (7, 2)]);
        assert_eq!(joined.hard_state, Some(vec![2]));
        assert_eq!((joined.number, joined.bytes), (4, 60));
    }
}
