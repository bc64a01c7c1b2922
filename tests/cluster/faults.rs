//! Faults of every kind, one after another and all at once, while clients work: nothing acknowledged is lost, and what was answered could have happened in some order.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use crate::harness::mount::Mount;
use crate::harness::net::Link;
use crate::harness::{Cluster, PATIENCE, Shape};
use crate::ledger::{Ledger, Single, Stop, check_ledger, next, write_on};
use crate::load::{Recorder, Sum, operate_on};

/// Waits that let a fault show within a second.
pub const QUICK: &str =
    "[write]\nhop_stall=1000\nleg_wait=1000\ndeadline=4000\n\n[gc]\ngrace=5000\n\n";
/// Clients that fill the ledger, and as many that record a history.
const CLIENTS: u64 = 2;
/// MiB of a disk that a test fills.
const SMALL_DISK: u32 = 700;
/// Work of a client between two operations, where the work is to last.
pub const PACE: Duration = Duration::from_millis(30);

/// Something that happens to daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`, and a start.
    Kill,
    /// SIGSTOP, and SIGCONT: a machine that hangs and comes back as if nothing had happened.
    Stop,
    /// A cable pulled: nothing arrives, nothing says so.
    CutOff,
    /// Connections broken and refused.
    Reset,
    /// What it sends is lost, what is sent to it arrives.
    Mute,
    /// What is sent to it is lost, what it sends arrives.
    Deaf,
    /// SIGTERM, and a start.
    Restart,
    /// `kill -9`, an emptied disk, a start.
    Wipe,
    /// A disk without room.
    Full,
    /// A fault for each daemon at the same time: killed, stopped, cut off.
    AllAtOnce,
    /// `kill -9` of all daemons at once.
    PowerCut,
}

impl Fault {
    /// Those that need no rights.
    pub const USUAL: &[Fault] = &[
        Self::Kill,
        Self::Stop,
        Self::CutOff,
        Self::Reset,
        Self::Mute,
        Self::Deaf,
        Self::Restart,
        Self::Wipe,
        Self::AllAtOnce,
        Self::PowerCut,
    ];

    /// Whether every process lives through it.
    pub fn spares_processes(self) -> bool {
        matches!(
            self,
            Self::Stop | Self::CutOff | Self::Reset | Self::Mute | Self::Deaf | Self::Full
        )
    }
}

/// A cluster behind proxies, with disks to fill where the test may mount them.
pub struct Ground {
    /// The daemons.
    pub cluster: Cluster,
    disks: BTreeMap<usize, Mount>,
    _place: tempfile::TempDir,
}

impl Ground {
    /// Three daemons; with `disk_mib` each on a small disk of its own, where that is allowed.
    pub fn start(disk_mib: Option<u32>) -> Self {
        let place = tempfile::tempdir().expect("a folder");
        let disks: BTreeMap<usize, Mount> = (0..3)
            .map_while(|id| {
                let path = place.path().join(format!("disk-{id}"));
                Some((id, Mount::tmpfs(path, disk_mib?)?))
            })
            .collect();
        let data: Vec<(usize, PathBuf)> = disks
            .iter()
            .map(|(id, mount)| (*id, mount.0.join("data")))
            .collect();
        let cluster = Cluster::start(&Shape {
            extra: QUICK.to_owned(),
            proxied: true,
            debug: false,
            data,
            ..Shape::default()
        });
        Self {
            cluster,
            disks,
            _place: place,
        }
    }

    /// Whether it has disks to fill.
    pub fn has_small_disks(&self) -> bool {
        self.disks.len() == 3
    }

    /// Lets a fault happen to a daemon for a while, and waits until all is well again.
    pub fn suffer(&mut self, fault: Fault, victim: usize, while_: Duration) {
        let cluster = &mut self.cluster;
        let others = || (0..3).filter(|other| *other != victim);
        match fault {
            Fault::Kill => {
                cluster.daemons[victim].kill();
                thread::sleep(while_);
                cluster.daemons[victim].start();
            }
            Fault::Stop => {
                cluster.daemons[victim].signal(Signal::STOP);
                thread::sleep(while_);
                cluster.daemons[victim].signal(Signal::CONT);
            }
            Fault::CutOff | Fault::Reset => {
                let link = if fault == Fault::Reset {
                    Link::Reset
                } else {
                    Link::Held
                };
                cluster.net().set_all_of(victim, link);
                thread::sleep(while_);
                cluster.net().mend();
            }
            Fault::Mute | Fault::Deaf => {
                for other in others() {
                    let (from, to) = if fault == Fault::Mute {
                        (victim, other)
                    } else {
                        (other, victim)
                    };
                    cluster.net().set(from, to, Link::Held);
                }
                thread::sleep(while_);
                cluster.net().mend();
            }
            Fault::Restart => {
                let status = cluster.daemons[victim].terminate(PATIENCE);
                assert!(
                    status.is_some_and(|status| status.success()),
                    "daemon {victim} ended with {status:?}\n{}",
                    cluster.tails()
                );
                cluster.daemons[victim].start();
            }
            Fault::Wipe => {
                self.wait_whole();
                let daemon = &mut self.cluster.daemons[victim];
                daemon.kill();
                fs::remove_dir_all(&daemon.data).expect("an emptied disk");
                daemon.start();
                self.cluster.wait_ready();
                self.wait_whole();
            }
            Fault::Full => {
                let Some(disk) = self.disks.get(&victim) else {
                    return;
                };
                let ballast = disk.fill();
                thread::sleep(while_);
                fs::remove_file(ballast).expect("ballast");
            }
            Fault::AllAtOnce => {
                let [killed, stopped, cut] = [0, 1, 2].map(|step| (victim + step) % 3);
                cluster.net().set_all_of(cut, Link::Held);
                cluster.daemons[stopped].signal(Signal::STOP);
                cluster.daemons[killed].kill();
                thread::sleep(while_);
                cluster.daemons[killed].start();
                cluster.net().mend();
                cluster.daemons[stopped].signal(Signal::CONT);
            }
            Fault::PowerCut => {
                for daemon in &mut cluster.daemons {
                    daemon.kill();
                }
                for daemon in &mut cluster.daemons {
                    daemon.start();
                }
            }
        }
        self.cluster.wait_ready();
    }

    /// Waits until every object has its copies, so that a disk may be lost.
    pub fn wait_whole(&self) {
        wait_whole(&self.cluster);
    }
}

/// Waits until every object has its copies: as long as repair gets on, however slow the machine is.
fn wait_whole(cluster: &Cluster) {
    let (mut last, mut since) = (String::new(), Instant::now());
    loop {
        let mut said = String::new();
        let whole = cluster.daemons.iter().all(|daemon| {
            let status = daemon.text().and_then(|mut text| text.ask_lines("STATUS"));
            let lines = status.unwrap_or_default();
            let owed = lines
                .iter()
                .find(|line| line.starts_with("under_replicated "));
            said.extend(owed.map(String::as_str));
            let has = |line: &str| lines.iter().any(|other| other == line);
            let counting =
                |line: &String| line.starts_with("repair ") && line.contains("recounting=yes");
            has("state ready") && has("under_replicated 0") && !lines.iter().any(counting)
        });
        if whole {
            return;
        }
        if said != last {
            (last, since) = (said, Instant::now());
        }
        assert!(
            since.elapsed() < PATIENCE,
            "repair stands still at {last:?}\n{}",
            cluster.tails()
        );
        thread::sleep(Duration::from_millis(100));
    }
}

/// Writers and recorders at work while `work` runs on this thread; then everything is judged.
pub fn under_load(
    ground: &mut Ground,
    seed: u64,
    pace: Duration,
    work: impl FnOnce(&mut Ground),
) -> Sum {
    let hosts: Vec<SocketAddr> = ground
        .cluster
        .daemons
        .iter()
        .map(|daemon| daemon.host)
        .collect();
    let (ledger, recorder, stop) = (Ledger::default(), Recorder::new(), AtomicBool::new(false));
    thread::scope(|scope| {
        for worker in 0..CLIENTS {
            let (hosts, ledger, recorder, stop) = (&hosts, &ledger, &recorder, &stop);
            let seed = seed.wrapping_add(worker * 7_919);
            scope.spawn(move || write_on(worker, seed, hosts, ledger, stop, Single::Refused, pace));
            scope.spawn(move || operate_on(recorder, seed, hosts, stop, pace));
        }
        let _stop = Stop(&stop);
        work(ground);
    });
    let cluster = &ground.cluster;
    cluster.assert_alive();
    let hint = format!("FAULT_SEED={seed}");
    let sum = recorder.judge(cluster, &hint);
    eprintln!(
        "{} names: {} operations answered, {} unknown, {} refused; every name has an order",
        sum.names, sum.answered, sum.unknown, sum.refused
    );
    wait_whole(cluster);
    check_ledger(cluster, &ledger, seed);
    sum
}

/// `FAULT_SEED`, or the clock; printed, so that a failure can be tried again.
pub fn seed() -> u64 {
    let seed = std::env::var("FAULT_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(1, |since| u64::from(since.subsec_nanos()))
        });
    eprintln!("FAULT_SEED={seed}");
    seed
}

#[test]
fn faults_in_turn_and_all_at_once_under_load_lose_nothing_and_confuse_nobody() {
    let seed = seed();
    let mut ground = Ground::start(None);
    let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let sum = under_load(&mut ground, seed, Duration::ZERO, |ground| {
        for fault in Fault::USUAL {
            let victim = usize::try_from(next(&mut chance) % 3).unwrap_or(0);
            let while_ = Duration::from_millis(300 + next(&mut chance) % 1_500);
            let start = Instant::now();
            ground.suffer(*fault, victim, while_);
            eprintln!(
                "{fault:?} of {victim} for {while_:?}: all well after {:?}",
                start.elapsed()
            );
            thread::sleep(Duration::from_millis(next(&mut chance) % 500));
        }
    });
    assert!(sum.answered > 100, "{sum:?}");
    for from in 0..3 {
        for to in (0..3).filter(|to| *to != from) {
            assert!(
                ground.cluster.net().passed(from, to) > 0,
                "no connection from {from} to {to} went through a proxy: no link was cut"
            );
        }
    }
}

#[test]
fn a_disk_that_fills_up_under_load_costs_neither_a_file_nor_the_cluster() {
    let seed = seed();
    let mut ground = Ground::start(Some(SMALL_DISK));
    if !ground.has_small_disks() {
        return;
    }
    under_load(&mut ground, seed, Duration::ZERO, |ground| {
        for victim in [2, 0] {
            ground.suffer(Fault::Full, victim, Duration::from_millis(1_500));
        }
    });
}
