//! Real daemons on loopback under real faults: copies, kills, stops, partitions, full and emptied disks, and what clients were told.

#[path = "../harness/mod.rs"]
mod harness;

mod answers;
mod copies;
mod faults;
mod history;
mod ledger;
mod load;
mod partitions;
mod rolling;
mod soak;
