//! What happened, line by line, as hashes: two runs of a seed must agree on every one. `SIM_TRACE=1` prints the lines.

use std::fmt;

/// The lines of a run.
#[derive(Default)]
pub struct Trace {
    hashes: Vec<u64>,
    print: bool,
}

impl Trace {
    pub fn new() -> Self {
        Self {
            hashes: Vec::new(),
            print: std::env::var_os("SIM_TRACE").is_some(),
        }
    }

    pub fn line(&mut self, now: u64, text: fmt::Arguments<'_>) {
        let line = format!("{now:>12} {text}");
        if self.print {
            eprintln!("{line}");
        }
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in line.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.hashes.push(hash);
    }

    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// The first line on which two runs differ.
    pub fn difference(&self, other: &Self) -> Option<usize> {
        let longest = self.hashes.len().max(other.hashes.len());
        (0..longest).find(|line| self.hashes.get(*line) != other.hashes.get(*line))
    }
}
