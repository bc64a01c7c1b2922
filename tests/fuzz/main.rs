//! Laws of everything that reads what others wrote: it never panics, takes no more than it was given, reads back what it prints, and sees
//! the same whether bytes come one at a time or all at once. `FUZZ_CASES` sets how many inputs each law gets (default 256).
//!
//! A law that fails prints the smallest input found; write it down as a test beside the grammar. `corpus` looks for more of them
//! with inputs that are kept from run to run.

#[path = "../transcripts/fake.rs"]
#[allow(dead_code)]
mod fake;

#[path = "../harness/alone.rs"]
#[allow(dead_code)]
mod alone;

mod change;
mod corpus;
mod disks;
mod doors;
mod first;
mod formats;
mod log;
mod momo_header;
mod mutate;
mod peer;
mod servers;
mod text;

use std::fmt::Debug;

use momo::base::random::Random;
use momo::wire::parsed::Parsed;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Checks a law on as many inputs as asked for.
fn law<S: Strategy>(inputs: S, holds: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let cases = std::env::var("FUZZ_CASES").ok();
    let config = Config {
        cases: cases.map_or(256, |cases| cases.parse().expect("FUZZ_CASES is a number")),
        failure_persistence: None,
        ..Config::default()
    };
    if let Err(error) = TestRunner::new(config).run(&inputs, holds) {
        panic!("{error}");
    }
}

/// Any bytes at all.
pub(crate) fn noise() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..300)
}

/// A few bytes of `bytes` changed, removed or doubled: nearly right is where the mistakes are.
pub(crate) fn damaged(mut bytes: Vec<u8>, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    for _ in 0..random.below(4) {
        if bytes.is_empty() {
            break;
        }
        let at = usize::try_from(random.below(bytes.len() as u64)).unwrap();
        match random.below(4) {
            0 => bytes[at] = random.next().to_le_bytes()[0],
            1 => bytes[at] ^= 1 << random.below(8),
            2 => drop(bytes.remove(at)),
            _ => bytes.insert(at, bytes[at]),
        }
    }
    bytes
}

/// The laws of a grammar on one input: a value takes at most what there is and follows from the bytes it took; more bytes do not change what
/// was already decided, so that one at a time equals all at once; and at the end of the input nothing is left open.
fn grammar<T: Debug + PartialEq, E: Debug + PartialEq>(
    bytes: &[u8],
    parse: impl for<'a> Fn(&'a [u8], bool) -> Parsed<T, E>,
) -> Result<(), TestCaseError> {
    let whole = parse(bytes, false);
    if let Parsed::Complete { consumed, .. } = &whole {
        prop_assert!(*consumed <= bytes.len());
        prop_assert!(*consumed > 0);
        prop_assert_eq!(&parse(&bytes[..*consumed], false), &whole);
    }
    let first = (0..=bytes.len())
        .map(|length| parse(&bytes[..length], false))
        .find(|parsed| *parsed != Parsed::Incomplete);
    prop_assert_eq!(first.unwrap_or(Parsed::Incomplete), whole);
    Ok(())
}

/// `parse(print(value)) = value`, with nothing left over, whatever follows.
fn round_trip<T: Debug + PartialEq, E: Debug + PartialEq>(
    value: &T,
    printed: &[u8],
    parse: impl Fn(&[u8]) -> Parsed<T, E>,
) -> Result<(), TestCaseError> {
    for rest in [&b""[..], b"x", b"\n{}9"] {
        let bytes = [printed, rest].concat();
        match parse(&bytes) {
            Parsed::Complete {
                value: read,
                consumed,
            } => {
                prop_assert_eq!(&read, value);
                prop_assert_eq!(consumed, printed.len());
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }
    Ok(())
}

/// A name as the catalog takes it, with the signs that the protocols treat specially.
pub(crate) fn name() -> impl Strategy<Value = momo::base::path::FilePath> {
    let sign = prop_oneof![
        Just(' '),
        Just(':'),
        Just(','),
        Just('"'),
        Just('|'),
        Just('='),
        Just('-'),
        Just('.'),
        prop::char::range('a', 'e'),
        prop::char::range('0', '9'),
        prop::char::any(),
    ];
    let component = prop::collection::vec(sign, 1..12).prop_map(String::from_iter);
    let ending = prop_oneof![
        4 => Just(String::new()),
        1 => any::<u64>().prop_map(|n| format!(" version {n}")),
        1 => Just(" -- x".to_owned()),
    ];
    (prop::collection::vec(component, 1..4), ending).prop_filter_map("a name", |(parts, ending)| {
        momo::base::path::FilePath::new(&format!("{}{ending}", parts.join("/"))).ok()
    })
}

pub(crate) fn sha256() -> impl Strategy<Value = momo::base::digest::Sha256> {
    any::<[u8; 32]>().prop_map(momo::base::digest::Sha256)
}

pub(crate) fn md5() -> impl Strategy<Value = momo::base::digest::Md5> {
    any::<[u8; 16]>().prop_map(momo::base::digest::Md5)
}

pub(crate) fn mode() -> impl Strategy<Value = momo::wire::record::Mode> {
    prop::sample::select(&momo::wire::record::Mode::ALL)
}
