//! Laws of the Momo header fields.

use momo::base::id::NodeId;
use momo::wire::momo::{Metadata, ack, print_ack, print_timestamp, timestamp};
use momo::wire::parsed::Parsed;
use proptest::prelude::*;

use crate::{damaged, grammar, law, md5, name, noise, round_trip};

pub(crate) fn metadata() -> impl Strategy<Value = Metadata> {
    (md5(), name(), 0..=momo::base::limit::FILE_BYTES).prop_filter_map(
        "sendable",
        |(md5, name, size)| {
            let base = momo::base::path::FilePath::new(name.name()).ok()?;
            Metadata::new(md5, base, size).ok()
        },
    )
}

pub(crate) fn printed(metadata: &Metadata) -> Vec<u8> {
    let mut out = Vec::new();
    metadata.print(&mut out);
    out
}

#[test]
fn fields_take_only_what_is_theirs() {
    let near = (metadata(), any::<u64>(), any::<u64>()).prop_map(|(metadata, time, seed)| {
        let mut bytes = Vec::new();
        if seed % 2 == 0 {
            print_timestamp(time, &mut bytes);
        }
        bytes.extend_from_slice(&printed(&metadata));
        damaged(bytes, seed)
    });
    law(prop_oneof![noise(), near], |bytes| {
        grammar(&bytes, |bytes, _| timestamp(bytes))?;
        grammar(&bytes, |bytes, _| Metadata::parse(bytes))?;
        let _ = ack(&bytes, true);
        let _ = ack(&bytes, false);
        Ok(())
    });
}

#[test]
fn what_is_printed_is_read_back() {
    law(
        (metadata(), 0..10_000_000_000_000_000_000_u64, any::<u16>()),
        |(metadata, time, id)| {
            round_trip(&metadata, &printed(&metadata), Metadata::parse)?;
            let mut out = Vec::new();
            print_timestamp(time, &mut out);
            round_trip(&time, &out, timestamp)?;
            let mut out = Vec::new();
            print_ack(NodeId(id), &mut out);
            prop_assert_eq!(ack(&out, true), Parsed::complete(u64::from(id), out.len()));
            for length in 0..out.len() {
                prop_assert_eq!(ack(&out[..length], false), Parsed::Incomplete);
            }
            Ok(())
        },
    );
}

#[test]
fn metadata_that_is_read_prints_to_metadata_that_reads_the_same() {
    let near = (metadata(), any::<u64>());
    law(near, |(metadata, seed)| {
        if let Parsed::Complete { value, .. } = Metadata::parse(&damaged(printed(&metadata), seed))
        {
            round_trip(&value, &printed(&value), Metadata::parse)?;
        }
        Ok(())
    });
}
