//! The heartbeat thread and the sampler: figures of this machine, signs of life, and the controller that changes the mode by load.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use crate::core::catalog::query;
use crate::core::mode::{Controller, Decision, Thresholds};
use crate::core::node::{Event, Role};
use crate::engine::clock;
use crate::engine::drives::Drives;
use crate::engine::shared::Engine;
use crate::wire::command::Operation;
use crate::wire::peer::Figures;

/// How often the threads look whether the node stops.
const LOOK: Duration = Duration::from_millis(200);
/// Shortest time between two looks at the load for heartbeats.
const GAUGE: Duration = Duration::from_secs(1);
/// How long the driver's queue may be full.
const DRIVER_FULL: Duration = Duration::from_secs(1);

/// Sleeps until `next` or the end of the node; false when it stops.
fn until(engine: &Engine, next: Instant) -> bool {
    while !engine.is_stopping() {
        let left = next.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        thread::park_timeout(left.min(LOOK));
    }
    false
}

/// The heartbeat thread: this node's figures, every interval.
pub fn beat(engine: &Arc<Engine>) {
    let mut gauge = Gauge::new(engine);
    let mut next = Instant::now();
    while until(engine, next) {
        next += engine.settings.heartbeat_interval;
        next = next.max(Instant::now());
        gauge.look();
        let figures = figures(engine, &gauge.load);
        engine.tell(Event::Sampled { figures }, DRIVER_FULL);
    }
}

/// The load that the heartbeats tell.
struct Gauge {
    sampler: Option<Sampler>,
    drives: Drives,
    /// When it was last looked at.
    at: Instant,
    load: Figures,
}

impl Gauge {
    fn new(engine: &Engine) -> Self {
        let mut drives = Drives::new(&engine.settings.data, engine.settings.drive.as_deref());
        drives.busy();
        Self {
            // The other sampler says when it cannot be had.
            sampler: Sampler::new().ok(),
            drives,
            at: Instant::now(),
            load: Figures::default(),
        }
    }

    /// Looks again, unless that was too short a time ago to say anything.
    fn look(&mut self) {
        if self.at.elapsed() < GAUGE {
            return;
        }
        self.at = Instant::now();
        self.load.io_busy = self.drives.busy();
        if let Some(sampler) = &mut self.sampler {
            let sample = sampler.look();
            self.load.cpu_used = sample.cpu_used;
            self.load.memory_used = sample.memory_used;
        }
    }
}

fn figures(engine: &Engine, load: &Figures) -> Figures {
    let dirs = engine.objects.dirs();
    Figures {
        // A directory that takes no new objects counts as full, so that nobody takes it for one that gave no figures.
        total_bytes: dirs.iter().map(|dir| dir.total).sum(),
        free_bytes: dirs
            .iter()
            .filter(|dir| !dir.failed)
            .map(|dir| dir.free.saturating_sub(dir.reserve))
            .sum(),
        connections: u32::try_from(engine.connections.load(Ordering::Relaxed)).unwrap_or(u32::MAX),
        jobs: u32::try_from(engine.jobs.load(Ordering::Relaxed)).unwrap_or(u32::MAX),
        applied: engine.report().applied,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..load.clone()
    }
}

/// What one look at the machine gave, in shares of 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Busy share of all CPUs since the look before.
    pub cpu_used: f64,
    /// (Total - Free - Buffers - Cached) / Total; cached memory includes what the kernel can reclaim.
    pub memory_used: f64,
}

struct Sampler {
    system: System,
}

impl Sampler {
    fn new() -> Result<Self, sysinfo::Error> {
        let kinds = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing().with_usage())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let mut system = System::new_with_specifics(kinds)?;
        system.refresh_cpu_usage();
        Ok(Self { system })
    }

    fn look(&mut self) -> Sample {
        self.system.refresh_cpu_usage();
        self.system
            .refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let total = self.system.total_memory();
        let available = self.system.available_memory();
        #[allow(clippy::cast_precision_loss)]
        let memory_used = if total == 0 {
            0.0
        } else {
            total.saturating_sub(available) as f64 / total as f64
        };
        Sample {
            cpu_used: f64::from(self.system.global_cpu_usage()) / 100.0,
            memory_used,
        }
    }
}

/// The sampler: looks at the load every interval, at once at the start; where this node leads, the controller decides about the mode.
pub fn sample(engine: &Arc<Engine>) {
    let settings = &engine.settings;
    let mut sampler = match Sampler::new() {
        Ok(sampler) => sampler,
        Err(error) => {
            log::error!(target: "momo::metrics", "no figures of this machine, the mode stays: {error}");
            return;
        }
    };
    let mut controller = Controller::new(
        settings.modes.clone(),
        Thresholds {
            min: settings.min_threshold,
            max: settings.max_threshold,
        },
        settings.fallback_interval,
    );
    // CPU use is the difference of two looks at least this far apart.
    let mut next = Instant::now() + sysinfo::MINIMUM_CPU_UPDATE_INTERVAL;
    let mut seen = None;
    while until(engine, next) {
        next = Instant::now() + settings.sample_interval;
        let sample = sampler.look();
        let report = engine.report();
        if report.role != Role::Leader {
            continue;
        }
        let Ok(current) = query::mode(&engine.tables) else {
            continue;
        };
        if seen
            .replace(current.timestamp)
            .is_some_and(|before| before != current.timestamp)
        {
            controller.changed_from_outside(clock::mono());
        }
        let figures = format!(
            "cpu {:.0} %, memory {:.0} %",
            sample.cpu_used * 100.0,
            sample.memory_used * 100.0
        );
        if !settings.polymorphic {
            log::info!(target: "momo::metrics", "{figures}; polymorphic_system is off");
            continue;
        }
        match controller.sample(
            clock::mono(),
            sample.cpu_used,
            sample.memory_used,
            current.new,
        ) {
            Decision::Stay(why) => log::info!(target: "momo::metrics", "{figures}: {why}"),
            Decision::Step(mode, why) => {
                log::info!(
                    target: "momo::mode_step",
                    "{figures}: {} to {}: {why}", current.new.name(), mode.name()
                );
                let timestamp = clock::wall().0.max(current.timestamp + 1);
                let cause = format!("controller: {why} ({figures})");
                let change = Operation::SetMode {
                    new: mode,
                    timestamp,
                    cause,
                };
                match engine.commit(change) {
                    Ok(_) => seen = Some(timestamp),
                    Err(failure) => log::warn!(target: "momo::mode_step", "not changed: {failure}"),
                }
            }
        }
    }
}
