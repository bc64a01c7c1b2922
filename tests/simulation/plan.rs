//! What a seed means: how many nodes, how bad the network and the disks are, what goes wrong.

use std::time::Duration;

use momo::base::id::{Boot, ClusterId, DirId, NodeId};
use momo::base::random::{Random, mix};
use momo::core::Settings;
use momo::wire::command::{BirthMember, KNOWS, Operation};

/// An index below `count`, by chance.
pub fn below(random: &mut Random, count: usize) -> usize {
    usize::try_from(random.below(count as u64)).unwrap_or(0)
}

/// A seed's world. All times in microseconds.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub nodes: u16,
    pub voters: usize,
    /// Machines that are no members at birth: they ask to be made members some time.
    pub spares: u16,
    /// Longest ordinary delay of a message, and the longest of a late one.
    pub delay: (u64, u64),
    /// One message in so many is lost, comes twice, is late; 0 for never.
    pub loss: u64,
    pub twice: u64,
    pub late: u64,
    /// Longest ordinary sync, and the longest of a slow one; one in so many is slow.
    pub sync: (u64, u64),
    pub slow: u64,
    /// The disk says that it has what it does not have.
    pub disk_lies: bool,
    pub clients: usize,
    /// How long things go wrong, and the longest time between two things.
    pub faults_until: u64,
    pub fault_gap: u64,
    pub crashes: bool,
    pub partitions: bool,
    pub wipes: bool,
    /// Data directories are swapped, files lost or spoiled, disks full or failing.
    pub disks: bool,
    /// Processes stand still, and clocks are set.
    pub clocks: bool,
    /// An operator drains, closes and opens nodes.
    pub operator: bool,
    /// One message in so many overtakes those sent before it; 0 for never.
    pub reorder: u64,
    /// Data directories of a machine.
    pub dirs: u64,
    /// How long an object may be garbage before it is collected.
    pub garbage_grace: u64,
    /// Milliseconds that a voter may be dead before a spare takes over its vote.
    pub grace: u64,
    /// Entries kept in the log behind a checkpoint.
    pub keep: u64,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(mix(seed ^ 0x51ed));
        let (nodes, voters) = [
            (3, 3),
            (3, 3),
            (3, 3),
            (5, 5),
            (4, 3),
            (3, 1),
            (1, 1),
            (2, 1),
        ][below(&mut random, 8)];
        let mut pick = |choices: [u64; 4]| choices[below(&mut random, 4)];
        let delay = pick([500, 2_000, 2_000, 40_000]);
        let sync = pick([300, 2_000, 5_000, 30_000]);
        let plan = Self {
            seed,
            nodes,
            voters,
            spares: 0,
            delay: (delay, delay * pick([2, 10, 10, 50])),
            loss: pick([0, 0, 200, 30]),
            twice: pick([0, 0, 100, 30]),
            late: pick([0, 20, 50, 100]),
            sync: (sync, sync * pick([2, 10, 50, 100])),
            slow: pick([10, 30, 100, 300]),
            disk_lies: false,
            clients: usize::try_from(pick([2, 4, 6, 8])).unwrap_or(2),
            faults_until: 20_000_000,
            fault_gap: pick([500_000, 1_500_000, 1_500_000, 4_000_000]),
            crashes: pick([0, 1, 1, 1]) == 1,
            partitions: pick([0, 1, 1, 1]) == 1,
            wipes: pick([0, 0, 1, 1]) == 1,
            keep: pick([0, 8, 32, 4_096]),
            grace: pick([0, 500, 3_000, 120_000]),
            disks: pick([0, 1, 1, 1]) == 1,
            clocks: pick([0, 0, 1, 1]) == 1,
            operator: pick([0, 0, 0, 1]) == 1,
            reorder: pick([0, 0, 100, 20]),
            dirs: pick([1, 1, 2, 3]),
            garbage_grace: pick([500_000, 1_000_000, 2_000_000, 4_000_000]),
        };
        let spares = if nodes >= 3 { pick([0, 0, 1, 2]) } else { 0 };
        Self {
            spares: u16::try_from(spares).unwrap_or(0),
            ..plan
        }
    }

    /// The settings of a node's start.
    pub fn settings(&self, node: NodeId, boot: Boot) -> Settings {
        let cluster = ClusterId(u128::from(mix(
            self.seed ^ mix(boot.0 ^ u64::from(node.0) << 32)
        )));
        let mut settings = Settings::new(node, boot, self.seed, cluster);
        settings.members = (0..self.nodes)
            .map(|id| BirthMember {
                id: NodeId(id),
                name: format!("n{id}"),
                address: format!("10.0.0.{id}:1"),
                votes: usize::from(id) < self.voters,
                stores: true,
                manages: true,
            })
            .collect();
        if node.0 >= self.nodes {
            settings.members = vec![BirthMember {
                id: node,
                name: format!("n{node}"),
                address: format!("10.0.0.{node}:1"),
                votes: false,
                stores: true,
                manages: true,
            }];
        }
        settings.voters = self.voters;
        settings.membership_grace = Duration::from_millis(self.grace);
        settings.heartbeat_interval = Duration::from_millis(500);
        settings.heartbeat_timeout = Duration::from_millis(1_500);
        settings.checkpoint_entries = 50;
        settings.checkpoint_period = Duration::from_millis(400);
        settings.log_keep_entries = self.keep;
        settings
    }

    /// What a node says of itself.
    pub fn registration(node: NodeId, boot: Boot, dirs: Vec<DirId>) -> Operation {
        Operation::Register {
            node,
            name: format!("n{node}"),
            address: format!("10.0.0.{node}:1"),
            dirs,
            stores: true,
            manages: true,
            boot,
            knows: KNOWS,
        }
    }
}
