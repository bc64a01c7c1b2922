//! What a supervisor decides about one daemon: when to start it, when to kill it, how long to wait before the next start.
//!
//! Events in, orders out, time and chance from outside; whoever carries the orders out is in `supervise`. There is one order
//! to start for each end, so there are never two processes of a daemon.

use std::time::Duration;

use crate::base::random::Random;
use crate::base::time::Mono;
use crate::config::Config;

/// A daemon that served so long has recovered: the next wait is the shortest again.
const STEADY: Duration = Duration::from_mins(1);
/// The wait before the first start again, at most; it doubles from there.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Beyond its own drain time a daemon that stops gets so much for everything else.
const STOP_MARGIN: Duration = Duration::from_secs(10);
/// A killed process is gone by then, unless the kernel holds it (a disk that does not answer).
const DYING: Duration = Duration::from_secs(10);
/// How often it is said that one is still held.
const DYING_AGAIN: Duration = Duration::from_mins(1);

/// How long a daemon may take for what. All are longer than nothing.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// From its start until its doors are open.
    pub start: Duration,
    /// Between two heartbeats.
    pub silence: Duration,
    /// From the order to stop until it has ended.
    pub stop: Duration,
    /// The longest wait before another start.
    pub backoff: Duration,
}

impl Times {
    /// What the configuration says.
    pub fn of(config: &Config) -> Self {
        Self {
            start: config.lfd.start_timeout,
            silence: config.lfd.timeout,
            stop: config.server.drain + STOP_MARGIN,
            backoff: config.lfd.backoff,
        }
    }
}

/// What happened to a daemon, or is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its doors are open.
    Ready,
    /// A heartbeat: its driver turns.
    Alive,
    /// It says that it stops.
    Stopping,
    /// Its process has ended and is no more, or could not be started.
    Ended,
    /// It is to be stopped for good, with its drain.
    Stop,
    /// It is to be stopped for good, at once.
    Cut,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Start the process. [`Event::Ended`] follows if that fails.
    Start,
    /// Send SIGTERM.
    Terminate,
    /// Send SIGKILL.
    Kill(Reason),
    /// Say that the killed process has still not ended; nothing can be done, and no other one is started.
    Held,
}

/// Why a daemon is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No heartbeat after this many.
    Silent {
        /// Heartbeats of this process until then.
        heartbeats: u64,
    },
    /// Its doors did not open in time.
    NotOpen,
    /// It did not stop in time.
    NotStopped,
    /// The operator does not want to wait.
    Cut,
}

/// Where a daemon is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// No process; the next start comes.
    Resting,
    /// The process runs, its doors are not open.
    Starting,
    /// It serves.
    Up,
    /// It stops, by order or of its own.
    Leaving,
    /// It was killed and has not ended.
    Dying,
    /// No process, and none will be started.
    Gone,
}

impl Stage {
    /// For people and for records.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Resting => "waiting",
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Leaving => "stopping",
            Self::Dying => "killed",
            Self::Gone => "stopped",
        }
    }
}

/// One daemon under supervision.
#[derive(Clone, Debug)]
pub struct Watch {
    times: Times,
    chance: Random,
    stage: Stage,
    /// When the stage ends by itself.
    until: Mono,
    /// Whether it is to be started no more.
    stop: bool,
    started: Mono,
    /// Whether this process has been up.
    opened: bool,
    heartbeats: u64,
    starts: u64,
    /// Ends in a row without [`STEADY`] between them.
    failures: u32,
    /// It had to be killed although it was asked to stop.
    forced: bool,
    pending: Option<Order>,
}

impl Watch {
    /// A daemon that is to be started at once.
    pub const fn new(times: Times, chance: Random, now: Mono) -> Self {
        Self {
            times,
            chance,
            stage: Stage::Resting,
            until: now,
            stop: false,
            started: now,
            opened: false,
            heartbeats: 0,
            starts: 0,
            failures: 0,
            forced: false,
            pending: None,
        }
    }

    /// Takes an event in. Orders follow from [`Self::poll`].
    pub fn handle(&mut self, event: Event, now: Mono) {
        use Stage::{Dying, Gone, Leaving, Resting, Starting, Up};
        match (event, self.stage) {
            (Event::Ready, Starting) => {
                self.opened = true;
                self.enter(Up, now + self.times.silence);
            }
            (Event::Alive, Up) => {
                self.heartbeats += 1;
                self.until = now + self.times.silence;
            }
            (Event::Stopping, Starting | Up) => self.enter(Leaving, now + self.times.stop),
            (Event::Ended, Starting | Up | Leaving | Dying) => self.ended(now),
            (Event::Stop | Event::Cut, Resting) => {
                self.stop = true;
                self.enter(Gone, now);
            }
            (Event::Stop, Starting | Up) => {
                self.stop = true;
                self.pending = Some(Order::Terminate);
                self.enter(Leaving, now + self.times.stop);
            }
            (Event::Cut, Starting | Up | Leaving) => self.kill(Reason::Cut, now),
            (Event::Stop, Leaving | Dying) | (Event::Cut, Dying) => self.stop = true,
            // Late words of a process that is on its way out, and events that cannot concern one that is not there.
            (Event::Ready | Event::Alive | Event::Stopping | Event::Ended, _)
            | (Event::Stop | Event::Cut, Gone) => {}
        }
    }

    /// The next order, if there is one now.
    pub fn poll(&mut self, now: Mono) -> Option<Order> {
        if let Some(order) = self.pending.take() {
            return Some(order);
        }
        if self.stage == Stage::Gone || now < self.until {
            return None;
        }
        match self.stage {
            Stage::Resting => {
                self.started = now;
                self.opened = false;
                self.heartbeats = 0;
                self.starts += 1;
                self.enter(Stage::Starting, now + self.times.start);
                return Some(Order::Start);
            }
            Stage::Starting => self.kill(Reason::NotOpen, now),
            Stage::Up => {
                let heartbeats = self.heartbeats;
                self.kill(Reason::Silent { heartbeats }, now);
            }
            Stage::Leaving => self.kill(Reason::NotStopped, now),
            Stage::Dying => {
                self.until = now + DYING_AGAIN;
                return Some(Order::Held);
            }
            Stage::Gone => {}
        }
        self.pending.take()
    }

    /// When to call [`Self::poll`] at the latest; `None` when nothing more will come.
    pub const fn deadline(&self) -> Option<Mono> {
        match self.stage {
            Stage::Gone => None,
            _ => Some(self.until),
        }
    }

    /// The supervisor itself did not run for so long (it was stopped, or the machine stood still): that time counts against no daemon.
    pub fn excuse(&mut self, gap: Duration) {
        if self.stage != Stage::Resting {
            self.until = self.until + gap;
        }
    }

    /// Where it is in its life.
    pub const fn stage(&self) -> Stage {
        self.stage
    }

    /// How often it was started.
    pub const fn starts(&self) -> u64 {
        self.starts
    }

    /// Heartbeats of this process.
    pub const fn heartbeats(&self) -> u64 {
        self.heartbeats
    }

    /// Ends in a row without a minute of service between them.
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether it had to be killed although it was asked to stop.
    pub const fn forced(&self) -> bool {
        self.forced
    }

    fn ended(&mut self, now: Mono) {
        if self.stop {
            self.enter(Stage::Gone, now);
            return;
        }
        if self.opened && now - self.started >= STEADY {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        let wait = self.wait();
        self.enter(Stage::Resting, now + wait);
    }

    /// Between half and all of what has doubled with each failure: daemons that die of one cause do not come back in step.
    fn wait(&mut self) -> Duration {
        let doubled = 2_u32
            .checked_pow(self.failures.saturating_sub(1))
            .and_then(|factor| FIRST_WAIT.checked_mul(factor))
            .unwrap_or(self.times.backoff);
        let most = doubled.min(self.times.backoff);
        let most_us = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(most_us / 2 + self.chance.below(most_us / 2 + 1))
    }

    fn kill(&mut self, reason: Reason, now: Mono) {
        if reason == Reason::Cut {
            self.stop = true;
        }
        self.forced |= self.stop;
        self.pending = Some(Order::Kill(reason));
        self.enter(Stage::Dying, now + DYING);
    }

    const fn enter(&mut self, stage: Stage, until: Mono) {
        self.stage = stage;
        self.until = until;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times {
        start: Duration::from_secs(100),
        silence: Duration::from_secs(3),
        stop: Duration::from_secs(20),
        backoff: Duration::from_secs(30),
    };

    const fn at(seconds: u64) -> Mono {
        Mono(seconds * 1_000_000)
    }

    fn watch() -> Watch {
        Watch::new(TIMES, Random::new(1), at(0))
    }

    /// A daemon that serves since second 1.
    fn up() -> Watch {
        let mut watch = watch();
        assert_eq!(watch.poll(at(0)), Some(Order::Start));
        watch.handle(Event::Ready, at(1));
        assert_eq!(watch.stage(), Stage::Up);
        watch
    }

    #[test]
    fn a_daemon_is_started_once_and_left_alone_while_its_heart_beats() {
        let mut watch = up();
        for second in 1..100 {
            watch.handle(Event::Alive, at(second));
            assert_eq!(watch.poll(at(second)), None);
            assert_eq!(watch.poll(at(second + 2)), None);
        }
        assert_eq!((watch.starts(), watch.heartbeats()), (1, 99));
    }

    #[test]
    fn silence_is_the_end_of_a_process_and_the_next_one_waits_until_it_is_gone() {
        let mut watch = up();
        watch.handle(Event::Alive, at(2));
        let silent = Reason::Silent { heartbeats: 1 };
        assert_eq!(watch.poll(at(5)), Some(Order::Kill(silent)));
        // A stopped process does not hear, a held one does not end: no second process beside it, ever.
        watch.handle(Event::Alive, at(6));
        assert_eq!(watch.poll(at(14)), None);
        assert_eq!(watch.poll(at(15)), Some(Order::Held));
        assert_eq!(watch.poll(at(16)), None);
        assert_eq!(watch.poll(at(75)), Some(Order::Held));
        watch.handle(Event::Ended, at(76));
        assert_eq!(watch.poll(at(77)), Some(Order::Start));
        assert_eq!(watch.poll(at(77)), None);
        assert!(!watch.forced());
    }

    #[test]
    fn doors_that_do_not_open_are_waited_for_longer_than_a_heartbeat() {
        let mut watch = watch();
        assert_eq!(watch.poll(at(0)), Some(Order::Start));
        assert_eq!(watch.poll(at(99)), None);
        assert_eq!(watch.poll(at(100)), Some(Order::Kill(Reason::NotOpen)));
    }

    #[test]
    fn one_that_keeps_dying_is_waited_for_longer_and_longer_and_never_given_up() {
        let mut watch = watch();
        let (mut now, mut last) = (Mono(0), Duration::ZERO);
        for round in 0..200 {
            assert_eq!(watch.poll(now), Some(Order::Start), "{round}");
            let ended = now + Duration::from_millis(5);
            watch.handle(Event::Ended, ended);
            let next = watch.deadline().unwrap();
            let wait = next - ended;
            assert!(wait <= TIMES.backoff && wait >= FIRST_WAIT / 2);
            assert!(
                round > 7 || wait >= last,
                "{round}: {wait:?} after {last:?}"
            );
            assert!(round < 8 || wait >= TIMES.backoff / 2);
            (now, last) = (next, wait);
        }
        // A minute of service, and the wait is the shortest again.
        assert_eq!(watch.poll(now), Some(Order::Start));
        watch.handle(Event::Ready, now);
        watch.handle(Event::Ended, now + STEADY);
        assert_eq!(watch.failures(), 1);
        assert!(watch.deadline().unwrap() - (now + STEADY) <= FIRST_WAIT);
    }

    #[test]
    fn one_that_is_asked_to_stop_is_not_started_again() {
        let mut watch = up();
        watch.handle(Event::Stop, at(2));
        assert_eq!(watch.poll(at(2)), Some(Order::Terminate));
        watch.handle(Event::Stopping, at(2));
        watch.handle(Event::Stop, at(3));
        assert_eq!(watch.poll(at(10)), None);
        watch.handle(Event::Ended, at(11));
        assert_eq!((watch.stage(), watch.forced()), (Stage::Gone, false));
        assert_eq!((watch.poll(at(99)), watch.deadline()), (None, None));
        let mut resting = watch.clone();
        resting.stop = false;
        resting.enter(Stage::Resting, at(100));
        resting.handle(Event::Stop, at(20));
        assert_eq!(resting.stage(), Stage::Gone);
    }

    #[test]
    fn one_that_does_not_stop_in_time_is_killed_and_that_is_remembered() {
        let mut watch = up();
        watch.handle(Event::Stop, at(2));
        assert_eq!(watch.poll(at(2)), Some(Order::Terminate));
        assert_eq!(watch.poll(at(22)), Some(Order::Kill(Reason::NotStopped)));
        watch.handle(Event::Ended, at(23));
        assert_eq!((watch.stage(), watch.forced()), (Stage::Gone, true));
        let mut impatient = up();
        impatient.handle(Event::Stop, at(2));
        impatient.handle(Event::Cut, at(3));
        assert_eq!(impatient.poll(at(3)), Some(Order::Kill(Reason::Cut)));
        assert_eq!(impatient.poll(at(3)), None);
    }

    #[test]
    fn one_that_stops_of_its_own_has_its_drain_and_comes_back() {
        let mut watch = up();
        watch.handle(Event::Stopping, at(2));
        assert_eq!(watch.poll(at(21)), None);
        watch.handle(Event::Ended, at(21));
        assert_eq!(watch.stage(), Stage::Resting);
        assert_eq!(watch.poll(at(22)), Some(Order::Start));
        assert_eq!(watch.poll(at(99)), None);
    }

    #[test]
    fn time_in_which_the_supervisor_stood_still_is_no_silence() {
        let mut watch = up();
        watch.excuse(Duration::from_hours(1));
        assert_eq!(watch.poll(at(3_601)), None);
        assert!(watch.poll(at(3_605)).is_some());
    }
}
