//! Laws of the change of mode.

use momo::wire::change::{Answer, Change, Triple, parse};
use momo::wire::parsed::Parsed;
use proptest::prelude::*;

use crate::{damaged, grammar, law, mode, noise};

pub(crate) fn triple() -> impl Strategy<Value = Triple> {
    (mode(), mode(), any::<u64>()).prop_map(|(old, new, timestamp)| Triple {
        old,
        new,
        timestamp,
    })
}

fn printed(triple: &Triple) -> Vec<u8> {
    let mut out = Vec::new();
    triple.print(&mut out);
    out
}

#[test]
fn objects_end_where_their_braces_close() {
    let near = (triple(), any::<u64>()).prop_map(|(triple, seed)| damaged(printed(&triple), seed));
    let braces = "[{}\"\\\\a: ,0-9]{0,40}".prop_map(String::into_bytes);
    law(prop_oneof![noise(), near, braces], |bytes| {
        grammar(&bytes, parse)?;
        prop_assert_ne!(parse(&bytes, true), Parsed::Incomplete);
        let _ = Answer::parse(&bytes);
        Ok(())
    });
}

#[test]
fn what_is_printed_is_read_back() {
    law((triple(), ".*"), |(triple, why)| {
        let change = Change {
            new: triple.new,
            timestamp: triple.timestamp,
        };
        crate::round_trip(&change, &printed(&triple), |bytes| parse(bytes, false))?;
        for answer in [Answer::Changed(triple), Answer::Refused(why.clone())] {
            let mut line = Vec::new();
            answer.print(&mut line);
            prop_assert_eq!(
                line.iter().position(|byte| *byte == b'\n'),
                Some(line.len() - 1)
            );
            prop_assert_eq!(Answer::parse(&line), Some(answer));
        }
        Ok(())
    });
}
