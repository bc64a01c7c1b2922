//! Laws of the doors: whatever comes in, in whatever pieces, they end, answer the same, and leave nothing unsent.

use momo::config::TextAdmin;
use momo::doors::{DOORS, Door, Limits, Session};
use proptest::prelude::*;

use crate::fake::{End, FakeVerbs, ScriptedWire, Step};
use crate::{damaged, law, noise};

/// What a door says to these pieces.
pub(crate) fn answer(door: &Door, pieces: &[&[u8]]) -> (Vec<u8>, End) {
    let verbs = FakeVerbs::new();
    let limits = Limits::default();
    let session = Session {
        verbs: &verbs,
        limits: &limits,
        text_admin: TextAdmin::Open,
    };
    let steps = pieces.iter().filter(|piece| !piece.is_empty());
    let mut wire = ScriptedWire::new(steps.map(|piece| Step::now(piece)));
    (door.serve)(&session, &mut wire);
    (wire.output(), wire.end())
}

pub(crate) fn conversation() -> impl Strategy<Value = Vec<u8>> {
    let samples: Vec<&[u8]> = vec![
        b"FILE PUT 6 -- a\nhello\n", b"FILE GET a\n", b"FILE PUSH 3 half\nxyz", b"FILE GET half\n",
        b"FILE LIST\n", b"NODE PING\n", b"MODE 1\n", b"MODE\n", b"STATUS\n", b"FILE DELETE a\n",
        b"FILE PUT 4 -- refused\nabcd", b"FILE STAT a\n", b"QUIT\n", b"\n", b"FILE PULL a\n",
        b"1557906926566451195", b"b1946ac92492d2347c6235b4d2611184demo.txt::::::::::::::::::::::::::::::::::::::::::::::::::::::::6:::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::hello\n",
        b"{\"old\":2,\"new\":1,\"timestamp\":1763668800000000001}",
    ];
    let talk = prop::collection::vec(prop::sample::select(samples), 1..8);
    let near = (talk, any::<u64>()).prop_map(|(talk, seed)| damaged(talk.concat(), seed));
    prop_oneof![1 => noise(), 4 => near]
}

#[test]
fn the_answer_does_not_depend_on_how_the_bytes_are_cut() {
    let inputs = (conversation(), prop::collection::vec(0..400_usize, 0..6));
    law(inputs, |(bytes, mut cuts)| {
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts.iter().copied().chain([bytes.len()]) {
            let to = cut.clamp(from, bytes.len());
            pieces.push(&bytes[from..to]);
            from = to;
        }
        let ones: Vec<_> = bytes.chunks(1).collect();
        for door in DOORS {
            let whole = answer(door, &[&bytes]);
            for other in [answer(door, &ones), answer(door, &pieces)] {
                if whole.1 == End::Reset {
                    // A reset may overtake what was answered before it.
                    prop_assert_eq!(other.1, End::Reset);
                    prop_assert!(other.0.starts_with(&whole.0), "{}", door.name);
                } else {
                    prop_assert_eq!(&other.0, &whole.0, "{}", door.name);
                }
            }
        }
        Ok(())
    });
}
