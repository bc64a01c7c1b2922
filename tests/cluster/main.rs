//! Real daemons on loopback under real faults: copies, kills, stops, partitions, full and emptied disks, and what clients were told.

#[path = "../harness/mod.rs"]
mod harness;

mod copies;
mod history;
mod ledger;
