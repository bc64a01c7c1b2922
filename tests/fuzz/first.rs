//! Laws of telling protocols apart.

use momo::wire::first::{DECIDED_BYTES, First, first};
use proptest::prelude::*;

use crate::{damaged, law, noise};

pub(crate) fn beginnings() -> impl Strategy<Value = Vec<u8>> {
    let samples: Vec<&[u8]> = vec![
        b"\x01momo-p1",
        b"1557906926566451195",
        b"{\"old\":2}",
        b"<C1,client>",
        b"GET / HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"CLIENT_REGISTER|1|",
        b"FILE LIST\n",
        b"PUT x",
        b"STATUS",
        b"DELETE",
    ];
    let near = (prop::sample::select(samples), any::<u64>());
    prop_oneof![
        noise(),
        near.prop_map(|(bytes, seed)| damaged(bytes.to_vec(), seed))
    ]
}

#[test]
fn a_decision_is_never_taken_back() {
    law(beginnings(), |bytes| {
        let mut decided = None;
        for length in 0..=bytes.len() {
            let now = first(&bytes[..length], false);
            match decided {
                Some(before) => prop_assert_eq!(now, before),
                None if now != First::Undecided => decided = Some(now),
                None => prop_assert!(length < DECIDED_BYTES),
            }
        }
        prop_assert_ne!(first(&bytes, true), First::Undecided);
        if let Some(decided) = decided {
            prop_assert_eq!(first(&bytes, true), decided);
        }
        Ok(())
    });
}
