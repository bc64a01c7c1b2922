//! The bounded queues between the engine's own threads: crossbeam's calls and errors over a lock and a condition.
//!
//! crossbeam's channel yields the processor several times before it sleeps. Between the few threads that pass every commit along
//! (driver, log writer, links, connections) that was measured at fifty system calls an upload; a receiver here sleeps at once.
//! The replication workers, which wait for work and not for each other, keep the real channel.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, SendError, SendTimeoutError, TrySendError};
use parking_lot::{Condvar, Mutex};

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    senders: usize,
    receives: bool,
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    most: usize,
    filled: Condvar,
    freed: Condvar,
}

/// The end that items go into; may be cloned.
#[derive(Debug)]
pub struct Sender<T>(Arc<Shared<T>>);

/// The end that items come out of, in order.
#[derive(Debug)]
pub struct Receiver<T>(Arc<Shared<T>>);

/// A queue of at most `most` items.
pub fn bounded<T>(most: usize) -> (Sender<T>, Receiver<T>) {
    assert!(most > 0, "a queue holds something");
    let state = State {
        items: VecDeque::new(),
        senders: 1,
        receives: true,
    };
    let shared = Arc::new(Shared {
        state: Mutex::new(state),
        most,
        filled: Condvar::new(),
        freed: Condvar::new(),
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T> Sender<T> {
    /// Waits for room. Fails when the receiver is gone.
    pub fn send(&self, item: T) -> Result<(), SendError<T>> {
        self.push(item, None)
            .map_err(|error| SendError(error.into_inner()))
    }

    /// Waits for room, at most `patience`.
    pub fn send_timeout(&self, item: T, patience: Duration) -> Result<(), SendTimeoutError<T>> {
        self.push(item, Some(patience))
    }

    /// Does not wait.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        self.push(item, Some(Duration::ZERO))
            .map_err(|error| match error {
                SendTimeoutError::Timeout(item) => TrySendError::Full(item),
                SendTimeoutError::Disconnected(item) => TrySendError::Disconnected(item),
            })
    }

    fn push(&self, item: T, patience: Option<Duration>) -> Result<(), SendTimeoutError<T>> {
        let shared = &self.0;
        let mut state = shared.state.lock();
        let mut deadline = None;
        loop {
            if !state.receives {
                return Err(SendTimeoutError::Disconnected(item));
            }
            if state.items.len() < shared.most {
                break;
            }
            match patience {
                None => shared.freed.wait(&mut state),
                Some(Duration::ZERO) => return Err(SendTimeoutError::Timeout(item)),
                Some(patience) => {
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + patience);
                    if shared.freed.wait_until(&mut state, deadline).timed_out()
                        && state.items.len() >= shared.most
                    {
                        return Err(SendTimeoutError::Timeout(item));
                    }
                }
            }
        }
        state.items.push_back(item);
        drop(state);
        shared.filled.notify_one();
        Ok(())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.state.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.senders -= 1;
        if state.senders == 0 {
            drop(state);
            self.0.filled.notify_all();
        }
    }
}

impl<T> Receiver<T> {
    /// The next item, within `patience`.
    pub fn recv_timeout(&self, patience: Duration) -> Result<T, RecvTimeoutError> {
        let shared = &self.0;
        let mut state = shared.state.lock();
        let mut deadline = None;
        loop {
            if let Some(item) = state.items.pop_front() {
                drop(state);
                shared.freed.notify_one();
                return Ok(item);
            }
            if state.senders == 0 {
                return Err(RecvTimeoutError::Disconnected);
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + patience);
            if shared.filled.wait_until(&mut state, deadline).timed_out() && state.items.is_empty()
            {
                return Err(RecvTimeoutError::Timeout);
            }
        }
    }

    /// The next item; `None` when the queue is empty and every sender gone.
    pub fn recv(&self) -> Option<T> {
        loop {
            match self.recv_timeout(Duration::from_hours(1)) {
                Ok(item) => return Some(item),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// The next item if there is one now.
    pub fn try_recv(&self) -> Option<T> {
        let item = self.0.state.lock().items.pop_front()?;
        self.0.freed.notify_one();
        Some(item)
    }

    /// The items that are there now, one after another.
    pub fn try_iter(&self) -> impl Iterator<Item = T> + '_ {
        std::iter::from_fn(|| self.try_recv())
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.receives = false;
        state.items.clear();
        drop(state);
        self.0.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const SHORT: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn items_come_out_in_order_and_a_full_queue_refuses() {
        let (send, receive) = bounded::<u8>(2);
        send.send(1).unwrap();
        send.try_send(2).unwrap();
        assert_eq!(send.try_send(3), Err(TrySendError::Full(3)));
        assert_eq!(
            send.send_timeout(3, SHORT),
            Err(SendTimeoutError::Timeout(3))
        );
        assert_eq!(receive.try_iter().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(receive.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout));
    }

    #[test]
    fn either_end_learns_that_the_other_is_gone() {
        let (send, receive) = bounded::<u8>(1);
        send.send(1).unwrap();
        drop(send);
        assert_eq!(receive.recv_timeout(LONG), Ok(1));
        assert_eq!(
            receive.recv_timeout(LONG),
            Err(RecvTimeoutError::Disconnected)
        );
        let (send, receive) = bounded::<u8>(1);
        drop(receive);
        assert_eq!(send.send(1), Err(SendError(1)));
    }

    #[test]
    fn many_senders_lose_nothing() {
        let (send, receive) = bounded(3);
        let senders: Vec<_> = (0..4_u64)
            .map(|sender| {
                let send = send.clone();
                thread::spawn(move || (0..500).for_each(|n| send.send(sender * 500 + n).unwrap()))
            })
            .collect();
        drop(send);
        let mut sum = 0;
        while let Ok(item) = receive.recv_timeout(LONG) {
            sum += item;
        }
        for sender in senders {
            sender.join().unwrap();
        }
        assert_eq!(sum, (0..2_000_u64).sum::<u64>());
    }
}
