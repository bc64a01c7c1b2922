//! Nodes that are dead for longer than the grace period are given up, and what that changes is counted.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Work;
use crate::base::id::{Boot, NodeId};
use crate::base::table::{TableError, Tables};
use crate::base::time::Mono;
use crate::core::catalog::counting;
use crate::core::node::Level;
use crate::wire::command::Operation;
use crate::wire::record::{Administrative, NodeRecord};

/// Time between two commands that count: a page each, so that others are not kept waiting.
const PACE: Duration = Duration::from_millis(20);
/// A command that has not shown in the catalog is proposed again after this.
const AGAIN: Duration = Duration::from_secs(2);

/// Dead nodes, and the counting that is under way.
#[derive(Debug, Default)]
pub(super) struct Absences {
    /// Since when a start of a node has been dead, and when its end was last proposed.
    dead: BTreeMap<NodeId, (Boot, Mono, Option<Mono>)>,
    /// How far the counting was when the last command was proposed, and when that was.
    counted: Option<(Vec<u8>, Mono)>,
    next: Option<Mono>,
    count_next: Option<Mono>,
}

impl Absences {
    /// Gives up who is dead for longer than `grace`; who is known to be away for a while is waited for.
    pub fn tick(&mut self, now: Mono, members: &[NodeRecord], grace: Duration, work: &mut Work) {
        let waited_for = |member: &&NodeRecord| {
            let state = member.administrative;
            // What has never registered has nothing to be made again.
            !member.alive
                && !member.lost
                && !member.dirs.is_empty()
                && !matches!(state, Administrative::Down | Administrative::Dead)
        };
        let before = std::mem::take(&mut self.dead);
        self.next = None;
        for member in members.iter().filter(waited_for) {
            let known = before
                .get(&member.id)
                .filter(|known| known.0 == member.boot);
            let (boot, since, proposed) = *known.unwrap_or(&(member.boot, now, None));
            let mut entry = (boot, since, proposed);
            let due = proposed.map_or(since + grace, |proposed| proposed + AGAIN);
            if due <= now {
                entry.2 = Some(now);
                let node = member.id;
                work.operations.push(Operation::GiveUp { node, boot });
                if proposed.is_none() && member.stores {
                    let seconds = grace.as_secs_f32();
                    let text = format!(
                        "node {node} has been dead for {seconds} s: its copies are made again elsewhere"
                    );
                    work.says.push((Level::Warn, "node_given_up", text));
                }
            }
            let next = if due <= now { now + AGAIN } else { due };
            self.next = Some(self.next.map_or(next, |known| known.min(next)));
            self.dead.insert(member.id, entry);
        }
    }

    /// Has the next objects counted, while any are to be.
    pub fn recount(
        &mut self,
        now: Mono,
        tables: &dyn Tables,
        work: &mut Work,
    ) -> Result<(), TableError> {
        let Some(place) = counting::place(tables)? else {
            self.counted = None;
            self.count_next = None;
            return Ok(());
        };
        let due = match &self.counted {
            None => now,
            Some((before, at)) if *before == place => *at + AGAIN,
            Some((_, at)) => *at + PACE,
        };
        if due <= now {
            work.operations.push(Operation::Recount);
            self.counted = Some((place, now));
        }
        self.count_next = Some(now + PACE);
        Ok(())
    }

    /// When to look again.
    pub fn deadline(&self) -> Option<Mono> {
        [self.next, self.count_next].into_iter().flatten().min()
    }
}
