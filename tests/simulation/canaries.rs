//! Six deliberately broken builds, each of which the ordinary seeds must catch. The switch (`base::canary`) is compiled only with debug assertions: there is none in a release build.

use momo::base::canary::{self, Canary};

use crate::plan::Plan;
use crate::{each, number, run};

/// Where to begin to look for a seed that catches each, so that an ordinary test run finds one soon.
const FROM: [(Canary, u64); 6] = [
    (Canary::AcknowledgeBeforeSync, 1),
    (Canary::ForgetLightReady, 1),
    (Canary::CountStaleCopy, 1),
    (Canary::CollectWithoutRead, 121),
    (Canary::WipedVoterVotes, 1),
    (Canary::DropQueuedJob, 121),
];
/// So many seeds are tried at most.
const MOST: u64 = 200;

/// Why the seed does not hold with this fault; `None` when it does not catch it.
fn caught(canary: Canary, seed: u64) -> Option<String> {
    canary::choose(Some(canary));
    let result = run(&Plan::new(seed)).1.err();
    canary::choose(None);
    // What does not hold without the fault either says nothing about it.
    result.filter(|_| run(&Plan::new(seed)).1.is_ok())
}

#[test]
fn each_canary_is_caught_within_two_hundred_seeds() {
    // Its name, or anything else for all: looked for from the first seed on.
    let wanted = std::env::var("SIM_CANARY").ok();
    let one = |canary: &Canary| Some(format!("{canary:?}")) == wanted;
    let any = Canary::ALL.iter().any(one);
    for (canary, from) in FROM.into_iter().filter(|(canary, _)| !any || one(canary)) {
        let from = if wanted.is_some() { 1 } else { from };
        let first = number("SIM_FIRST").unwrap_or(from);
        let mut found = Vec::new();
        for from in (first..first + MOST).step_by(4) {
            found = each(from..from + 4, |seed| match caught(canary, seed) {
                None => Ok(()),
                Some(why) => {
                    let line = why.lines().next().unwrap_or("");
                    Err(format!("{canary:?}: seed {seed}: {line}"))
                }
            });
            if !found.is_empty() {
                break;
            }
        }
        println!("{canary:?}: caught by {found:?}");
        assert!(!found.is_empty(), "{canary:?} goes unseen");
    }
}
