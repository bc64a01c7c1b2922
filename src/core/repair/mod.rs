//! Paying debts: objects whose copies count on fewer nodes than wanted get copies on others, by order of the leader, fewest copies first;
//! and copies beyond what is wanted go.
//!
//! Nothing here needs to survive: what a lost leader had ordered is found again in the tables `debts` and `surplus`, and an
//! order that is carried out twice adds a copy that is there already.

mod absences;
mod balance;
mod debts;
mod jobs;
mod place;
mod progress;
mod surplus;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::catalog::{counting, query};
use super::health::Health;
use super::node::Level;
use crate::base::digest::Sha256;
use crate::base::id::{Boot, DirId, NodeId};
use crate::base::limit::JOB_QUEUE;
use crate::base::table::{TableError, Tables};
use crate::base::time::Mono;
use crate::wire::command::Operation;
use crate::wire::peer::{Fetch, JobId};
use crate::wire::record::{Administrative, NodeRecord, ObjectRecord};

use absences::Absences;
use balance::Balance;
use debts::Debts;
use jobs::{Ended, Job, Jobs};
use place::{Chosen, Places};
use progress::Meter;
pub use progress::Progress;
use surplus::Surplus;

/// Time between two looks at debts and surplus.
const PERIOD: Duration = Duration::from_millis(500);
/// A look ahead of time, when all that was found is ordered, comes no sooner than this after the last event.
const SOON: Duration = Duration::from_millis(20);
/// Objects that one tick looks up at most.
const LOOKUPS: usize = 512;

/// How repair goes about it.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Seed of the jitter between attempts.
    pub seed: u64,
    /// How long a node may be dead before its copies count no more.
    pub grace: Duration,
    /// Copies a node takes in at the same time, at least 1.
    pub incoming: usize,
    /// Copies a node gives out at the same time, at least 1.
    pub outgoing: usize,
    /// Bytes a second that a node takes in at most; 0 for any number.
    pub bandwidth: u64,
    /// How long a copy that was dropped stays on its disk.
    pub lingers: Duration,
}

/// What a tick asks for.
#[derive(Debug, Default)]
pub struct Work {
    /// Orders, each for the node beside it.
    pub orders: Vec<(NodeId, Fetch)>,
    /// To be proposed.
    pub operations: Vec<Operation>,
    /// To be said in the log.
    pub says: Vec<(Level, &'static str, String)>,
}

/// Copy jobs under way and to come.
#[derive(Debug)]
pub struct Repair {
    settings: Settings,
    /// The term in which this node leads.
    term: Option<u64>,
    absences: Absences,
    debts: Debts,
    jobs: Jobs,
    surplus: Surplus,
    balance: Balance,
    meter: Meter,
    /// The members as of the last tick, as far as they matter here.
    members: Vec<Standing>,
    /// When they last changed.
    turned: Mono,
    next_look: Mono,
    /// Something changed since jobs were last given.
    stirred: bool,
}

/// What matters of a member.
type Standing = (NodeId, Boot, bool, bool, Administrative, Vec<DirId>);

impl Repair {
    /// Nothing under way.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            term: None,
            absences: Absences::default(),
            debts: Debts::default(),
            jobs: Jobs::new(&settings),
            surplus: Surplus::default(),
            balance: Balance::default(),
            meter: Meter::default(),
            members: Vec::new(),
            turned: Mono::default(),
            next_look: Mono::default(),
            stirred: false,
        }
    }

    /// How it goes on: zero where this node does not lead.
    pub fn progress(&self) -> Progress {
        Progress {
            jobs: self.jobs.len() as u64,
            queued: self.debts.found() as u64,
            ..self.meter.progress()
        }
    }

    /// Time passed: what is to be done now. Nothing unless this node leads in `term_if_leading`.
    pub fn tick(
        &mut self,
        now: Mono,
        term_if_leading: Option<u64>,
        tables: &dyn Tables,
        health: &Health,
    ) -> Result<Work, TableError> {
        let mut work = Work::default();
        if term_if_leading != self.term {
            *self = Self {
                term: term_if_leading,
                next_look: now,
                turned: now,
                ..Self::new(self.settings)
            };
        }
        let Some(term) = self.term else {
            return Ok(work);
        };
        if self.deadline().is_some_and(|deadline| now < deadline) {
            return Ok(work);
        }
        let members = query::nodes(tables)?;
        self.notice(&members, now);
        self.jobs.end_lost(now, &members, health);
        self.settle_ended(now);
        self.stirred = false;
        let grace = self.settings.grace;
        self.absences.tick(now, &members, grace, &mut work);
        self.absences.recount(now, tables, &mut work)?;
        if self.next_look <= now {
            self.debts.look(tables)?;
            self.next_look = now + PERIOD;
            self.jobs.forget_rests(now);
        }
        self.order(now, term, tables, &members, health, &mut work)?;
        let calm = now >= self.turned + self.settings.grace.max(Duration::from_secs(1));
        self.surplus
            .tick(now, calm, tables, &members, health, &mut work)?;
        let idle = calm && query::debts(tables)? == 0 && !counting::is_recounting(tables)?;
        if self.balance.is_due(now, idle) {
            self.relieve(now, term, tables, &members, health, &mut work)?;
        }
        let under_way = self.jobs.len() > 0 || !work.orders.is_empty();
        let debts = (query::debts(tables)?, query::debt_bytes(tables)?);
        self.meter.tick(now, under_way, debts, &mut work);
        Ok(work)
    }

    /// The link to a node came up: what failed may go well now.
    pub fn linked(&mut self, now: Mono) {
        self.jobs.relieve(now);
        self.stirred = true;
    }

    /// The link to a node is down: orders may be lost on their way to it, or with it. They are given again, later.
    pub fn unlinked(&mut self, node: NodeId, now: Mono) {
        self.jobs.end_all(now, |job| job.target == node);
        self.settle_ended(now);
    }

    /// A job ended: its copy is durable and being committed, or it failed. Jobs of other leaders are none of ours.
    #[allow(clippy::needless_pass_by_value)]
    pub fn ended(&mut self, job: JobId, error: Option<String>, now: Mono) {
        let how = if error.is_some() {
            Ended::Failed
        } else {
            Ended::Done
        };
        if let Some(job) = self.jobs.end(job, how, now)
            && how == Ended::Done
        {
            self.meter.made(job.size);
        }
        self.settle_ended(now);
    }

    /// When [`Repair::tick`] should be called at the latest, while this node leads.
    pub fn deadline(&self) -> Option<Mono> {
        self.term?;
        if self.stirred {
            return Some(Mono::default());
        }
        let next = self.next_look.min(self.surplus.deadline());
        let next = next.min(self.balance.deadline());
        let others = self.absences.deadline();
        Some(others.map_or(next, |other| other.min(next)))
    }

    /// Jobs ended: others may begin.
    fn settle_ended(&mut self, now: Mono) {
        if self.jobs.take_ended() {
            self.stirred = true;
            if self.debts.found() == 0 {
                self.next_look = self.next_look.min(now + SOON);
            }
        }
    }

    /// Members that came, went or changed make new things possible, and put off the dropping of copies.
    fn notice(&mut self, members: &[NodeRecord], now: Mono) {
        let standing = |member: &NodeRecord| {
            let (alive, lost) = (member.alive, member.lost);
            let (state, dirs) = (member.administrative, member.dirs.clone());
            (member.id, member.boot, alive, lost, state, dirs)
        };
        let standings: Vec<Standing> = members.iter().map(standing).collect();
        if standings != self.members {
            self.members = standings;
            self.turned = now;
            self.next_look = now;
            self.jobs.relieve(now);
            self.debts.begin_anew();
            self.surplus.begin_anew(now);
        }
    }

    fn order(
        &mut self,
        now: Mono,
        term: u64,
        tables: &dyn Tables,
        members: &[NodeRecord],
        health: &Health,
        work: &mut Work,
    ) -> Result<(), TableError> {
        if self.debts.found() == 0 {
            return Ok(());
        }
        let discounts = counting::discounts(tables)?;
        let mut places = Places::new(&self.settings, members, &discounts, health, &self.jobs);
        let mut looked = 0;
        for found in self.debts.first(LOOKUPS) {
            if self.jobs.len() >= JOB_QUEUE || places.are_taken() {
                break;
            }
            let (_, sha256) = found;
            if self.jobs.is_under_way(&sha256) {
                self.debts.remove(&found);
                continue;
            }
            looked += 1;
            let object = query::object(tables, &sha256)?;
            let Some(object) = object.filter(|object| self.is_due(&sha256, object, now)) else {
                self.debts.remove(&found);
                continue;
            };
            let avoid = self.jobs.last_target(&sha256);
            match places.choose(&object, avoid, |_| true) {
                // Nobody to copy to or from: it is found again when the turn comes to it.
                place::Choice::None => self.debts.remove(&found),
                place::Choice::Later => {}
                place::Choice::Of(choice) => {
                    self.debts.remove(&found);
                    self.begin(now, term, sha256, object.size, choice, work);
                }
            }
        }
        // Nothing found can be helped: what comes behind it is looked at soon.
        if looked > 0 && self.debts.found() == 0 && self.debts.has_more() {
            self.next_look = self.next_look.min(now + SOON);
        }
        Ok(())
    }

    /// Moves objects off full nodes.
    fn relieve(
        &mut self,
        now: Mono,
        term: u64,
        tables: &dyn Tables,
        members: &[NodeRecord],
        health: &Health,
        work: &mut Work,
    ) -> Result<(), TableError> {
        let discounts = counting::discounts(tables)?;
        let mut places = Places::new(&self.settings, members, &discounts, health, &self.jobs);
        let chosen = self.balance.look(
            now,
            self.settings.lingers,
            self.jobs.len(),
            tables,
            members,
            &discounts,
            health,
            &mut places,
            work,
        )?;
        for (sha256, size, choice) in chosen {
            self.begin(now, term, sha256, size, choice, work);
        }
        Ok(())
    }

    fn begin(
        &mut self,
        now: Mono,
        term: u64,
        sha256: Sha256,
        size: u64,
        choice: Chosen,
        work: &mut Work,
    ) {
        let job = Job {
            sha256,
            size,
            holders: choice.holders.clone(),
            target: choice.target,
            boot: choice.boot,
            until: now,
        };
        let fetch = Fetch {
            job: self.jobs.begin(term, job, now),
            sha256,
            size,
            holders: choice.holders,
        };
        work.orders.push((choice.target, fetch));
    }

    /// Whether an object needs a copy and need not rest.
    fn is_due(&mut self, sha256: &Sha256, object: &ObjectRecord, now: Mono) -> bool {
        if object.owed.is_none() || object.copies.is_empty() {
            self.jobs.forget_rest(sha256);
            return false;
        }
        self.jobs.is_rested(sha256, object, now)
    }
}
