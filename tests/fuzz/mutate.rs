//! Nearly right bytes: a seeded mutator that knows the mistakes which parsers make, and the way back to a small failing input.

use std::sync::Arc;

use momo::base::random::Random;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Longest input made by mutation, in bytes: beyond every line and object limit of the text protocols.
const LONGEST: usize = 80 * 1024;

/// Numbers where parsers go wrong, as text.
const NUMBERS: [&str; 14] = [
    "0",
    "-1",
    "+5",
    "007",
    "255",
    "65535",
    "65536",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e999",
];

/// Words that mean something somewhere.
const WORDS: [&[u8]; 22] = [
    b"\n",
    b"\r\n",
    b"\0",
    b" -- ",
    b" version ",
    b"..",
    b"/",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b"null",
    b":",
    b"\xff\xfe",
    "\u{feff}".as_bytes(),
    "\u{202e}".as_bytes(),
    b".part-001-of-002",
    b".momo",
    b"=",
];

/// A value of a strategy, the same for the same state of `random`.
pub fn draw<S: Strategy>(strategy: &S, random: &mut Random) -> S::Value {
    let mut seed = [0; 32];
    for chunk in seed.chunks_exact_mut(8) {
        chunk.copy_from_slice(&random.next().to_le_bytes());
    }
    let config = Arc::new(Config::default());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::clone(&config), rng);
    strategy.new_tree(&mut runner).expect("a value").current()
}

fn below(random: &mut Random, bound: usize) -> usize {
    usize::try_from(random.below(bound.max(1) as u64)).expect("below a usize")
}

/// A range inside `bytes`, perhaps empty.
fn range(random: &mut Random, bytes: &[u8]) -> std::ops::Range<usize> {
    let from = below(random, bytes.len() + 1);
    let most = if random.one_in(4) { bytes.len() } else { 16 };
    let length = below(random, most.min(bytes.len() - from) + 1);
    from..from + length
}

/// Changes `bytes` a few times; `other` is another input of the same format.
pub fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(4) {
        once(bytes, other, random);
        bytes.truncate(LONGEST);
    }
}

fn once(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = below(random, bytes.len() + 1);
    match random.below(12) {
        0 | 1 => {
            let bit = 1 << random.below(8);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= bit;
            }
        }
        2 => {
            let value = random.next().to_le_bytes()[0];
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        3 => drop(bytes.drain(range(random, bytes))),
        4 => {
            let piece = bytes[range(random, bytes)].to_vec();
            drop(bytes.splice(at..at, piece));
        }
        5 => {
            let piece = other[range(random, other)].to_vec();
            drop(bytes.splice(at..at, piece));
        }
        6 => {
            // The beginning of one, the end of another.
            bytes.truncate(at);
            bytes.extend_from_slice(&other[range(random, other).start..]);
        }
        7 => bytes.truncate(at),
        8 => {
            let word = WORDS[below(random, WORDS.len())];
            drop(bytes.splice(at..at, word.iter().copied()));
        }
        9 => {
            // A number becomes another one.
            let digits = |from: usize| {
                let count = bytes[from..].iter().take_while(|b| b.is_ascii_digit());
                from..from + count.count()
            };
            let starts: Vec<usize> = (0..bytes.len())
                .filter(|&at| {
                    bytes[at].is_ascii_digit() && (at == 0 || !bytes[at - 1].is_ascii_digit())
                })
                .collect();
            if !starts.is_empty() {
                let place = digits(starts[below(random, starts.len())]);
                let number = NUMBERS[below(random, NUMBERS.len())];
                drop(bytes.splice(place, number.bytes()));
            }
        }
        10 => {
            // A binary length becomes an extreme one.
            let width = [1, 2, 4, 8][below(random, 4)];
            let value = [0, 1, 0x7f, 0x80, u64::MAX >> 1, u64::MAX][below(random, 6)];
            let value = if random.one_in(2) {
                value.to_le_bytes()[..width].to_vec()
            } else {
                value.to_be_bytes()[8 - width..].to_vec()
            };
            if let Some(place) = bytes.get_mut(at..at + width) {
                place.copy_from_slice(&value);
            }
        }
        _ => {
            // Much of the same.
            let piece = bytes[range(random, bytes)].to_vec();
            let times = if random.one_in(20) { 5_000 } else { 30 };
            let many = piece.repeat(below(random, times));
            let room = LONGEST.saturating_sub(bytes.len()).min(many.len());
            drop(bytes.splice(at..at, many[..room].iter().copied()));
        }
    }
}

/// A smaller input that still fails: pieces are taken out as long as `fails` says so.
pub fn shrink(mut bytes: Vec<u8>, mut fails: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    let mut tries = 3_000;
    let mut piece = bytes.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at < bytes.len() && tries > 0 {
            let mut less = bytes.clone();
            less.drain(at..(at + piece).min(bytes.len()));
            tries -= 1;
            if fails(&less) {
                bytes = less;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    bytes
}

#[test]
fn the_same_seed_makes_the_same_bytes_and_what_fails_becomes_small() {
    let made = |seed| {
        let mut random = Random::new(seed);
        let mut bytes = b"FILE PUT 6 -- a\nhello\n".to_vec();
        for _ in 0..50 {
            mutate(&mut bytes, b"FILE LIST\n", &mut random);
        }
        bytes
    };
    assert_eq!(made(7), made(7));
    assert_ne!(made(7), made(8));
    let long = [vec![b'a'; 999], b"needle".to_vec(), vec![b'z'; 999]].concat();
    let fails = |bytes: &[u8]| bytes.windows(6).any(|part| part == b"needle");
    assert_eq!(shrink(long, fails), b"needle");
}
