//! Which mode a daemon answers, and the controller that moves the mode along its order as the load changes.

use std::time::Duration;

use crate::base::id::NodeId;
use crate::base::time::Mono;
use crate::wire::record::{Mode, ModeRecord};

/// The digit that `node` answers to a Momo client which sent `received_timestamp` (Unix nanoseconds).
///
/// Node 0 answers the mode in force. Node 1 takes part in chains only: it answers what was in force at the client's
/// time, if that is chain; while primary-splay is in force its uploads are legs, so it answers none even if the mode
/// before was chain. All others answer none.
pub fn effective(node: NodeId, current: &ModeRecord, received_timestamp: u64) -> Mode {
    match node.0 {
        0 => current.new,
        1 if current.new != Mode::PrimarySplay => {
            let then = if received_timestamp > current.timestamp {
                current.new
            } else {
                current.old
            };
            if then == Mode::Chain {
                Mode::Chain
            } else {
                Mode::None
            }
        }
        _ => Mode::None,
    }
}

/// Shares of 1 that free and used resources are compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Free CPU or memory at or below it asks for a step left.
    pub min: f64,
    /// Used CPU or memory at or above it asks for a step right.
    pub max: f64,
}

/// What the controller makes of a sample. The text is for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The mode stays, and why.
    Stay(String),
    /// The mode becomes this one, and why.
    Step(Mode, String),
}

/// The controller: one step at most for each sample.
///
/// The order lists modes from idle to loaded. Whoever runs it asks it only where the mode is decided, and only while
/// the polymorphic system is on; a step that could not be committed is told by [`Controller::changed_from_outside`].
#[derive(Clone, Debug)]
pub struct Controller {
    order: Vec<Mode>,
    thresholds: Thresholds,
    fallback_interval: Duration,
    /// When the mode last changed, or the fallback timer last ran out; `None` before the first sample.
    last_step: Option<Mono>,
}

impl Controller {
    /// A controller that has seen no sample yet.
    pub fn new(order: Vec<Mode>, thresholds: Thresholds, fallback_interval: Duration) -> Self {
        Self {
            order,
            thresholds,
            fallback_interval,
            last_step: None,
        }
    }

    /// One round: shares of CPU and memory in use, 0 to 1, while `current` is the mode in force.
    ///
    /// What is not a number is no sample: nothing moves, not even the fallback timer's due step.
    pub fn sample(&mut self, now: Mono, cpu_used: f64, mem_used: f64, current: Mode) -> Decision {
        let last_step = *self.last_step.get_or_insert(now);
        if !cpu_used.is_finite() || !mem_used.is_finite() {
            return Decision::Stay(format!("no sample: cpu {cpu_used}, memory {mem_used}"));
        }
        let Thresholds { min, max } = self.thresholds;
        let left = 1.0 - mem_used <= min || 1.0 - cpu_used <= min;
        let right = mem_used >= max || cpu_used >= max;
        let sample = format!("cpu {cpu_used:.2}, memory {mem_used:.2} used");
        // With both conditions met the pressure rule holds: right.
        if right {
            if let Some(mode) = self.right_of(current) {
                return self.step(now, mode, format!("{sample}: at or above {max}"));
            }
        } else if left && let Some(mode) = self.left_of(current) {
            return self.step(now, mode, format!("{sample}: at most {min} free"));
        }
        if now - last_step <= self.fallback_interval {
            let end = if right || left {
                ", at the end of the order"
            } else {
                ""
            };
            return Decision::Stay(format!("{sample}{end}"));
        }
        self.last_step = Some(now);
        match self.left_of(current) {
            Some(mode) => {
                let waited = self.fallback_interval.as_secs();
                self.step(
                    now,
                    mode,
                    format!("{sample}: fallback, no step for over {waited} s"),
                )
            }
            None => Decision::Stay(format!("{sample}: there is no fallback")),
        }
    }

    /// The mode was changed by someone else: the fallback timer starts again.
    pub fn changed_from_outside(&mut self, now: Mono) {
        self.last_step = Some(now);
    }

    fn step(&mut self, now: Mono, mode: Mode, why: String) -> Decision {
        self.last_step = Some(now);
        Decision::Step(mode, why)
    }

    fn position(&self, current: Mode) -> Option<usize> {
        self.order.iter().position(|mode| *mode == current)
    }

    fn left_of(&self, current: Mode) -> Option<Mode> {
        self.order
            .get(self.position(current)?.checked_sub(1)?)
            .copied()
    }

    /// The next mode to the right. A mode that is not in the order, set by hand, stands left of all: it holds until
    /// there is pressure, and then the order begins.
    fn right_of(&self, current: Mode) -> Option<Mode> {
        let next = self.position(current).map_or(0, |position| position + 1);
        self.order.get(next).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Mode::{Chain, None as Alone, PrimarySplay, Splay};

    const SHIPPED: Thresholds = Thresholds {
        min: 0.25,
        max: 0.75,
    };
    const HALF_HOUR: Duration = Duration::from_mins(30);

    fn controller(thresholds: Thresholds) -> Controller {
        Controller::new(vec![Splay, Chain, PrimarySplay], thresholds, HALF_HOUR)
    }

    fn at(seconds: u64) -> Mono {
        Mono(seconds * 1_000_000)
    }

    fn stepped(decision: &Decision) -> Option<Mode> {
        match decision {
            Decision::Step(mode, _) => Some(*mode),
            Decision::Stay(_) => None,
        }
    }

    fn record(old: Mode, new: Mode) -> ModeRecord {
        ModeRecord {
            old,
            new,
            timestamp: 100,
            cause: String::new(),
        }
    }

    #[test]
    fn daemon_0_answers_the_mode_in_force_whatever_the_time() {
        for mode in Mode::ALL {
            assert_eq!(effective(NodeId(0), &record(Chain, mode), 0), mode);
        }
    }

    #[test]
    fn daemon_1_answers_chain_or_none_by_the_strictly_greater_timestamp() {
        let one = |old, new, time| effective(NodeId(1), &record(old, new), time);
        assert_eq!(one(Splay, Chain, 101), Chain);
        assert_eq!(one(Splay, Chain, 100), Alone);
        assert_eq!(one(Chain, Splay, 100), Chain);
        assert_eq!(one(Chain, Splay, 101), Alone);
        assert_eq!(one(Chain, PrimarySplay, 100), Alone);
        assert_eq!(one(Chain, PrimarySplay, 101), Alone);
        assert_eq!(one(PrimarySplay, Chain, 100), Alone);
    }

    #[test]
    fn daemons_from_2_on_answer_none() {
        for node in [2, 3, 99] {
            assert_eq!(effective(NodeId(node), &record(Chain, Chain), 101), Alone);
        }
    }

    #[test]
    fn with_the_shipped_thresholds_pressure_steps_right_once_a_round_and_stops_at_the_end() {
        let mut controller = controller(SHIPPED);
        assert_eq!(
            stepped(&controller.sample(at(0), 0.9, 0.1, Splay)),
            Some(Chain)
        );
        assert_eq!(
            stepped(&controller.sample(at(1), 0.1, 0.75, Chain)),
            Some(PrimarySplay)
        );
        assert_eq!(
            stepped(&controller.sample(at(2), 0.9, 0.9, PrimarySplay)),
            None
        );
    }

    #[test]
    fn little_free_without_pressure_steps_left_and_stops_at_the_start() {
        let mut controller = controller(Thresholds { min: 0.5, max: 0.9 });
        assert_eq!(
            stepped(&controller.sample(at(0), 0.6, 0.1, PrimarySplay)),
            Some(Chain)
        );
        assert_eq!(
            stepped(&controller.sample(at(1), 0.1, 0.5, Chain)),
            Some(Splay)
        );
        assert_eq!(stepped(&controller.sample(at(2), 0.1, 0.5, Splay)), None);
    }

    #[test]
    fn when_both_hold_the_step_is_to_the_right() {
        let mut controller = controller(Thresholds {
            min: 0.25,
            max: 0.5,
        });
        assert_eq!(
            stepped(&controller.sample(at(0), 0.8, 0.1, Chain)),
            Some(PrimarySplay)
        );
        assert_eq!(
            stepped(&controller.sample(at(1), 0.8, 0.1, PrimarySplay)),
            None
        );
    }

    #[test]
    fn without_a_step_for_longer_than_the_interval_the_mode_falls_back_to_the_left() {
        let mut controller = controller(SHIPPED);
        assert_eq!(
            stepped(&controller.sample(at(0), 0.5, 0.5, PrimarySplay)),
            None
        );
        assert_eq!(
            stepped(&controller.sample(at(1_800), 0.5, 0.5, PrimarySplay)),
            None
        );
        assert_eq!(
            stepped(&controller.sample(at(1_801), 0.5, 0.5, PrimarySplay)),
            Some(Chain)
        );
        assert_eq!(
            stepped(&controller.sample(at(3_601), 0.5, 0.5, Chain)),
            None
        );
        assert_eq!(
            stepped(&controller.sample(at(3_602), 0.5, 0.5, Chain)),
            Some(Splay)
        );
        let last = controller.sample(at(9_000), 0.5, 0.5, Splay);
        assert!(matches!(last, Decision::Stay(why) if why.ends_with("there is no fallback")));
    }

    #[test]
    fn a_timer_that_ran_out_at_the_start_of_the_order_begins_again() {
        let mut controller = controller(SHIPPED);
        let _ = controller.sample(at(0), 0.5, 0.5, Splay);
        let _ = controller.sample(at(2_000), 0.5, 0.5, Splay);
        assert_eq!(
            stepped(&controller.sample(at(2_100), 0.5, 0.5, Chain)),
            None
        );
        assert_eq!(
            stepped(&controller.sample(at(3_801), 0.5, 0.5, Chain)),
            Some(Splay)
        );
    }

    #[test]
    fn a_step_and_a_change_from_outside_restart_the_fallback_timer() {
        let mut controller = controller(SHIPPED);
        assert_eq!(stepped(&controller.sample(at(0), 0.5, 0.5, Splay)), None);
        assert_eq!(
            stepped(&controller.sample(at(1_000), 0.9, 0.5, Splay)),
            Some(Chain)
        );
        assert_eq!(
            stepped(&controller.sample(at(2_000), 0.5, 0.5, Chain)),
            None
        );
        controller.changed_from_outside(at(2_500));
        assert_eq!(
            stepped(&controller.sample(at(4_300), 0.5, 0.5, Chain)),
            None
        );
        assert_eq!(
            stepped(&controller.sample(at(4_301), 0.5, 0.5, Chain)),
            Some(Splay)
        );
    }

    #[test]
    fn what_is_not_a_number_moves_nothing() {
        let mut controller = controller(SHIPPED);
        for (cpu, memory) in [(f64::NAN, 0.9), (0.9, f64::NAN), (f64::INFINITY, 0.1)] {
            assert_eq!(stepped(&controller.sample(at(0), cpu, memory, Splay)), None);
        }
    }

    #[test]
    fn a_mode_outside_the_order_holds_until_there_is_pressure() {
        let mut controller = controller(Thresholds { min: 0.5, max: 0.9 });
        assert_eq!(stepped(&controller.sample(at(0), 0.6, 0.1, Alone)), None);
        assert_eq!(
            stepped(&controller.sample(at(2_000), 0.1, 0.1, Alone)),
            None
        );
        assert_eq!(
            stepped(&controller.sample(at(2_001), 0.95, 0.1, Alone)),
            Some(Splay)
        );
    }

    #[test]
    fn an_empty_order_never_steps() {
        let mut controller = Controller::new(Vec::new(), SHIPPED, Duration::ZERO);
        assert_eq!(stepped(&controller.sample(at(0), 0.9, 0.9, Chain)), None);
        assert_eq!(stepped(&controller.sample(at(9), 0.1, 0.1, Chain)), None);
    }
}
