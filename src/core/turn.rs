//! One turn's work: the tables as they will be after it, and its effects, sorted into the order in which they must be carried out.

use std::collections::VecDeque;

use super::node::{Answered, Effect, Level};
use crate::base::id::{NodeId, Ticket};
use crate::base::table::{Overlay, Tables};
use crate::base::time::{Mono, Now};
use crate::wire::peer::Message;

/// What a turn has gathered so far.
pub struct Turn<'a> {
    /// Both clocks, the same for the whole turn.
    pub now: Now,
    /// The tables with this turn's changes.
    pub tables: Overlay<'a>,
    /// What must be remembered before anything else happens.
    first: Vec<Effect>,
    /// Messages that say nothing about this turn's writes.
    sends: Vec<Effect>,
    /// A snapshot to put in place of the tables.
    install: Option<Effect>,
    /// What goes to the log.
    log: Vec<Effect>,
    /// What depends on the write of the tables: answers, orders, checkpoints.
    last: Vec<Effect>,
}

impl<'a> Turn<'a> {
    /// A turn that begins now upon these tables.
    pub fn new(now: Now, tables: &'a dyn Tables) -> Self {
        Self {
            now,
            tables: Overlay::new(tables),
            first: Vec::new(),
            sends: Vec::new(),
            install: None,
            log: Vec::new(),
            last: Vec::new(),
        }
    }

    /// The monotonic clock.
    pub const fn mono(&self) -> Mono {
        self.now.mono
    }

    /// To be done before everything else of this turn.
    pub fn first(&mut self, effect: Effect) {
        self.first.push(effect);
    }

    /// To be sent at once.
    pub fn send(&mut self, to: NodeId, message: Message) {
        self.sends.push(Effect::Send { to, message });
    }

    /// To be put in place of the tables. What this turn changed in them before is part of it.
    pub fn install(&mut self, effect: Effect) {
        assert!(self.install.is_none(), "two snapshots in a turn");
        self.tables.batch.changes.clear();
        self.install = Some(effect);
    }

    /// To be done to the log, after the tables are written.
    pub fn log(&mut self, effect: Effect) {
        self.log.push(effect);
    }

    /// To be done when the tables are written and the log is under way.
    pub fn last(&mut self, effect: Effect) {
        self.last.push(effect);
    }

    /// To be sent when the tables are written.
    pub fn send_last(&mut self, to: NodeId, message: Message) {
        self.last.push(Effect::Send { to, message });
    }

    /// Answers a thread, when the tables are written.
    pub fn answer(&mut self, ticket: Ticket, answer: Answered) {
        self.last.push(Effect::Answer { ticket, answer });
    }

    /// Says something in the log for people.
    pub fn say(&mut self, level: Level, event: &'static str, text: impl Into<String>) {
        let text = text.into();
        self.last.push(Effect::Say { level, event, text });
    }

    /// The effects in order.
    pub fn finish(self, effects: &mut VecDeque<Effect>) {
        effects.extend(self.first);
        effects.extend(self.sends);
        effects.extend(self.install);
        let batch = self.tables.batch;
        if !batch.is_empty() {
            effects.push_back(Effect::Write(batch));
        }
        effects.extend(self.log);
        effects.extend(self.last);
    }
}
