//! Who answers: signs of life in, verdicts for the catalog out. The verdicts of the leader count; the others only know.

use std::collections::BTreeMap;
use std::time::Duration;

use super::catalog::query;
use super::node::{Level, LinkState};
use crate::base::id::{Boot, NodeId};
use crate::base::table::{TableError, Tables};
use crate::base::time::Mono;
use crate::wire::admin::NodeHealth;
use crate::wire::command::Operation;
use crate::wire::peer::Figures;
use crate::wire::record::NodeRecord;

/// A verdict that has not shown in the catalog is proposed again after this, or after a heartbeat interval if longer.
const AGAIN: Duration = Duration::from_millis(200);
/// A node whose refused connection was refused again is dead after so long without a sign of life, or a tenth of the
/// timeout if that is shorter: a restart is not a death.
const SETTLE: Duration = Duration::from_secs(1);
/// A node that stayed up for so many timeouts is steady again.
const STEADY: u32 = 4;
/// A node that keeps coming and going waits at most so many heartbeat intervals before it counts as back.
const FLAPS: u32 = 4;

/// How health is judged.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// This node: always up to itself.
    pub node: NodeId,
    /// Time between two heartbeats of a node.
    pub interval: Duration,
    /// A node that gave no sign of life for so long is dead.
    pub timeout: Duration,
}

/// What this node knows of the others' health.
#[derive(Debug)]
pub struct Health {
    settings: Settings,
    peers: BTreeMap<NodeId, Peer>,
    /// The latest moment heard of.
    now: Mono,
    /// Since when this node leads.
    leading: Option<Mono>,
    deadline: Option<Mono>,
    /// What is to be said in the log.
    remarks: Vec<Remark>,
}

/// How important, the event's name, one line.
pub type Remark = (Level, &'static str, String);

#[derive(Debug, Default)]
struct Peer {
    /// The start its heartbeats are of; `None` before the first.
    boot: Option<Boot>,
    figures: Option<Figures>,
    /// The last sign of life.
    heard: Option<Mono>,
    linked: bool,
    suspicion: Option<Suspicion>,
    /// The last verdict proposed, and when.
    proposed: Option<(bool, Boot, Mono)>,
    /// Judged dead and not heard of since.
    dead: bool,
    /// When it was last found alive or dead.
    changed: Option<Mono>,
    /// Heartbeats of the present silence that are known to be missed.
    missed: u32,
    /// Since when it answers without being judged dead in between.
    steady_since: Mono,
    /// Times in a row that it died soon after coming back.
    flaps: u32,
}

/// A link that was lost or refused.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    since: Mono,
    /// Without a sign of life until then it is dead.
    until: Mono,
}

impl Peer {
    fn sign_of_life(&mut self, now: Mono) {
        self.heard = Some(now);
        self.suspicion = None;
        self.missed = 0;
        if self.dead {
            self.dead = false;
            self.changed = Some(now);
            self.steady_since = now;
        }
    }

    fn is_condemned(&self, now: Mono) -> bool {
        self.suspicion
            .is_some_and(|suspicion| suspicion.until <= now)
    }
}

impl Health {
    /// Nothing heard yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            peers: BTreeMap::new(),
            now: Mono::default(),
            leading: None,
            deadline: None,
            remarks: Vec::new(),
        }
    }

    /// A node's heartbeat came in, or this node's own figures; void when a later start of the node was heard of.
    pub fn heartbeat(&mut self, from: NodeId, boot: Boot, figures: Figures, now: Mono) {
        self.now = self.now.max(now);
        let peer = self.peers.entry(from).or_default();
        if peer.boot.is_some_and(|known| boot < known) {
            return;
        }
        let changed = peer.dead || peer.boot != Some(boot);
        peer.boot = Some(boot);
        peer.figures = Some(figures);
        peer.sign_of_life(now);
        self.look_at(if changed {
            now
        } else {
            now + self.settings.timeout
        });
    }

    /// The control link to a node came up, was lost, or was refused; refusals may be told one by one.
    pub fn link(&mut self, node: NodeId, state: LinkState, now: Mono) {
        self.now = self.now.max(now);
        let Settings {
            interval, timeout, ..
        } = self.settings;
        let peer = self.peers.entry(node).or_default();
        peer.linked = state == LinkState::Up;
        if peer.linked {
            peer.sign_of_life(now);
            self.look_at(now + timeout);
            return;
        }
        // A living node is heard again within two intervals; one that is refused a second time has no process left.
        let suspicion = match peer.suspicion {
            None => Suspicion {
                since: now,
                until: now + timeout.min(interval * 2),
            },
            Some(Suspicion { since, until }) => {
                let settled = (since + SETTLE.min(timeout / 10)).max(now);
                Suspicion {
                    since,
                    until: until.min(settled),
                }
            }
        };
        peer.suspicion = Some(suspicion);
        self.look_at(suspicion.until);
    }

    /// Time passed. On the leader: the verdicts that the catalog should take in, each as an `Observe`.
    ///
    /// A new leader waits one timeout before it judges silence.
    pub fn tick(
        &mut self,
        now: Mono,
        leading: bool,
        tables: &dyn Tables,
    ) -> Result<Vec<Operation>, TableError> {
        self.now = self.now.max(now);
        let now = self.now;
        if !leading {
            self.leading = None;
            self.deadline = None;
            return Ok(Vec::new());
        }
        let since = if let Some(since) = self.leading {
            if self.deadline.is_some_and(|deadline| now < deadline) {
                return Ok(Vec::new());
            }
            since
        } else {
            for peer in self.peers.values_mut() {
                peer.proposed = None;
                peer.steady_since = now;
                peer.flaps = 0;
            }
            *self.leading.insert(now)
        };
        // Whatever else happens: a node that registers without being heard of is looked at again.
        self.deadline = Some(now + self.settings.interval.max(AGAIN));
        let mut verdicts = Vec::new();
        for record in query::nodes(tables)? {
            self.count_missed(&record, since, now);
            if let Some(alive) = self.verdict(&record, since, now)
                && alive != record.alive
                && let Some(again) = self.propose(&record, alive, now)
            {
                self.look_at(again);
                self.remark(&record, alive, now);
                verdicts.push(Operation::Observe {
                    node: record.id,
                    alive,
                    boot: record.boot,
                });
            }
        }
        Ok(verdicts)
    }

    /// What has to be said in the log since this was last asked.
    pub fn remarks(&mut self) -> Vec<Remark> {
        std::mem::take(&mut self.remarks)
    }

    /// Every node that was heard of or judged, this one among them once it gave figures, by id.
    pub fn overview(&self) -> Vec<NodeHealth> {
        let millis = |at: Mono| u64::try_from((self.now - at).as_millis()).unwrap_or(u64::MAX);
        let health = |(node, peer): (&NodeId, &Peer)| NodeHealth {
            node: *node,
            up: self.is_up(*node),
            heard_ms: peer.heard.map(millis),
            since_ms: peer.changed.map(millis),
            suspected: peer.suspicion.is_some(),
            flaps: peer.flaps,
            figures: peer.figures.clone(),
        };
        self.peers.iter().map(health).collect()
    }

    /// Says of a node whose heartbeats stay out how many are missed, each once, before it is judged.
    fn count_missed(&mut self, record: &NodeRecord, since: Mono, now: Mono) {
        let Settings {
            node,
            interval,
            timeout,
        } = self.settings;
        if record.id == node || !record.alive {
            return;
        }
        let peer = self.peers.entry(record.id).or_default();
        let heard = peer.heard.map_or(since, |heard| heard.max(since));
        let whole = |time: Duration| time.as_micros() / interval.as_micros().max(1);
        // One that is only a little late is not missed yet.
        let missed = u32::try_from(whole((now - heard).saturating_sub(interval / 2))).unwrap_or(0);
        if missed > peer.missed {
            peer.missed = missed;
            let allowed = whole(timeout);
            let name = &record.name;
            let text = format!(
                "user={name} node={node} missed={missed} of {allowed}",
                node = record.id
            );
            self.remarks
                .push((Level::Debug, "heartbeat_monitor_check", text));
        }
    }

    /// Says that a node is found alive or dead.
    fn remark(&mut self, record: &NodeRecord, alive: bool, now: Mono) {
        let peer = self.peers.get(&record.id);
        let seconds = |at: Mono| {
            let tenths = (now - at).as_millis() / 100;
            format!("{}.{} s", tenths / 10, tenths % 10)
        };
        let (id, name) = (record.id, &record.name);
        self.remarks.push(if alive {
            let text = format!("user={name} node={id} is back");
            (Level::Info, "nm_ss_recovery", text)
        } else {
            let why = match peer {
                Some(peer) if peer.is_condemned(now) => "its link is lost or refused".to_owned(),
                _ => "it is silent".to_owned(),
            };
            let last = match peer.and_then(|peer| peer.heard) {
                Some(heard) => format!("last heard {} ago", seconds(heard)),
                None => "never heard".to_owned(),
            };
            let text = format!("user={name} node={id} is dead: {why}, {last}");
            (Level::Warn, "heartbeat_monitor_failure", text)
        });
    }

    /// The last figures of a node, as old as they may be.
    pub fn figures(&self, node: NodeId) -> Option<&Figures> {
        self.peers.get(&node)?.figures.as_ref()
    }

    /// Whether a node answered lately, as of the last event: by heartbeat, or, for a node whose heartbeats go to
    /// another leader, by its link.
    pub fn is_up(&self, node: NodeId) -> bool {
        if node == self.settings.node {
            return true;
        }
        let Some(peer) = self.peers.get(&node) else {
            return false;
        };
        let timeout = self.settings.timeout;
        let recent = peer.heard.is_some_and(|heard| self.now - heard < timeout);
        let link_suffices = self.leading.is_none_or(|since| self.now - since < timeout);
        !peer.is_condemned(self.now) && (recent || peer.linked && link_suffices)
    }

    /// Whether this node's own link to a node is up: what is sent goes that way.
    pub fn is_linked(&self, node: NodeId) -> bool {
        node == self.settings.node || self.peers.get(&node).is_some_and(|peer| peer.linked)
    }

    /// When [`Health::tick`] should be called at the latest, while this node leads.
    pub const fn deadline(&self) -> Option<Mono> {
        self.deadline
    }

    /// What is to be said of a node now; `None` while nothing can be said.
    fn verdict(&mut self, record: &NodeRecord, since: Mono, now: Mono) -> Option<bool> {
        if record.id == self.settings.node {
            return Some(true);
        }
        let Settings {
            interval, timeout, ..
        } = self.settings;
        let peer = self.peers.entry(record.id).or_default();
        let silent_at = peer.heard.map_or(since, |heard| heard.max(since)) + timeout;
        if peer.is_condemned(now) || silent_at <= now {
            if !peer.dead {
                peer.dead = true;
                peer.changed = Some(now);
                let steady = now - peer.steady_since >= timeout * STEADY;
                let died_before = peer.steady_since > since;
                peer.flaps = if steady || !died_before {
                    0
                } else {
                    FLAPS.min(peer.flaps + 1)
                };
            }
            return Some(false);
        }
        let until = peer
            .suspicion
            .map_or(silent_at, |suspicion| suspicion.until.min(silent_at));
        let back_at = peer.steady_since + interval * peer.flaps;
        let back = peer.heard.is_some() && peer.boot == Some(record.boot);
        self.look_at(until);
        if back && back_at > now {
            self.look_at(back_at);
        }
        (back && back_at <= now).then_some(true)
    }

    /// Notes that a verdict is proposed, and says when to look whether it has shown; `None` when that is under way.
    fn propose(&mut self, record: &NodeRecord, alive: bool, now: Mono) -> Option<Mono> {
        let patience = self.settings.interval.max(AGAIN);
        let peer = self.peers.entry(record.id).or_default();
        if let Some((last, boot, at)) = peer.proposed
            && (last, boot) == (alive, record.boot)
            && now - at < patience
        {
            let again = at + patience;
            self.look_at(again);
            return None;
        }
        peer.proposed = Some((alive, record.boot, now));
        Some(now + patience)
    }

    /// Has [`Health::deadline`] at `at` at the latest.
    fn look_at(&mut self, at: Mono) {
        if self.leading.is_some() {
            self.deadline = Some(self.deadline.map_or(at, |deadline| deadline.min(at)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::table::{Batch, MemoryTables, Table};
    use crate::wire::record::{Administrative, to_row};

    const INTERVAL: Duration = Duration::from_secs(5);
    const TIMEOUT: Duration = Duration::from_secs(15);
    const OTHER: NodeId = NodeId(1);

    fn at(seconds: u64) -> Mono {
        Mono(1_000_000_000 + seconds * 1_000_000)
    }

    /// Two members, of which node 0 watches.
    struct Watch {
        health: Health,
        tables: MemoryTables,
    }

    impl Watch {
        fn new() -> Self {
            let settings = Settings {
                node: NodeId(0),
                interval: INTERVAL,
                timeout: TIMEOUT,
            };
            let mut watch = Self {
                health: Health::new(settings),
                tables: MemoryTables::default(),
            };
            watch.write(0, true, 1);
            watch.write(1, true, 1);
            watch
        }

        fn write(&mut self, node: u16, alive: bool, boot: u64) {
            let record = NodeRecord {
                id: NodeId(node),
                name: String::new(),
                address: String::new(),
                manages: true,
                stores: true,
                administrative: Administrative::Alive,
                alive,
                dirs: Vec::new(),
                boot: Boot(boot),
                knows: 1,
                lost: false,
                gone: Vec::new(),
            };
            let mut batch = Batch::default();
            batch.put(Table::Nodes, &NodeId(node).key(), to_row(&record));
            self.tables.write(&batch);
        }

        fn beat(&mut self, boot: u64, seconds: u64) {
            self.health
                .heartbeat(OTHER, Boot(boot), Figures::default(), at(seconds));
        }

        /// The verdict on the other node, taken into the catalog at once.
        fn verdict(&mut self, seconds: u64) -> Option<bool> {
            let verdicts = self.health.tick(at(seconds), true, &self.tables).unwrap();
            assert!(
                self.health
                    .deadline()
                    .is_some_and(|deadline| deadline > at(seconds))
            );
            match verdicts.as_slice() {
                [] => None,
                [
                    Operation::Observe {
                        node: OTHER,
                        alive,
                        boot,
                    },
                ] => {
                    self.write(1, *alive, boot.0);
                    Some(*alive)
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn silence_for_the_timeout_is_death_and_a_heartbeat_is_life() {
        let mut watch = Watch::new();
        assert_eq!(watch.verdict(0), None);
        watch.beat(1, 1);
        assert_eq!(watch.verdict(15), None);
        assert!(watch.health.is_up(OTHER));
        assert_eq!(watch.verdict(16), Some(false));
        assert!(!watch.health.is_up(OTHER));
        watch.beat(1, 40);
        assert_eq!(watch.verdict(40), Some(true));
        assert!(watch.health.is_up(OTHER));
    }

    #[test]
    fn a_new_leader_waits_one_timeout_before_it_judges_silence() {
        let mut watch = Watch::new();
        watch.beat(1, 0);
        assert!(
            watch
                .health
                .tick(at(90), false, &watch.tables)
                .unwrap()
                .is_empty()
        );
        assert_eq!(watch.verdict(100), None);
        assert_eq!(watch.verdict(114), None);
        assert_eq!(watch.verdict(115), Some(false));
    }

    #[test]
    fn a_lost_link_is_a_suspicion_that_a_sign_of_life_ends() {
        let mut watch = Watch::new();
        watch.verdict(0);
        watch.beat(1, 1);
        watch.health.link(OTHER, LinkState::Down, at(2));
        assert_eq!(watch.verdict(11), None);
        watch.beat(1, 11);
        assert_eq!(watch.verdict(13), None);
        watch.health.link(OTHER, LinkState::Down, at(14));
        assert_eq!(watch.verdict(24), Some(false));
    }

    #[test]
    fn a_link_that_is_refused_again_is_death_after_a_moment() {
        let mut watch = Watch::new();
        watch.verdict(0);
        watch.beat(1, 1);
        watch.health.link(OTHER, LinkState::Down, at(2));
        watch.health.link(OTHER, LinkState::Down, at(2));
        assert_eq!(watch.verdict(2), None);
        assert_eq!(watch.verdict(4), Some(false));
        watch.health.link(OTHER, LinkState::Up, at(5));
        assert!(watch.health.is_up(OTHER));
    }

    #[test]
    fn who_does_not_lead_goes_by_the_link_and_says_nothing() {
        let mut watch = Watch::new();
        assert!(!watch.health.is_up(OTHER));
        assert!(watch.health.is_up(NodeId(0)));
        watch.health.link(OTHER, LinkState::Up, at(0));
        assert!(
            watch
                .health
                .tick(at(900), false, &watch.tables)
                .unwrap()
                .is_empty()
        );
        assert!(watch.health.is_up(OTHER));
        watch.health.link(OTHER, LinkState::Down, at(901));
        assert!(!watch.health.is_up(OTHER));
        assert_eq!(watch.health.deadline(), None);
    }

    #[test]
    fn a_start_counts_as_alive_once_it_is_registered() {
        let mut watch = Watch::new();
        watch.verdict(0);
        assert_eq!(watch.verdict(15), Some(false));
        watch.beat(2, 20);
        assert_eq!(watch.verdict(20), None);
        watch.write(1, false, 2);
        watch.beat(1, 21);
        assert_eq!(watch.verdict(26), Some(true));
    }

    #[test]
    fn a_verdict_is_not_repeated_while_it_is_being_committed() {
        let mut watch = Watch::new();
        watch.verdict(0);
        let tables = watch.tables.clone();
        let count = |watch: &mut Watch, s| watch.health.tick(at(s), true, &tables).unwrap().len();
        assert_eq!(count(&mut watch, 15), 1);
        assert_eq!(count(&mut watch, 16), 0);
        assert_eq!(count(&mut watch, 20), 1);
    }

    #[test]
    fn a_node_that_comes_and_goes_waits_longer_each_time() {
        let mut watch = Watch::new();
        watch.verdict(0);
        let mut waits = Vec::new();
        let mut now = 100;
        for _ in 0..7 {
            assert_eq!(watch.verdict(now), Some(false));
            let back = now;
            let mut alive = None;
            while alive.is_none() {
                now += 1;
                watch.beat(1, now);
                alive = watch.verdict(now);
            }
            assert_eq!(alive, Some(true));
            waits.push(now - back - 1);
            now += 20;
        }
        assert_eq!(waits, [0, 5, 10, 15, 20, 20, 20]);
        now += 500;
        for second in (now - 500..now).step_by(5) {
            watch.beat(1, second);
        }
        watch.verdict(now + 20);
        watch.beat(1, now + 21);
        assert_eq!(
            watch.verdict(now + 21),
            Some(true),
            "it was steady in between"
        );
    }

    #[test]
    fn heartbeats_that_stay_out_are_counted_each_once_and_death_and_return_are_said() {
        let mut watch = Watch::new();
        let said = |watch: &mut Watch, second| {
            watch.verdict(second);
            let remarks = watch.health.remarks().into_iter();
            remarks
                .map(|(_, event, text)| format!("{event} {text}"))
                .collect::<Vec<_>>()
        };
        assert!(said(&mut watch, 0).is_empty());
        watch.beat(1, 1);
        assert!(
            said(&mut watch, 8).is_empty(),
            "a little late is not missed"
        );
        let missed = said(&mut watch, 13);
        assert_eq!(missed.len(), 1);
        assert!(missed[0].starts_with("heartbeat_monitor_check") && missed[0].contains("1 of 3"));
        assert!(said(&mut watch, 14).is_empty());
        let dead = said(&mut watch, 16);
        assert!(dead.iter().any(|line| {
            line.starts_with("heartbeat_monitor_failure") && line.contains("last heard 15.0 s ago")
        }));
        watch.beat(1, 40);
        let back = said(&mut watch, 40);
        assert!(back[0].starts_with("nm_ss_recovery"), "{back:?}");
        let seen = watch.health.overview();
        assert_eq!(
            (seen[0].node, seen[0].up, seen[0].heard_ms),
            (OTHER, true, Some(0))
        );
        assert_eq!(seen[0].since_ms, Some(0));
    }

    #[test]
    fn heartbeats_of_a_fraction_of_a_second_are_judged_alike() {
        let millis = |millis: u64| Mono(1_000_000_000 + millis * 1_000);
        let mut watch = Watch::new();
        watch.health.settings.interval = Duration::from_millis(50);
        watch.health.settings.timeout = Duration::from_millis(150);
        let tick = |watch: &mut Watch, at| {
            let tables = watch.tables.clone();
            watch.health.tick(millis(at), true, &tables).unwrap()
        };
        tick(&mut watch, 0);
        let figures = Figures::default();
        watch
            .health
            .heartbeat(OTHER, Boot(1), figures.clone(), millis(20));
        assert!(tick(&mut watch, 169).is_empty());
        let verdicts = tick(&mut watch, 170);
        assert!(matches!(
            verdicts[..],
            [Operation::Observe { alive: false, .. }]
        ));
        watch.write(1, false, 1);
        watch.health.heartbeat(OTHER, Boot(1), figures, millis(400));
        let verdicts = tick(&mut watch, 400);
        assert!(matches!(
            verdicts[..],
            [Operation::Observe { alive: true, .. }]
        ));
    }

    #[test]
    fn figures_are_the_last_ones_of_the_latest_start() {
        let mut watch = Watch::new();
        let figures = |free_bytes| Figures {
            free_bytes,
            ..Figures::default()
        };
        watch.health.heartbeat(OTHER, Boot(2), figures(5), at(0));
        watch.health.heartbeat(OTHER, Boot(1), figures(9), at(1));
        assert_eq!(watch.health.figures(OTHER), Some(&figures(5)));
        assert_eq!(watch.health.figures(NodeId(7)), None);
    }
}
