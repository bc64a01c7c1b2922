//! A recorded history of operations on names, and whether it could have happened one after another: linearizability, per name.
//!
//! Wing and Gong's search with Lowe's memory of what was tried: an operation takes effect at one moment between its call and its
//! return. What a client was told decides: an answer fixes what the operation saw, a refusal changed nothing, and one whose
//! outcome is unknown may take effect at any moment after its call, or never (rule R5). Reads marked stale are not part of the
//! order; they may only show what somebody had begun to write before they returned.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

/// What identifies a content: no two puts of a history write the same.
pub type Value = u64;

/// What a writer expected to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Anything or nothing.
    Any,
    /// Nothing.
    Absent,
    /// This content (its version, at the door).
    Value(Value),
}

/// An operation and what its client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// A put was kept.
    Put(Value, Expected),
    /// A put was refused because the name did not hold what was expected.
    Mismatch(Expected),
    /// The name was deleted.
    Delete,
    /// A read, or a delete that found nothing (`None`).
    Saw(Option<Value>),
    /// Nobody knows what became of a put.
    MaybePut(Value, Expected),
    /// Nobody knows what became of a delete.
    MaybeDelete,
    /// A put that was refused for another reason: it changed nothing, ever.
    RefusedPut(Value),
    /// A read marked stale.
    SawStale(Option<Value>),
}

/// One operation of one client. Times are nanoseconds since the history began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// When it was sent.
    pub call: u64,
    /// When the answer was there; of no meaning where the outcome is unknown.
    pub answer: u64,
    /// What it was.
    pub done: Done,
}

impl Operation {
    fn is_unknown(&self) -> bool {
        matches!(self.done, Done::MaybePut(..) | Done::MaybeDelete)
    }
}

/// Why a history cannot have happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A value was read that nobody had begun to write, or that was refused.
    FromNowhere(Operation),
    /// No order of these operations explains all answers. The most that could be ordered, and what then fitted no more.
    NoOrder {
        /// Operations in the longest order found.
        longest: Vec<Operation>,
        /// Those that had to come next.
        stuck: Vec<Operation>,
    },
    /// The search grew beyond its bound: nothing is known.
    Undecided,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FromNowhere(read) => write!(f, "nobody wrote what was read: {read:?}"),
            Self::NoOrder { longest, stuck } => {
                writeln!(f, "no order explains the answers; so far it went well:")?;
                for one in longest.iter().rev().take(8).rev() {
                    writeln!(f, "  {one:?}")?;
                }
                writeln!(f, "and none of these fits behind it:")?;
                for one in stuck {
                    writeln!(f, "  {one:?}")?;
                }
                Ok(())
            }
            Self::Undecided => f.write_str("too many unknown outcomes at once to decide"),
        }
    }
}

/// Configurations looked at before the search gives up.
const BOUND: usize = 2_000_000;

/// Whether the operations on one name could have happened one after another.
pub fn check(history: &[Operation]) -> Result<(), Broken> {
    nothing_from_nowhere(history)?;
    let mut operations: Vec<Operation> = history
        .iter()
        .filter(|one| !matches!(one.done, Done::RefusedPut(_) | Done::SawStale(_)))
        .copied()
        .collect();
    drop_idle(&mut operations);
    operations.sort_by_key(|one| (one.call, one.answer));
    Search::new(&operations).run()
}

/// Every value read was being written by then, and its put was not refused.
fn nothing_from_nowhere(history: &[Operation]) -> Result<(), Broken> {
    let begun: BTreeMap<Value, u64> = history
        .iter()
        .filter_map(|one| match one.done {
            Done::Put(value, _) | Done::MaybePut(value, _) => Some((value, one.call)),
            _ => None,
        })
        .collect();
    for one in history {
        if let Done::Saw(Some(value)) | Done::SawStale(Some(value)) = one.done
            && begun.get(&value).is_none_or(|call| *call > one.answer)
        {
            return Err(Broken::FromNowhere(*one));
        }
    }
    Ok(())
}

/// Leaves out what has an unknown outcome and left no trace. Where nothing tells presence from absence but a read of a value, an
/// unknown put that nobody read can be taken out of any order that explains the rest; the same holds for an unknown delete
/// where nobody found nothing.
fn drop_idle(operations: &mut Vec<Operation>) {
    let traces: BTreeSet<Value> = operations
        .iter()
        .filter_map(|one| match one.done {
            Done::Saw(Some(value))
            | Done::Put(_, Expected::Value(value))
            | Done::MaybePut(_, Expected::Value(value)) => Some(value),
            _ => None,
        })
        .collect();
    let tells_presence = operations
        .iter()
        .any(|one| matches!(one.done, Done::Delete | Done::Mismatch(_)));
    let found_nothing = operations.iter().any(|one| {
        matches!(
            one.done,
            Done::Saw(None) | Done::Mismatch(_) | Done::Put(_, Expected::Absent)
        ) || matches!(one.done, Done::MaybePut(value, Expected::Absent) if traces.contains(&value))
    });
    operations.retain(|one| match one.done {
        Done::MaybePut(value, _) => tells_presence || traces.contains(&value),
        Done::MaybeDelete => found_nothing,
        _ => true,
    });
}

/// The state of a name after an operation, if it can take effect in this state.
#[allow(
    clippy::option_option,
    reason = "whether it fits, and what is there then"
)]
fn after(state: Option<Value>, done: Done) -> Option<Option<Value>> {
    let fits = |expected: Expected| match expected {
        Expected::Any => true,
        Expected::Absent => state.is_none(),
        Expected::Value(value) => state == Some(value),
    };
    match done {
        Done::Put(value, expected) | Done::MaybePut(value, expected) => {
            fits(expected).then_some(Some(value))
        }
        Done::Mismatch(expected) => (!fits(expected)).then_some(state),
        Done::Delete => state.is_some().then_some(None),
        Done::MaybeDelete => Some(None),
        Done::Saw(seen) => (seen == state).then_some(state),
        Done::RefusedPut(_) | Done::SawStale(_) => Some(state),
    }
}

/// Which operations have taken effect, one bit each, and what the name holds then.
type Reached = (Vec<u64>, Option<Value>);

struct Search<'a> {
    operations: &'a [Operation],
    taken: Vec<u64>,
    /// Operations with an answer that have not taken effect.
    left: usize,
    state: Option<Value>,
    tried: HashSet<Reached>,
    order: Vec<usize>,
    longest: Vec<usize>,
    stuck: Vec<usize>,
}

impl<'a> Search<'a> {
    fn new(operations: &'a [Operation]) -> Self {
        Self {
            operations,
            taken: vec![0; operations.len().div_ceil(64)],
            left: operations.iter().filter(|one| !one.is_unknown()).count(),
            state: None,
            tried: HashSet::new(),
            order: Vec::new(),
            longest: Vec::new(),
            stuck: Vec::new(),
        }
    }

    fn is_taken(&self, index: usize) -> bool {
        self.taken[index / 64] & (1 << (index % 64)) != 0
    }

    fn flip(&mut self, index: usize) {
        self.taken[index / 64] ^= 1 << (index % 64);
    }

    /// What may take effect next: whatever was called before the first outstanding answer. Answered ones first.
    fn candidates(&self) -> Vec<usize> {
        let open = || (0..self.operations.len()).filter(|index| !self.is_taken(*index));
        let first_answer = open()
            .filter(|index| !self.operations[*index].is_unknown())
            .map(|index| self.operations[index].answer)
            .min()
            .unwrap_or(u64::MAX);
        let mut found: Vec<usize> = open()
            .filter(|index| self.operations[*index].call <= first_answer)
            .collect();
        found.sort_by_key(|index| {
            let one = &self.operations[*index];
            (one.is_unknown(), one.answer)
        });
        found
    }

    fn run(mut self) -> Result<(), Broken> {
        // Each level of the search: the state before it, what may still be tried there.
        let mut levels = vec![(None, self.candidates().into_iter())];
        loop {
            if self.left == 0 {
                return Ok(());
            }
            let Some((before, candidates)) = levels.last_mut() else {
                let name = |indices: &[usize]| {
                    indices
                        .iter()
                        .map(|index| self.operations[*index])
                        .collect()
                };
                return Err(Broken::NoOrder {
                    longest: name(&self.longest),
                    stuck: name(&self.stuck),
                });
            };
            let before = *before;
            let Some(index) = candidates.next() else {
                levels.pop();
                if let Some(last) = self.order.pop() {
                    self.flip(last);
                    self.left += usize::from(!self.operations[last].is_unknown());
                    self.state = levels.last().and_then(|(state, _)| *state);
                }
                continue;
            };
            let Some(state) = after(before, self.operations[index].done) else {
                continue;
            };
            self.flip(index);
            if !self.tried.insert((self.taken.clone(), state)) {
                self.flip(index);
                continue;
            }
            if self.tried.len() > BOUND {
                return Err(Broken::Undecided);
            }
            self.order.push(index);
            self.left -= usize::from(!self.operations[index].is_unknown());
            self.state = state;
            let next = self.candidates();
            if self.order.len() > self.longest.len() {
                self.longest.clone_from(&self.order);
                self.stuck.clone_from(&next);
            }
            levels.push((state, next.into_iter()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(call: u64, answer: u64, done: Done) -> Operation {
        Operation { call, answer, done }
    }

    fn put(call: u64, answer: u64, value: Value) -> Operation {
        one(call, answer, Done::Put(value, Expected::Any))
    }

    fn saw(call: u64, answer: u64, value: Option<Value>) -> Operation {
        one(call, answer, Done::Saw(value))
    }

    fn maybe(call: u64, value: Value) -> Operation {
        one(call, u64::MAX, Done::MaybePut(value, Expected::Any))
    }

    fn is_out_of_order(history: &[Operation]) -> bool {
        matches!(check(history), Err(Broken::NoOrder { .. }))
    }

    #[test]
    fn one_after_another_is_fine() {
        let history = [
            saw(0, 1, None),
            put(2, 3, 1),
            saw(4, 5, Some(1)),
            put(6, 7, 2),
            saw(8, 9, Some(2)),
            one(10, 11, Done::Delete),
            saw(12, 13, None),
        ];
        assert_eq!(check(&history), Ok(()));
        assert_eq!(check(&[]), Ok(()));
    }

    #[test]
    fn a_lost_write_is_found() {
        assert!(is_out_of_order(&[put(0, 1, 1), saw(2, 3, None)]));
        assert!(is_out_of_order(&[
            put(0, 1, 1),
            put(2, 3, 2),
            saw(4, 5, Some(1))
        ]));
    }

    #[test]
    fn what_happens_at_once_may_come_in_either_order_but_in_one_for_all() {
        let both = [put(0, 10, 1), put(0, 10, 2)];
        for last in [1, 2] {
            let history = [both[0], both[1], saw(11, 12, Some(last))];
            assert_eq!(check(&history), Ok(()));
        }
        assert!(is_out_of_order(&[
            both[0],
            both[1],
            saw(11, 12, Some(1)),
            saw(13, 14, Some(2))
        ]));
    }

    #[test]
    fn a_read_that_goes_back_in_time_is_found() {
        let history = [
            put(0, 1, 1),
            put(2, 20, 2),
            saw(3, 4, Some(2)),
            saw(5, 6, Some(1)),
        ];
        assert!(is_out_of_order(&history));
        let forth = [
            put(0, 1, 1),
            put(2, 20, 2),
            saw(3, 4, Some(1)),
            saw(5, 6, Some(2)),
        ];
        assert_eq!(check(&forth), Ok(()));
    }

    #[test]
    fn an_unknown_put_may_come_late_or_never_but_only_once() {
        let never = [put(0, 1, 1), maybe(2, 2), saw(3, 4, Some(1))];
        assert_eq!(check(&never), Ok(()));
        let late = [
            put(0, 1, 1),
            maybe(2, 2),
            saw(3, 4, Some(1)),
            saw(5, 6, Some(2)),
        ];
        assert_eq!(check(&late), Ok(()));
        let twice = [
            put(0, 1, 1),
            maybe(2, 2),
            saw(3, 4, Some(2)),
            put(5, 6, 3),
            saw(7, 8, Some(3)),
            saw(9, 10, Some(2)),
        ];
        assert!(is_out_of_order(&twice));
        let before_it_was_sent = [saw(0, 1, Some(2)), maybe(2, 2)];
        assert!(matches!(
            check(&before_it_was_sent),
            Err(Broken::FromNowhere(_))
        ));
    }

    #[test]
    fn an_unknown_delete_explains_an_absence_and_nothing_else_does() {
        let gone = [
            put(0, 1, 1),
            one(2, u64::MAX, Done::MaybeDelete),
            saw(3, 4, Some(1)),
            saw(5, 6, None),
        ];
        assert_eq!(check(&gone), Ok(()));
        let back = [gone[0], gone[1], gone[3], saw(7, 8, Some(1))];
        assert!(is_out_of_order(&back));
    }

    #[test]
    fn a_delete_that_found_something_needs_something_there() {
        assert!(is_out_of_order(&[one(0, 1, Done::Delete)]));
        // Only the put of unknown outcome can have been there, although nobody read it.
        let history = [maybe(0, 1), one(2, 3, Done::Delete), saw(4, 5, None)];
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn a_refused_put_must_never_be_seen() {
        let history = [one(0, 1, Done::RefusedPut(7)), saw(2, 3, None)];
        assert_eq!(check(&history), Ok(()));
        let seen = [one(0, 1, Done::RefusedPut(7)), saw(2, 3, Some(7))];
        assert!(matches!(check(&seen), Err(Broken::FromNowhere(_))));
        assert!(matches!(
            check(&[saw(0, 1, Some(9))]),
            Err(Broken::FromNowhere(_))
        ));
    }

    #[test]
    fn of_two_that_expect_the_same_one_is_kept() {
        let absent = |call, answer, value| one(call, answer, Done::Put(value, Expected::Absent));
        assert!(is_out_of_order(&[absent(0, 10, 1), absent(0, 10, 2)]));
        let history = [
            absent(0, 10, 1),
            one(0, 10, Done::Mismatch(Expected::Absent)),
            one(11, 12, Done::Put(2, Expected::Value(1))),
            one(11, 12, Done::Mismatch(Expected::Value(1))),
            saw(13, 14, Some(2)),
        ];
        assert_eq!(check(&history), Ok(()));
        let both = [
            absent(0, 10, 1),
            one(11, 12, Done::Put(2, Expected::Value(1))),
            one(11, 12, Done::Put(3, Expected::Value(1))),
        ];
        assert!(is_out_of_order(&both));
        let for_no_reason = [
            put(0, 1, 1),
            one(2, 3, Done::Mismatch(Expected::Value(1))),
            saw(4, 5, Some(1)),
        ];
        assert!(is_out_of_order(&for_no_reason));
    }

    #[test]
    fn a_stale_read_may_be_old_but_not_invented() {
        let stale = |call, answer, value| one(call, answer, Done::SawStale(value));
        let history = [
            put(0, 1, 1),
            put(2, 3, 2),
            stale(4, 5, Some(1)),
            stale(6, 7, None),
            saw(8, 9, Some(2)),
        ];
        assert_eq!(check(&history), Ok(()));
        assert!(matches!(
            check(&[stale(0, 1, Some(1)), put(2, 3, 1)]),
            Err(Broken::FromNowhere(_))
        ));
    }

    /// A machine that does one thing at a time, seen by clients whose calls and answers take their while.
    fn played(seed: u64, length: u64, slow: u64, lose: Option<u64>) -> Vec<Operation> {
        let mut chance = seed | 1;
        let mut state = None;
        let mut history = Vec::new();
        for step in 0..length {
            let moment = 100 * (step + 1);
            let (early, late) = (
                crate::ledger::next(&mut chance) % slow,
                crate::ledger::next(&mut chance) % slow,
            );
            let done = match crate::ledger::next(&mut chance) % 8 {
                0..=2 => {
                    // The broken one says that it has kept it and forgets it.
                    if lose != Some(step) {
                        state = Some(step);
                    }
                    Done::Put(step, Expected::Any)
                }
                3 if state.take().is_some() => Done::Delete,
                3 => Done::Saw(None),
                4 => {
                    if crate::ledger::next(&mut chance).is_multiple_of(2) {
                        state = Some(step);
                    }
                    Done::MaybePut(step, Expected::Any)
                }
                _ => Done::Saw(state),
            };
            history.push(one(moment.saturating_sub(early), moment + late, done));
        }
        history
    }

    #[test]
    fn what_a_correct_machine_answers_is_always_accepted() {
        for seed in 1..200 {
            assert_eq!(check(&played(seed, 60, 250, None)), Ok(()), "seed {seed}");
        }
    }

    #[test]
    fn what_a_forgetful_machine_answers_is_found_whenever_it_shows() {
        let mut found = 0;
        for seed in 1..200 {
            let history = played(seed, 60, 60, Some(20 + seed % 10));
            found += usize::from(is_out_of_order(&history));
        }
        // A forgotten put shows only where the step was a put and somebody looked in time.
        assert!(found >= 20, "{found}");
    }

    /// The definition, word by word: some of the unknown ones and all others, in some order that respects time and answers.
    fn by_trying_all(open: &[Operation], state: Option<Value>) -> bool {
        if open.iter().all(Operation::is_unknown) {
            return true;
        }
        (0..open.len()).any(|index| {
            let first = open[index];
            let in_time = open
                .iter()
                .all(|other| other.is_unknown() || first.call <= other.answer);
            let mut rest = open.to_vec();
            rest.remove(index);
            in_time && after(state, first.done).is_some_and(|state| by_trying_all(&rest, state))
        })
    }

    #[test]
    fn the_search_says_what_trying_all_orders_says() {
        let mut chance = 77;
        let (mut fine, mut broken) = (0, 0);
        for _ in 0..20_000 {
            let mut history = Vec::new();
            for value in 0..6_u64 {
                let mut draw = |below: u64| crate::ledger::next(&mut chance) % below;
                let call = draw(12);
                let some = |draw: u64| draw.checked_sub(1);
                let expected = match draw(4) {
                    0 => Expected::Absent,
                    1 => Expected::Value(draw(6)),
                    _ => Expected::Any,
                };
                let done = match draw(9) {
                    0..=2 => Done::Put(value, expected),
                    3 => Done::MaybePut(value, expected),
                    4 => Done::MaybeDelete,
                    5 => Done::Delete,
                    6 => Done::Mismatch(expected),
                    _ => Done::Saw(some(draw(7))),
                };
                history.push(one(call, call + 1 + draw(6), done));
            }
            let said = check(&history);
            // What came from nowhere has no order either.
            assert_eq!(
                said.is_ok(),
                by_trying_all(&history, None),
                "{history:?}: {said:?}"
            );
            if said.is_ok() {
                fine += 1;
            } else {
                broken += 1;
            }
        }
        assert!(fine > 300 && broken > 300, "{fine} {broken}");
    }
}
