//! Rule R5: what this node acknowledged for an upload stays until the upload is put or abandoned.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::digest::Sha256;
use crate::base::id::{Boot, NodeId, OperationId};

/// Objects held for uploads whose fate is not known.
#[derive(Debug, Default)]
pub struct Pins {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    by_upload: HashMap<OperationId, Upload>,
    count: HashMap<Sha256, usize>,
}

#[derive(Debug)]
struct Upload {
    /// When it first held something.
    since: Instant,
    objects: Vec<Sha256>,
}

impl Pins {
    /// Holds `sha256` for `upload`: before the object is sealed, so that no collector can come between.
    pub fn pin(&self, upload: OperationId, sha256: Sha256) {
        let mut held = self.held.lock();
        let upload = held.by_upload.entry(upload).or_insert_with(|| Upload {
            since: Instant::now(),
            objects: Vec::new(),
        });
        if !upload.objects.contains(&sha256) {
            upload.objects.push(sha256);
            *held.count.entry(sha256).or_default() += 1;
        }
    }

    /// The upload's fate is known: what it held.
    pub fn settle(&self, upload: OperationId) -> Vec<Sha256> {
        let mut held = self.held.lock();
        let upload = held.by_upload.remove(&upload);
        let objects = upload.map(|upload| upload.objects).unwrap_or_default();
        for sha256 in &objects {
            if let Some(count) = held.count.get_mut(sha256) {
                *count -= 1;
                if *count == 0 {
                    held.count.remove(sha256);
                }
            }
        }
        objects
    }

    /// Whether any upload holds the object.
    pub fn is_pinned(&self, sha256: &Sha256) -> bool {
        self.held.lock().count.contains_key(sha256)
    }

    /// The uploads other than `upload` that hold the object.
    pub fn others(&self, upload: OperationId, sha256: &Sha256) -> Vec<OperationId> {
        let held = self.held.lock();
        if held.count.get(sha256).is_none_or(|count| *count < 2) {
            return Vec::new();
        }
        let holding = held
            .by_upload
            .iter()
            .filter(|(id, other)| **id != upload && other.objects.contains(sha256));
        let mut others: Vec<OperationId> = holding.map(|(id, _)| *id).collect();
        others.sort_unstable();
        others
    }

    /// Uploads that have held something for longer than `grace`, except those of this start of this node, which settle
    /// themselves: the note that settled them may have been skipped by a snapshot.
    pub fn overdue(&self, node: NodeId, boot: Boot, grace: Duration) -> Vec<OperationId> {
        let held = self.held.lock();
        let mut uploads: Vec<OperationId> = held
            .by_upload
            .iter()
            .filter(|(id, upload)| {
                (id.node, id.boot) != (node, boot) && upload.since.elapsed() > grace
            })
            .map(|(id, _)| *id)
            .collect();
        uploads.sort_unstable();
        uploads
    }

    /// The uploads that hold the object, and for how long.
    pub fn holders(&self, sha256: &Sha256) -> Vec<(OperationId, Duration)> {
        let held = self.held.lock();
        let mut uploads: Vec<(OperationId, Duration)> = held
            .by_upload
            .iter()
            .filter(|(_, upload)| upload.objects.contains(sha256))
            .map(|(id, upload)| (*id, upload.since.elapsed()))
            .collect();
        uploads.sort_unstable();
        uploads
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::digest::sha256;

    #[test]
    fn an_object_is_held_until_every_upload_that_brought_it_is_settled() {
        let upload = |sequence| OperationId {
            node: NodeId(0),
            boot: Boot(1),
            sequence,
        };
        let (pins, object) = (Pins::default(), sha256(b"x"));
        pins.pin(upload(1), object);
        pins.pin(upload(1), object);
        pins.pin(upload(2), object);
        assert_eq!(pins.others(upload(2), &object), [upload(1)]);
        assert_eq!(pins.settle(upload(1)), [object]);
        assert!(pins.is_pinned(&object));
        assert!(pins.others(upload(2), &object).is_empty());
        assert_eq!(pins.holders(&object)[0].0, upload(2));
        assert_eq!(pins.holders(&object).len(), 1);
        assert_eq!(pins.settle(upload(2)), [object]);
        assert!(!pins.is_pinned(&object));
        assert!(pins.settle(upload(2)).is_empty());
    }

    #[test]
    fn uploads_of_others_that_nobody_settles_are_overdue_after_a_while() {
        let upload = |node| OperationId {
            node: NodeId(node),
            boot: Boot(1),
            sequence: 1,
        };
        let pins = Pins::default();
        pins.pin(upload(0), sha256(b"x"));
        pins.pin(upload(1), sha256(b"x"));
        let overdue = |grace| pins.overdue(NodeId(0), Boot(1), grace);
        assert!(overdue(Duration::from_mins(1)).is_empty());
        std::thread::yield_now();
        assert_eq!(overdue(Duration::ZERO), [upload(1)]);
        assert_eq!(pins.overdue(NodeId(0), Boot(2), Duration::ZERO).len(), 2);
    }
}
