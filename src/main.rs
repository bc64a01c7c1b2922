//! Floor 7: argv to exit code.

fn main() {}
