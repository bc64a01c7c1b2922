//! The verbs, carried out: what doors ask of this node.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::base::id::{NodeId, Version};
use crate::base::limit::MODE_AHEAD;
use crate::base::path::FilePath;
use crate::base::table::TableError;
use crate::core::catalog::query;
use crate::core::holdings::obstacle;
use crate::core::mode;
use crate::core::node::Report;
use crate::engine::shared::{Engine, tables_failed};
use crate::engine::verbs::{
    Content, Drained, Failure, Kept, Listing, Member, Put, Repair, Stat, Status, Verbs,
};
use crate::engine::{census, clock, content, put};
use crate::store::objects::Durability;
use crate::wire::admin::Overview;
use crate::wire::command::{Code, Expect, Operation};
use crate::wire::record::{Administrative, Mode, ModeRecord, NodeRecord};

/// The door's way into the engine.
#[derive(Clone)]
pub struct Handle(pub Arc<Engine>);

impl Handle {
    fn born(&self) -> Result<(), Failure> {
        let report = self.0.report();
        if report.born {
            return Ok(());
        }
        let why = report
            .waiting
            .unwrap_or_else(|| "this node is not a member yet".to_owned());
        Err(Failure::refused(Code::Unavailable, why))
    }

    fn mode_or_start(&self) -> Result<ModeRecord, TableError> {
        if self.0.report().born {
            query::mode(&self.0.tables)
        } else {
            Ok(self.start_mode())
        }
    }

    /// Before the cluster is born: the first mode of the order.
    fn start_mode(&self) -> ModeRecord {
        let first = self.0.settings.modes.first().copied().unwrap_or(Mode::None);
        ModeRecord {
            old: first,
            new: first,
            timestamp: 0,
            cause: "start".to_owned(),
        }
    }

    fn member(&self, record: &NodeRecord) -> Member {
        let (engine, report) = (&self.0, self.0.report());
        let role = if report.leader == Some(record.id) {
            "leader"
        } else if report.voters.contains(&record.id) {
            "voter"
        } else {
            "learner"
        };
        let administrative = match record.administrative {
            Administrative::Alive => "alive",
            Administrative::Readonly => "readonly",
            Administrative::Drain => "drain",
            Administrative::Down => "down",
            Administrative::Dead => "dead",
        };
        let figures = (record.id == engine.node()).then(|| {
            let dirs = engine.objects.dirs();
            let taking = dirs.iter().filter(|dir| !dir.failed);
            (
                taking.map(|dir| dir.free).sum::<u64>(),
                dirs.iter().map(|dir| dir.total).sum::<u64>(),
            )
        });
        Member {
            id: record.id,
            name: record.name.clone(),
            address: record.address.clone(),
            text_address: engine
                .settings
                .member(record.id)
                // Who is not in this file serves every door on one address, unless it says otherwise in its own.
                .map_or_else(|| record.address.clone(), |member| member.text.clone()),
            alive: engine.is_up(record.id) && (record.alive || record.id == engine.node()),
            role: role.to_owned(),
            administrative: administrative.to_owned(),
            free_bytes: figures.map(|figures| figures.0),
            total_bytes: figures.map(|figures| figures.1),
            health: None,
            drained: None,
        }
    }

    /// The members, with what the leader remembers of them, and how far they are drained.
    fn members_in_full(&self, overview: Option<&Overview>) -> Vec<Member> {
        let mut members = self.members();
        for health in overview.into_iter().flat_map(|overview| &overview.nodes) {
            let Some(member) = members.iter_mut().find(|member| member.id == health.node) else {
                continue;
            };
            if let (None, Some(figures)) = (member.free_bytes, &health.figures) {
                member.free_bytes = Some(figures.free_bytes);
                member.total_bytes = Some(figures.total_bytes);
            }
            member.health = Some(health.clone());
        }
        if let Err(failure) = self.drained(&mut members) {
            log::debug!(target: "momo::census", "{failure}");
        }
        members
    }

    fn drained(&self, members: &mut [Member]) -> Result<(), Failure> {
        let engine = &self.0;
        let records = query::nodes(&engine.tables).map_err(tables_failed)?;
        let leaves = |record: &&NodeRecord| record.administrative == Administrative::Drain;
        for record in records.iter().filter(leaves) {
            let counted = census::count(engine, 0)?;
            let held = counted.holdings.get(&record.id).cloned();
            let held = held.unwrap_or_default();
            let why = obstacle(record.id, &records, &engine.report().voters, &held);
            if let Some(member) = members.iter_mut().find(|member| member.id == record.id) {
                member.drained = Some(Drained {
                    needed: held.needed,
                    needed_bytes: held.needed_bytes,
                    safe_to_stop: why.is_none(),
                    why: why.unwrap_or_default(),
                });
            }
        }
        Ok(())
    }
}

/// What this node can do, in a word, and what it waits for.
fn state(report: &Report, is_up: impl Fn(NodeId) -> bool) -> (&'static str, String) {
    let waiting = report.waiting.clone();
    if !report.born {
        return ("starting", waiting.unwrap_or_default());
    }
    if let Some(waiting) = waiting {
        return ("waiting", waiting);
    }
    // Raft believes in a leader for some time yet after its link is gone.
    if let Some(leader) = report.leader.filter(|leader| !is_up(*leader)) {
        let up = report.voters.iter().filter(|voter| is_up(**voter)).count();
        let needed = report.voters.len() / 2 + 1;
        let then = if up < needed {
            format!("{up} of {} voters up, {needed} needed", report.voters.len())
        } else {
            "another is being elected".to_owned()
        };
        let why = format!("the leader (node {leader}) does not answer, {then}");
        return ("waiting", why);
    }
    ("ready", String::new())
}

impl Verbs for Handle {
    fn node(&self) -> NodeId {
        self.0.node()
    }

    fn negotiate(&self, timestamp: u64) -> Mode {
        let current = self.mode_or_start().unwrap_or_else(|_| self.start_mode());
        mode::effective(self.node(), &current, timestamp)
    }

    fn put(&self, request: &Put, body: &mut dyn Read) -> Result<Kept, Failure> {
        self.born()?;
        let _goes_first = self.0.pace.upload();
        put::put(&self.0, request, body)
    }

    fn get(&self, path: &FilePath, version: Option<Version>) -> Result<Box<dyn Content>, Failure> {
        self.born()?;
        content::open(&self.0, path, version)
    }

    fn stat(&self, path: &FilePath) -> Result<Stat, Failure> {
        self.born()?;
        let stale = !self.0.fresh();
        let catalog = self.0.catalog()?;
        let Some(record) = query::file(&catalog, path).map_err(tables_failed)? else {
            return Err(content::absent(stale));
        };
        let mut holders = Vec::with_capacity(record.parts.len());
        for part in &record.parts {
            let object = query::object(&catalog, &part.sha256).map_err(tables_failed)?;
            let mut nodes: Vec<NodeId> = object
                .map(|object| object.copies.iter().map(|copy| copy.node).collect())
                .unwrap_or_default();
            nodes.dedup();
            holders.push(nodes);
        }
        let mut earlier: Vec<Version> = query::history(&catalog, path)
            .map_err(tables_failed)?
            .iter()
            .map(|record| record.version)
            .collect();
        earlier.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Stat {
            record,
            holders,
            earlier,
            stale,
        })
    }

    fn list(&self, prefix: &str, after: &str, limit: usize) -> Result<Listing, Failure> {
        self.born()?;
        let stale = !self.0.fresh();
        let catalog = self.0.catalog()?;
        let mut files =
            query::list(&catalog, prefix, after, limit.saturating_add(1)).map_err(tables_failed)?;
        let more = files.len() > limit;
        files.truncate(limit);
        Ok(Listing { files, more, stale })
    }

    fn remove(&self, path: &FilePath, expect: Expect) -> Result<Version, Failure> {
        self.born()?;
        put::remove(&self.0, path, expect)
    }

    fn mode(&self) -> ModeRecord {
        self.mode_or_start().unwrap_or_else(|_| self.start_mode())
    }

    fn mode_history(&self, limit: usize) -> Result<Vec<ModeRecord>, Failure> {
        self.born()?;
        self.0.fresh();
        query::mode_history(&self.0.catalog()?, limit).map_err(tables_failed)
    }

    fn set_mode(
        &self,
        new: Mode,
        timestamp: Option<u64>,
        cause: &str,
    ) -> Result<ModeRecord, Failure> {
        self.born()?;
        self.0.fresh();
        let current = self.mode_or_start().map_err(tables_failed)?;
        let now = clock::wall().0;
        let ahead = u64::try_from(MODE_AHEAD.as_nanos()).unwrap_or(u64::MAX);
        let timestamp = timestamp.unwrap_or_else(|| now.max(current.timestamp.saturating_add(1)));
        // Rule R19: a clock far ahead would lock the mode for all others.
        if timestamp > now.saturating_add(ahead) {
            let why = "the timestamp is more than 5 minutes ahead of this node's clock";
            return Err(Failure::refused(Code::Invalid, why));
        }
        self.0.commit(Operation::SetMode {
            new,
            timestamp,
            cause: cause.to_owned(),
        })?;
        self.mode_or_start().map_err(tables_failed)
    }

    fn members(&self) -> Vec<Member> {
        let records = query::nodes(&self.0.tables).unwrap_or_default();
        records.iter().map(|record| self.member(record)).collect()
    }

    fn status(&self) -> Status {
        let engine = &self.0;
        let report = engine.report();
        let overview = census::overview(engine);
        let voters_up = report
            .voters
            .iter()
            .filter(|voter| engine.is_up(**voter))
            .count();
        let (mut state, mut detail) = state(&report, |node| engine.is_up(node));
        if state == "ready" && engine.comparing.load(Ordering::Acquire) {
            state = "comparing";
            "what the catalog counts here is compared with an empty directory"
                .clone_into(&mut detail);
        }
        Status {
            node: engine.node(),
            cluster: report.cluster.map(|cluster| cluster.to_string()),
            state: state.to_owned(),
            detail,
            leader: report.leader,
            term: report.term,
            applied: report.applied,
            voters: (voters_up, report.voters.len()),
            members: self.members_in_full(overview.as_ref()),
            mode: self.mode(),
            under_replicated: query::debts(&engine.tables).unwrap_or_default(),
            repair: Repair {
                bytes_left: query::debt_bytes(&engine.tables).unwrap_or_default(),
                recounting: query::is_recounting(&engine.tables).unwrap_or_default(),
                here: engine.jobs.load(Ordering::Relaxed),
                leading: overview
                    .as_ref()
                    .filter(|overview| overview.leads)
                    .map(|overview| overview.repair),
            },
            scrub: Some(engine.scrub.status()),
            connections: engine.connections.load(Ordering::Relaxed),
            durability: match engine.settings.durability {
                Durability::Full => "full",
                Durability::Data => "data",
                Durability::None => "none",
            }
            .to_owned(),
            uptime_s: engine.started.elapsed().as_secs(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::node::Role;
    use crate::engine::verbs::Progress;

    #[test]
    fn a_node_whose_leader_does_not_answer_is_not_ready() {
        let mut report = Report {
            cluster: None,
            born: true,
            role: Role::Follower,
            leader: Some(NodeId(0)),
            term: 2,
            applied: 5,
            committed: 5,
            voters: [0, 1, 2].map(NodeId).to_vec(),
            learners: Vec::new(),
            up: Vec::new(),
            waiting: None,
            snapshot: 0,
            proposals: 0,
            reads: 0,
            repair: Progress::default(),
        };
        let others = |node: NodeId| node != NodeId(0);
        assert_eq!(state(&report, |_| true), ("ready", String::new()));
        let (word, why) = state(&report, others);
        assert_eq!(word, "waiting");
        assert_eq!(
            why,
            "the leader (node 0) does not answer, another is being elected"
        );
        let (word, why) = state(&report, |node| node == NodeId(1));
        assert_eq!(word, "waiting");
        assert!(why.ends_with("1 of 3 voters up, 2 needed"), "{why}");
        report.leader = None;
        report.waiting = Some("no leader".to_owned());
        assert_eq!(state(&report, others), ("waiting", "no leader".to_owned()));
        report.born = false;
        assert_eq!(state(&report, others).0, "starting");
    }
}
