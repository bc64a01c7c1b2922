//! What Raft has ready: to the disk, to the peers, to the catalog, in the order that keeps the promise.

use protobuf::Message as _;
use raft::RawNode;
use raft::eraftpb::{ConfChange, ConfChangeV2, Entry, EntryType, HardState, Message, Snapshot};

use super::{Consensus, Progressed};
use crate::base::canary::{self, Canary};
use crate::base::id::NodeId;
use crate::core::log::Log;
use crate::core::node::{Append, Effect, Fatal, Level, LogRecord};
use crate::core::turn::Turn;
use crate::wire::peer::{Message as PeerMessage, SnapshotHead};

/// Appended to the log, not yet known to be on disk.
pub(super) struct UnderWay {
    /// Number of the last effect.
    pub(super) number: u64,
    /// Number of the last ready that it covers.
    pub(super) ready: u64,
    /// Term and vote that it puts on disk.
    pub(super) vote: Option<(u64, u64)>,
    /// The snapshot that it installs.
    pub(super) installed: Option<SnapshotHead>,
    /// What may be said then.
    pub(super) messages: Vec<Message>,
}

/// What this turn will hand to the disk.
#[derive(Default)]
pub(super) struct Staged {
    pub(super) install: Option<SnapshotHead>,
    pub(super) hard_state: Option<HardState>,
    pub(super) entries: Vec<Entry>,
    pub(super) ready: u64,
    pub(super) messages: Vec<Message>,
}

impl Staged {
    pub(super) fn is_empty(&self) -> bool {
        self.install.is_none() && self.hard_state.is_none() && self.entries.is_empty()
    }
}

impl Consensus {
    /// The disk has everything up to this number. The head of a snapshot when one is in place by that.
    pub fn persisted(&mut self, turn: &mut Turn<'_>, number: u64) -> Option<SnapshotHead> {
        let mut ready = None;
        let mut installed = None;
        while let Some(done) = self.under_way.pop_front_if(|front| front.number <= number) {
            ready = Some(done.ready);
            if let Some(vote) = done.vote {
                self.durable_vote = vote;
            }
            if let Some(head) = done.installed {
                installed = Some(head);
            }
            Self::send(turn, done.messages);
        }
        if let Some(ready) = ready.filter(|_| !canary::is(Canary::ForgetLightReady)) {
            self.with(|raw| raw.on_persist_ready(ready));
        }
        if let Some(head) = &installed {
            let index = head.index;
            self.snapshot = index;
            self.head = head.clone();
            self.with(|raw| {
                raw.mut_store().set_applied(head.clone());
                raw.advance_apply_to(index);
            });
        }
        installed
    }

    /// Whether [`Consensus::advance`] has something to do.
    pub fn has_more(&self) -> bool {
        self.raw.has_ready()
    }

    /// Works off what Raft has ready; `None` when there is nothing. Commands must be applied before the next call.
    pub fn advance(&mut self, turn: &mut Turn<'_>) -> Result<Option<Progressed>, Fatal> {
        if !self.raw.has_ready() {
            return Ok(None);
        }
        let mut ready = self.raw.ready();
        let mut free = ready.take_messages();
        let mut bound = ready.take_persisted_messages();
        let entries = ready.take_entries();
        let committed = ready.take_committed_entries();
        let read_states = ready.take_read_states();
        let number = ready.number();

        if !ready.snapshot().is_empty() {
            let head = head_of(ready.snapshot());
            self.raw.mut_store().reset(&head);
            self.staged.entries.clear();
            self.staged.install = Some(head);
        }
        if let Some(first) = entries.first() {
            self.staged.entries.retain(|e| e.index < first.index);
            self.raw.mut_store().append(&entries);
            self.staged.entries.extend(entries);
        }
        let state = self.raw.raft.hard_state();
        if ready.must_sync() && state != self.written {
            self.staged.hard_state = Some(state.clone());
            self.written.clone_from(&state);
        }
        self.with(|raw| raw.advance_append_async(ready));

        if (state.term, state.vote) != self.durable_vote {
            bound.append(&mut free);
        }
        self.note_snapshots(turn.mono(), &free);
        Self::send(turn, free);
        if !self.staged.is_empty() {
            self.staged.ready = number;
            self.staged.messages.append(&mut bound);
        } else if let Some(last) = self.under_way.back_mut() {
            last.ready = number;
            last.messages.append(&mut bound);
        } else {
            self.with(|raw| raw.on_persist_ready(number));
            Self::send(turn, bound);
        }

        let mut progressed = Progressed {
            reads: read_states
                .iter()
                .filter_map(|state| {
                    let number = state.request_ctx.get(10..18)?;
                    Some((u64::from_be_bytes(number.try_into().ok()?), state.index))
                })
                .collect(),
            ..Progressed::default()
        };
        self.apply(committed, &mut progressed)?;
        Ok(Some(progressed))
    }

    /// Sorts committed entries into commands for the catalog and changes of the configuration, which take effect here.
    fn apply(&mut self, committed: Vec<Entry>, into: &mut Progressed) -> Result<(), Fatal> {
        let Some((index, term)) = committed.last().map(|last| (last.index, last.term)) else {
            return Ok(());
        };
        assert_eq!(
            committed.first().map(|first| first.index),
            Some(self.head.index + 1),
            "entries are applied once and in order"
        );
        for entry in committed {
            let (at, of) = (entry.index, entry.term);
            match entry.get_entry_type() {
                EntryType::EntryNormal if entry.data.is_empty() => {}
                EntryType::EntryNormal => into.commands.push((entry.index, entry.data.to_vec())),
                EntryType::EntryConfChange => {
                    let change = ConfChange::parse_from_bytes(&entry.data).map_err(|error| {
                        Fatal::Damaged(format!("change at {} does not parse: {error}", entry.index))
                    })?;
                    self.reconfigured(|raw| raw.apply_conf_change(&change));
                    into.changes.push(self.head_at(at, of));
                }
                EntryType::EntryConfChangeV2 => {
                    let change = ConfChangeV2::parse_from_bytes(&entry.data).map_err(|error| {
                        Fatal::Damaged(format!("change at {} does not parse: {error}", entry.index))
                    })?;
                    self.reconfigured(|raw| raw.apply_conf_change(&change));
                    into.changes.push(self.head_at(at, of));
                }
            }
        }
        into.moved = true;
        self.head.index = index;
        self.head.term = term;
        let head = self.head.clone();
        self.with(|raw| {
            raw.mut_store().set_applied(head);
            raw.advance_apply_to(index);
        });
        Ok(())
    }

    /// The configuration as it is now, at an entry.
    fn head_at(&self, index: u64, term: u64) -> SnapshotHead {
        SnapshotHead {
            index,
            term,
            ..self.head.clone()
        }
    }

    /// A change that cannot be made is the same no change on every node.
    fn reconfigured(
        &mut self,
        change: impl FnOnce(&mut RawNode<Log>) -> raft::Result<raft::eraftpb::ConfState>,
    ) {
        if let Ok(state) = self.with(change) {
            let mut voters = state.get_voters().to_vec();
            let mut learners = state.get_learners().to_vec();
            voters.sort_unstable();
            learners.sort_unstable();
            self.head.voters = voters;
            self.head.learners = learners;
        }
    }

    /// Hands to the disk what this turn has gathered. Called once, at its end.
    pub fn seal(&mut self, turn: &mut Turn<'_>) -> Result<(), Fatal> {
        if self.staged.is_empty() {
            assert!(self.staged.messages.is_empty());
            return Ok(());
        }
        let staged = std::mem::take(&mut self.staged);
        let encode = |state: &HardState| {
            state
                .write_to_bytes()
                .map_err(|error| Fatal::Damaged(format!("hard state: {error}")))
        };
        if let Some(head) = &staged.install {
            self.number += 1;
            turn.install(Effect::InstallSnapshot {
                head: head.clone(),
                hard_state: encode(&self.written)?,
                number: self.number,
            });
        }
        let installs = staged.install.is_some();
        let bare_install = installs && staged.entries.is_empty();
        if !bare_install {
            let mut hard_state = staged.hard_state;
            let state = self.raw.raft.hard_state();
            if state != self.written {
                // Only the commit index can differ: it rides along.
                self.written.clone_from(&state);
                hard_state = Some(state);
            }
            let records: Result<Vec<_>, _> = staged.entries.iter().map(record).collect();
            self.number += 1;
            turn.log(Effect::Append(Append {
                number: self.number,
                hard_state: hard_state.as_ref().map(encode).transpose()?,
                entries: records?,
            }));
        }
        self.under_way.push_back(UnderWay {
            number: self.number,
            ready: staged.ready,
            vote: Some((self.written.term, self.written.vote)),
            installed: staged.install,
            messages: staged.messages,
        });
        if canary::is(Canary::AcknowledgeBeforeSync) && !installs {
            self.persisted(turn, self.number);
        }
        Ok(())
    }

    fn send(turn: &mut Turn<'_>, messages: Vec<Message>) {
        for message in messages {
            let Some(to) = NodeId::from_raft(message.to) else {
                continue;
            };
            match message.write_to_bytes() {
                Ok(bytes) => turn.send(to, PeerMessage::Raft { bytes }),
                Err(error) => turn.say(Level::Error, "raft_message_bad", error.to_string()),
            }
        }
    }
}

fn head_of(snapshot: &Snapshot) -> SnapshotHead {
    let metadata = snapshot.get_metadata();
    let state = metadata.get_conf_state();
    let mut head = SnapshotHead {
        index: metadata.index,
        term: metadata.term,
        voters: state.get_voters().to_vec(),
        learners: state.get_learners().to_vec(),
    };
    head.voters.sort_unstable();
    head.learners.sort_unstable();
    head
}

fn record(entry: &Entry) -> Result<LogRecord, Fatal> {
    let bytes = entry
        .write_to_bytes()
        .map_err(|error| Fatal::Damaged(format!("entry {}: {error}", entry.index)))?;
    Ok(LogRecord {
        index: entry.index,
        term: entry.term,
        bytes,
    })
}
