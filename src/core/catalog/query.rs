//! Reading the catalog: rows as values.

/// The key of a change of mode: newest first.
pub const fn mode_key(timestamp: u64) -> [u8; 8] {
    (!timestamp).to_be_bytes()
}
