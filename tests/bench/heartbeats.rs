//! What signs of life cost in a cluster of fifty, simulated: production cores in one thread, a network without delay, disks without wait.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use momo::base::id::{Boot, ClusterId, NodeId};
use momo::base::table::MemoryTables;
use momo::base::time::{Mono, Now, Wall};
use momo::core::node::{Effect, Event, LinkState, Node, Recovered};
use momo::core::settings::Settings;
use momo::wire::command::BirthMember;
use momo::wire::peer::{Figures, Message};

use crate::table::Table;

/// Members, and how many of them vote.
const NODES: u16 = 50;
const VOTERS: u16 = 5;
/// Simulated time that is measured, after as much that is not.
const MEASURED: Duration = Duration::from_mins(10);
/// Step of simulated time.
const STEP: Duration = Duration::from_millis(50);

struct World {
    nodes: Vec<Node>,
    tables: Vec<MemoryTables>,
    /// Events on their way, by node.
    events: VecDeque<(usize, Event)>,
    now: Now,
    /// Heartbeats that arrived, their bytes, and the CPU time of taking them in.
    heartbeats: u64,
    bytes: u64,
    taking: Duration,
    /// CPU time of everything at the leader.
    leading: Duration,
}

impl World {
    fn new() -> Self {
        let members: Vec<BirthMember> = (0..NODES)
            .map(|id| BirthMember {
                id: NodeId(id),
                name: format!("daemon.{id}"),
                address: format!("10.0.0.{id}:3333"),
                votes: id < VOTERS,
                stores: true,
                manages: true,
            })
            .collect();
        let tables: Vec<MemoryTables> = (0..NODES).map(|_| MemoryTables::default()).collect();
        let nodes = (0..NODES)
            .map(|id| {
                let mut settings = Settings::new(
                    NodeId(id),
                    Boot(1),
                    u64::from(id) + 1,
                    ClusterId(u128::from(id) + 1),
                );
                settings.members.clone_from(&members);
                settings.voters = usize::from(VOTERS);
                settings.election_ticks = 20;
                Node::new(settings, Recovered::default(), &tables[usize::from(id)])
                    .expect("a new node")
            })
            .collect();
        let mut events = VecDeque::new();
        for to in 0..usize::from(NODES) {
            events.push_back((to, Event::Time));
            for from in (0..NODES).filter(|from| usize::from(*from) != to) {
                let up = Event::Link {
                    node: NodeId(from),
                    state: LinkState::Up,
                };
                events.push_back((to, up));
            }
        }
        Self {
            nodes,
            tables,
            events,
            now: Now {
                mono: Mono::default(),
                wall: Wall(1_700_000_000_000_000_000),
            },
            heartbeats: 0,
            bytes: 0,
            taking: Duration::ZERO,
            leading: Duration::ZERO,
        }
    }

    /// Lets time pass until `end`, sampling every heartbeat interval.
    fn run(&mut self, lasting: Duration) {
        let steps = lasting.as_millis() / STEP.as_millis();
        let interval = Duration::from_secs(5).as_millis() / STEP.as_millis();
        for step in 0..steps {
            for id in 0..usize::from(NODES) {
                // Not all at the same moment.
                if (step + id as u128).is_multiple_of(interval) {
                    let figures = Figures {
                        total_bytes: 1 << 40,
                        free_bytes: 1 << 39,
                        io_busy: 0.25,
                        cpu_used: 0.5,
                        memory_used: 0.75,
                        connections: 100,
                        ..Figures::default()
                    };
                    self.events.push_back((id, Event::Sampled { figures }));
                }
                if self.nodes[id]
                    .deadline()
                    .is_some_and(|at| at <= self.now.mono)
                {
                    self.events.push_back((id, Event::Time));
                }
            }
            while let Some((id, event)) = self.events.pop_front() {
                self.turn(id, event);
            }
            self.now.mono = self.now.mono + STEP;
        }
    }

    fn turn(&mut self, id: usize, event: Event) {
        let size = match &event {
            Event::Received {
                message: message @ Message::Heartbeat { .. },
                ..
            } => serde_json::to_vec(message).map_or(0, |bytes| bytes.len() as u64),
            _ => 0,
        };
        let start = Instant::now();
        self.nodes[id]
            .handle(event, self.now, &self.tables[id])
            .expect("a turn");
        let mut effects = Vec::new();
        while let Some(effect) = self.nodes[id].poll() {
            effects.push(effect);
        }
        let took = start.elapsed();
        if self.nodes[id].report().leader == Some(NodeId(u16::try_from(id).unwrap_or(0))) {
            self.leading += took;
        }
        if size > 0 {
            self.heartbeats += 1;
            self.bytes += size;
            self.taking += took;
        }
        for effect in effects {
            self.carry_out(id, effect);
        }
    }

    fn carry_out(&mut self, id: usize, effect: Effect) {
        let from = NodeId(u16::try_from(id).unwrap_or(0));
        match effect {
            Effect::Send { to, message } => self
                .events
                .push_back((usize::from(to.0), Event::Received { from, message })),
            Effect::Write(batch) => self.tables[id].write(&batch),
            Effect::Append(append) => self.events.push_back((
                id,
                Event::Persisted {
                    number: append.number,
                },
            )),
            Effect::Checkpoint { applied } => {
                self.events.push_back((id, Event::Checkpointed { applied }));
            }
            _ => {}
        }
    }
}

/// Fifty members that do nothing but live.
pub fn figures(table: &mut Table) {
    let mut world = World::new();
    world.run(MEASURED);
    let leader = world.nodes[0].report().leader;
    assert!(leader.is_some(), "fifty members have a leader");
    (world.heartbeats, world.bytes) = (0, 0);
    (world.taking, world.leading) = (Duration::ZERO, Duration::ZERO);
    world.run(MEASURED);
    #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
    let count = world.heartbeats.max(1) as f64;
    #[allow(clippy::cast_precision_loss, reason = "a few million")]
    let bytes = world.bytes as f64;
    table.shown(
        "50 nodes: heartbeats that arrive at the leader a second",
        "heartbeats",
        count / MEASURED.as_secs_f64(),
    );
    table.shown("50 nodes: bytes a heartbeat", "bytes", bytes / count);
    table.shown(
        "50 nodes: CPU of taking in a heartbeat",
        "us",
        world.taking.as_secs_f64() * 1e6 / count,
    );
    table.shown(
        "50 nodes: CPU of the leader's core a second, Raft's clock included",
        "ms",
        world.leading.as_secs_f64() * 1e3 / MEASURED.as_secs_f64(),
    );
}
