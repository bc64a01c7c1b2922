//! What was written to the tables since the last checkpoint, in memory, every value with the write it belongs to, so that a reader may stand still.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;

/// A value, or that there is none any more.
pub(super) type Change = Option<Arc<[u8]>>;

/// The values of a key, oldest first, each with the number of its write.
type Versions = Vec<(u64, Change)>;

/// Writes between two checkpoints. Only ever added to; dropped whole once the file has it.
#[derive(Debug, Default)]
pub(super) struct Layer {
    rows: RwLock<BTreeMap<Vec<u8>, Versions>>,
}

fn at(versions: &Versions, write: u64) -> Option<&Change> {
    versions
        .iter()
        .rev()
        .find(|(of, _)| *of <= write)
        .map(|(_, change)| change)
}

impl Layer {
    /// Adds the changes of one write; numbers grow.
    pub(super) fn add(&self, write: u64, changes: impl Iterator<Item = (Vec<u8>, Change)>) {
        let mut rows = self.rows.write();
        for (key, change) in changes {
            rows.entry(key).or_default().push((write, change));
        }
    }

    /// Keys changed so far.
    pub(super) fn len(&self) -> usize {
        self.rows.read().len()
    }

    /// What the writes up to `write` say of a key: nothing, gone, or a value.
    pub(super) fn get(&self, write: u64, key: &[u8]) -> Option<Change> {
        at(self.rows.read().get(key)?, write).cloned()
    }

    /// What they say of the keys from `from` and below `end`, put over what `into` has: at most `most` keys. The key to go
    /// on at, when there are more.
    pub(super) fn collect(
        &self,
        write: u64,
        from: &[u8],
        end: &[u8],
        most: usize,
        into: &mut BTreeMap<Vec<u8>, Change>,
    ) -> Option<Vec<u8>> {
        let rows = self.rows.read();
        let range = rows.range::<[u8], _>((Bound::Included(from), Bound::Excluded(end)));
        for (count, (key, versions)) in range.enumerate() {
            if count >= most {
                return Some(key.clone());
            }
            if let Some(change) = at(versions, write) {
                into.insert(key.clone(), change.clone());
            }
        }
        None
    }

    /// The last word on every key, in order.
    pub(super) fn last<E>(
        &self,
        mut each: impl FnMut(&[u8], &Change) -> Result<(), E>,
    ) -> Result<(), E> {
        for (key, versions) in self.rows.read().iter() {
            if let Some((_, change)) = versions.last() {
                each(key, change)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_the_writes_up_to_its_own_and_none_later() {
        let layer = Layer::default();
        let value = |byte: u8| Some(Arc::from([byte].as_slice()));
        layer.add(1, [(b"a".to_vec(), value(1))].into_iter());
        layer.add(
            2,
            [(b"a".to_vec(), None), (b"b".to_vec(), value(2))].into_iter(),
        );
        assert_eq!(layer.get(0, b"a"), None);
        assert_eq!(layer.get(1, b"a"), Some(value(1)));
        assert_eq!(layer.get(9, b"a"), Some(None));
        let mut seen = BTreeMap::new();
        assert_eq!(layer.collect(1, b"a", b"c", 2, &mut seen), None);
        assert_eq!(
            seen.into_iter().collect::<Vec<_>>(),
            [(b"a".to_vec(), value(1))]
        );
        let mut seen = BTreeMap::new();
        let more = layer.collect(2, b"a", b"c", 1, &mut seen);
        assert_eq!((more, seen.len()), (Some(b"b".to_vec()), 1));
    }
}
