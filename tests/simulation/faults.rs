//! What goes wrong: processes end or stand still, power fails, networks part, disks are swapped, restored, full, failing or spoiled, clocks are set, operators change their minds.

use std::collections::BTreeMap;

use momo::base::digest::Sha256;
use momo::base::id::{DirId, NodeId};
use momo::core::catalog::query;
use momo::core::node::{Event, Report, Role};
use momo::wire::command::Operation;
use momo::wire::record::Administrative;

use crate::cluster::{Cluster, Happening};
use crate::plan::below;

/// After a disk was restored nothing else goes wrong for so long: what it once acknowledged is known to the leader alone at first.
const AFTER_RESTORING: u64 = 6_000_000;

impl Cluster {
    /// Something goes wrong.
    pub fn fault(&mut self) -> Result<(), String> {
        if self.calm {
            return Ok(());
        }
        let gap = 50_000 + self.random.below(self.plan.fault_gap);
        self.at(self.now + gap, Happening::Fault);
        if self.now < self.quiet_until {
            return Ok(());
        }
        let victim = self.victim();
        match self
            .random
            .below(if self.plan.spares > 0 { 19 } else { 16 })
        {
            0..=5 if self.plan.crashes && self.alive(victim) => self.crash_and_return(victim)?,
            6 if self.plan.crashes && self.random.one_in(2) => self.power_cut()?,
            7 | 8 if self.plan.partitions => self.part(victim),
            9 if self.plan.partitions => self.part_one_way(victim),
            10 => self.turn(victim, Event::Stepdown)?,
            16.. => self.come_or_go(victim)?,
            11 if self.plan.clocks => self.stop_or_set_clock(victim),
            12 | 13 if self.plan.disks => self.disk(victim),
            14 if self.plan.operator => self.change_of_mind(victim)?,
            15 if self.plan.wipes && self.random.one_in(2) => self.take_image(victim),
            15 if self.plan.wipes => self.leave_a_witness(victim),
            _ => {}
        }
        Ok(())
    }

    fn victim(&mut self) -> NodeId {
        let nodes = self.nodes();
        let leads = |(_, report): &(NodeId, Option<Report>)| {
            report.as_ref().is_some_and(|r| r.role == Role::Leader)
        };
        let leader = self
            .reports()
            .iter()
            .find(|report| leads(report))
            .map(|(node, _)| *node);
        match leader {
            Some(leader) if self.random.one_in(3) => leader,
            _ => nodes[below(&mut self.random, nodes.len())],
        }
    }

    fn crash_and_return(&mut self, victim: NodeId) -> Result<(), String> {
        let placid = self.is_placid();
        self.crash(victim)?;
        self.count("crashes");
        let lonely = self.is_needed(victim);
        if placid && self.plan.wipes && !lonely && self.random.one_in(3) {
            let image = self.image.take_if(|(node, _)| *node == victim);
            if let Some((_, image)) = image {
                self.trace
                    .line(self.now, format_args!("node {victim} is restored"));
                self.count("restores");
                self.seats.get_mut(&victim).expect("a seat").machine.disk = image;
                self.quiet_until = self.now + AFTER_RESTORING;
            } else if self.shelves[&victim]
                .ids()
                .iter()
                .all(|dir| self.may_lose(victim, *dir))
            {
                self.wipe(victim);
            }
        } else if self.plan.disks && self.random.one_in(4) {
            let dirs = self.shelves[&victim].ids();
            let dir = dirs[below(&mut self.random, dirs.len())];
            if self.may_lose(victim, dir) {
                self.swap(victim, dir);
                self.count("swaps");
            }
        }
        let away = if self.random.one_in(3) {
            self.random.below(8_000_000)
        } else {
            self.random.below(500_000)
        };
        self.at(self.now + 10_000 + away, Happening::Start(victim));
        Ok(())
    }

    /// All processes end at the same moment.
    fn power_cut(&mut self) -> Result<(), String> {
        self.trace.line(self.now, format_args!("power cut"));
        self.count("power cuts");
        for node in self.nodes() {
            if self.alive(node) {
                self.crash(node)?;
            }
            let away = 100_000 + self.random.below(2_000_000);
            self.at(self.now + away, Happening::Start(node));
        }
        Ok(())
    }

    fn part(&mut self, victim: NodeId) {
        let mut sides = BTreeMap::new();
        if self.random.one_in(2) {
            sides.insert(victim, 1);
        } else {
            for node in self.nodes() {
                sides.insert(node, self.random.below(2));
            }
        }
        self.count("partitions");
        self.trace
            .line(self.now, format_args!("partition {sides:?}"));
        self.network.split(&self.nodes(), &sides);
        self.heal_later();
    }

    /// The victim speaks and is not heard, or hears and cannot speak, with one other or all.
    fn part_one_way(&mut self, victim: NodeId) {
        let (mute, all) = (self.random.one_in(2), self.random.one_in(2));
        let others: Vec<NodeId> = self.nodes().into_iter().filter(|n| *n != victim).collect();
        if others.is_empty() {
            return;
        }
        let one = others[below(&mut self.random, others.len())];
        self.count("one-way partitions");
        self.trace.line(
            self.now,
            format_args!("one way: node {victim}, mute {mute}, all {all}, or {one}"),
        );
        for other in others.into_iter().filter(|other| all || *other == one) {
            let (from, to) = if mute {
                (victim, other)
            } else {
                (other, victim)
            };
            self.network.cut(from, to);
        }
        self.heal_later();
    }

    fn heal_later(&mut self) {
        self.links();
        let healed = self.now + 100_000 + self.random.below(4_000_000);
        if healed < self.plan.faults_until {
            self.at(healed, Happening::Heal);
        }
    }

    fn stop_or_set_clock(&mut self, victim: NodeId) {
        let hour = 3_600_000_000_000_i64;
        let now = self.now;
        if self.random.one_in(2) {
            let step =
                i64::try_from(self.random.below(2 * hour.unsigned_abs())).unwrap_or(0) - hour;
            self.count("clock steps");
            self.trace
                .line(now, format_args!("node {victim}'s clock steps by {step}"));
            self.seats.get_mut(&victim).expect("a seat").clock += step;
        } else if self.alive(victim) {
            let pause = 100_000 + self.random.below(4_000_000);
            self.count("pauses");
            self.trace
                .line(now, format_args!("node {victim} stands still for {pause}"));
            self.seats.get_mut(&victim).expect("a seat").stopped_until = now + pause;
        }
    }

    /// A disk is full or fails for a while, or a file is spoiled or lost.
    fn disk(&mut self, victim: NodeId) {
        let kind = self.random.below(4);
        let mended = self.now + 100_000 + self.random.below(5_000_000);
        match kind {
            0 | 1 => {
                let shelves = self.shelves.get_mut(&victim).expect("shelves");
                (shelves.full, shelves.failing) = (kind == 0, kind == 1);
                self.count(if kind == 0 {
                    "full disks"
                } else {
                    "failing disks"
                });
                self.at(mended, Happening::Mended(victim));
            }
            _ => {
                let files = self.shelves[&victim].list();
                if files.is_empty() {
                    return;
                }
                let (dir, sha256, file) = files[below(&mut self.random, files.len())];
                if !file.whole || !self.may_spare(victim, dir, &sha256) {
                    return;
                }
                let shelves = self.shelves.get_mut(&victim).expect("shelves");
                if kind == 2 {
                    shelves.spoil(dir, &sha256);
                } else {
                    shelves.remove(dir, &sha256);
                }
                self.count(if kind == 2 {
                    "files spoiled"
                } else {
                    "files lost"
                });
                self.trace.line(
                    self.now,
                    format_args!("node {victim} loses {sha256} in {dir}"),
                );
                self.copies.destroyed(&self.shelves, victim, dir, sha256);
            }
        }
    }

    /// Whether an object has another whole copy, or none is promised for it.
    fn may_spare(&self, node: NodeId, dir: DirId, sha256: &Sha256) -> bool {
        let elsewhere = self.shelves.iter().any(|(other, shelves)| {
            let stats = shelves.stats(sha256);
            stats
                .iter()
                .any(|(at, file)| file.whole && (*other, *at) != (node, dir))
        });
        let truth = self.truth.as_ref();
        let object =
            truth.and_then(|t| query::object(&t.tables, sha256).expect("tables in memory"));
        elsewhere || object.is_none_or(|object| object.want <= 1)
    }

    /// Whether no object would be gone with this directory.
    fn may_lose(&self, node: NodeId, dir: DirId) -> bool {
        let files = self.shelves[&node].list();
        let mut of_it = files.iter().filter(|(at, ..)| *at == dir);
        of_it.all(|(_, sha256, _)| {
            let elsewhere = self.shelves.iter().filter(|(other, _)| **other != node);
            let truth = self.truth.as_ref();
            let object =
                truth.and_then(|t| query::object(&t.tables, sha256).expect("tables in memory"));
            object.is_none_or(|object| object.want <= 1)
                || elsewhere
                    .into_iter()
                    .any(|(_, shelves)| shelves.serves(sha256))
        })
    }

    /// An empty directory, with an id of its own, takes the place of another.
    pub fn swap(&mut self, node: NodeId, dir: DirId) {
        self.dirs_made += 1;
        let new = DirId(self.dirs_made);
        let shelves = self.shelves.get_mut(&node).expect("shelves");
        let files = shelves.list();
        shelves.swap(dir, new);
        for (at, sha256, _) in files {
            if at == dir {
                self.copies.destroyed(&self.shelves, node, dir, sha256);
            }
        }
        self.trace.line(
            self.now,
            format_args!("node {node}: {new} in place of {dir}"),
        );
    }

    fn take_image(&mut self, victim: NodeId) {
        let lonely = self.is_needed(victim);
        if self.is_placid() && !lonely {
            let mut disk = self.seats[&victim].machine.disk.clone();
            disk.pending.clear();
            self.image = Some((victim, disk));
        }
    }

    /// A machine asks to be made a member, or an operator takes one out.
    fn come_or_go(&mut self, victim: NodeId) -> Result<(), String> {
        if let Some(spare) = self.absent.first().copied()
            && self.random.one_in(2)
        {
            self.count("joins");
            return self.join(spare);
        }
        let spared = self.absent.len() < usize::from(self.plan.spares);
        // Of two voters the one that stays may end before its commit of the removal is on disk; then it needs the vote
        // of the one that has left. That takes `momo recover`, and is not asked for here.
        let needed = self.is_needed(victim);
        if spared && !needed && self.is_placid() && self.calm_enough(victim) {
            self.count("removals asked");
            return self.operator(Operation::Remove {
                node: victim,
                force: false,
            });
        }
        Ok(())
    }

    fn calm_enough(&self, victim: NodeId) -> bool {
        let dirs = self.shelves[&victim].ids();
        dirs.iter().all(|dir| self.may_lose(victim, *dir))
    }

    /// An empty machine starts and asks to be made a member.
    pub fn join(&mut self, node: NodeId) -> Result<(), String> {
        self.absent.remove(&node);
        self.joiners.insert(node);
        if self.alive(node) {
            return Ok(());
        }
        self.start(node)
    }

    /// A member is no member any more: its machine is taken away, with its disks.
    pub fn removed(&mut self, node: NodeId) -> Result<(), String> {
        let seated = self.truth.as_ref().is_some_and(|truth| truth.seats(node));
        let known = self
            .nodes()
            .into_iter()
            .filter(|other| *other != node)
            .all(|other| {
                let head = crate::world::head(&self.seats[&other].machine.disk.tables);
                head.is_none_or(|head| !head.voters.contains(&node.raft()))
            });
        if seated || !known {
            // It is needed until the others have taken its seat, and have that on their disks: a voter that starts
            // with the configuration before would ask it for its vote.
            self.at(self.now + 200_000, Happening::Removed(node));
            return Ok(());
        }
        if !self.absent.insert(node) {
            return Ok(());
        }
        self.count("removals");
        if self.alive(node) {
            self.crash(node)?;
        }
        self.wipe(node);
        Ok(())
    }

    /// One voter is cut off, so that what is committed now lies with the leader and the victim; then both end at once, and the victim's disk is lost.
    fn leave_a_witness(&mut self, victim: NodeId) {
        let leader = self.report(victim).and_then(|report| report.leader);
        let is_voter = |node: &NodeId| usize::from(node.0) < self.plan.voters;
        let Some(leader) = leader.filter(|leader| *leader != victim && self.is_placid()) else {
            return;
        };
        let mut others = self.nodes().into_iter().filter(is_voter);
        let late = others.rfind(|node| *node != victim && *node != leader);
        let Some(late) = late.filter(|_| is_voter(&victim) && self.plan.voters == 3) else {
            return;
        };
        self.trace
            .line(self.now, format_args!("node {late} is left behind"));
        self.network
            .split(&self.nodes(), &BTreeMap::from([(late, 1)]));
        self.links();
        let wait = 200_000 + self.random.below(1_500_000);
        self.quiet_until = self.now + wait + AFTER_RESTORING;
        self.at(self.now + wait, Happening::Witness(victim, leader));
    }

    /// See [`Cluster::leave_a_witness`]: what both had is with the leader alone, until it returns.
    pub fn lose_a_witness(&mut self, victim: NodeId, leader: NodeId) -> Result<(), String> {
        self.network.split(&[], &BTreeMap::new());
        let full = |node| {
            let report = self.report(node);
            report.is_some_and(|report| report.voters.len() == self.plan.voters)
        };
        let ids = self.shelves[&victim].ids();
        let may_lose = ids.iter().all(|dir| self.may_lose(victim, *dir));
        if full(victim) && full(leader) && may_lose && !self.calm {
            self.count("witnesses");
            self.crash(victim)?;
            self.wipe(victim);
            self.crash(leader)?;
            self.at(self.now + 50_000, Happening::Start(victim));
            let away = 1_000_000 + self.random.below(4_000_000);
            self.at(self.now + away, Happening::Start(leader));
        }
        self.links();
        Ok(())
    }

    /// An operator closes a node, or opens it again.
    fn change_of_mind(&mut self, victim: NodeId) -> Result<(), String> {
        let states = [
            Administrative::Alive,
            Administrative::Readonly,
            Administrative::Drain,
            Administrative::Down,
        ];
        let state = states[below(&mut self.random, states.len())];
        self.count("words");
        self.operator(Operation::Administer {
            node: victim,
            state,
        })
    }

    /// Nothing goes wrong from here on.
    pub fn become_calm(&mut self) -> Result<(), String> {
        self.trace.line(self.now, format_args!("calm"));
        self.calm = true;
        let plan = &mut self.plan;
        (plan.loss, plan.twice, plan.late, plan.reorder) = (0, 0, 0, 0);
        for node in self.nodes() {
            self.at(self.now, Happening::Mended(node));
            if !self.alive(node) {
                self.start(node)?;
            }
        }
        if self.plan.operator {
            for node in self.nodes() {
                let state = Administrative::Alive;
                self.at(
                    self.now + 1,
                    Happening::Operator(Operation::Administer { node, state }),
                );
            }
        }
        Ok(())
    }

    /// Whether the votes of the others are no majority: what it remembers cannot be lost.
    fn is_needed(&self, victim: NodeId) -> bool {
        let truth = self.truth.as_ref();
        truth.is_none_or(|truth| truth.needs(victim))
    }

    /// All run, and all that should vote do.
    fn is_placid(&self) -> bool {
        let reports = self.reports();
        let voters = |report: &Report| report.voters.len() == self.plan.voters;
        reports
            .iter()
            .all(|(_, report)| report.as_ref().is_some_and(voters))
    }
}
