//! Six deliberately broken builds, each of which the ordinary seeds must catch. The switch (`base::canary`) is compiled only with debug assertions: there is none in a release build.

use momo::base::canary::{self, Canary};

use crate::plan::Plan;
use crate::{each, number, run};

/// The first seed that is known to catch each; `SIM_CANARY=1` looks for it again.
const KNOWN: [(Canary, u64); 6] = [
    (Canary::AcknowledgeBeforeSync, 1),
    (Canary::ForgetLightReady, 1),
    (Canary::CountStaleCopy, 1),
    (Canary::CollectWithoutRead, 1),
    (Canary::WipedVoterVotes, 1),
    (Canary::DropQueuedJob, 1),
];

/// Why the seed does not hold with this fault; `None` when it does not catch it.
fn caught(canary: Canary, seed: u64) -> Option<String> {
    canary::choose(Some(canary));
    let result = run(&Plan::new(seed)).1.err();
    canary::choose(None);
    result
}

#[test]
fn each_canary_is_caught_by_a_seed_known_to_catch_it() {
    for (canary, seed) in KNOWN {
        let why = caught(canary, seed);
        let line = why.as_deref().and_then(|why| why.lines().next());
        println!("{canary:?}: seed {seed}: {line:?}");
        assert!(why.is_some(), "{canary:?} goes unseen with seed {seed}");
        assert_eq!(
            run(&Plan::new(seed)).1.err(),
            None,
            "seed {seed} without it"
        );
    }
}

#[test]
fn each_canary_is_caught_within_two_hundred_seeds() {
    // Its name, or anything else for all.
    let Ok(wanted) = std::env::var("SIM_CANARY") else {
        return;
    };
    let one = |canary: &Canary| format!("{canary:?}") == wanted;
    let any = Canary::ALL.iter().any(one);
    for canary in Canary::ALL.into_iter().filter(|canary| !any || one(canary)) {
        let first = number("SIM_FIRST").unwrap_or(1);
        let mut found = Vec::new();
        for from in (first..first + 200).step_by(10) {
            found = each(from..from + 10, |seed| match caught(canary, seed) {
                None => Ok(()),
                Some(why) => Err(format!(
                    "{canary:?}: seed {seed}: {}",
                    why.lines().next().unwrap_or("")
                )),
            });
            if !found.is_empty() {
                break;
            }
        }
        println!("{canary:?}: caught by {found:?}");
        assert!(!found.is_empty(), "{canary:?} goes unseen");
    }
}
