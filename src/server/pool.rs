//! Connection threads: made when wanted, kept a while when idle, never more than a bound.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex};

use crate::base::limit::CONNECTION_STACK_BYTES;

/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(10);

type Work = Box<dyn FnOnce() + Send>;

#[derive(Debug, Default)]
struct Count {
    threads: usize,
    idle: usize,
}

/// A bounded pool of threads.
#[derive(Clone, Debug)]
pub struct Pool {
    most: usize,
    count: Arc<Mutex<Count>>,
    freed: Arc<Condvar>,
    submit: Sender<Work>,
    work: Receiver<Work>,
}

impl Pool {
    /// A pool of at most `most` threads; none yet.
    pub fn new(most: usize) -> Self {
        let (submit, work) = bounded(most);
        Self {
            most,
            count: Arc::default(),
            freed: Arc::default(),
            submit,
            work,
        }
    }

    /// Runs `work` on a thread of the pool. False when every thread is busy and there may be no more.
    pub fn run(&self, work: impl FnOnce() + Send + 'static) -> io::Result<bool> {
        let mut count = self.count.lock();
        if count.idle > 0 {
            count.idle -= 1;
        } else if count.threads < self.most {
            let pool = self.clone();
            thread::Builder::new()
                .name("connection".to_owned())
                .stack_size(CONNECTION_STACK_BYTES)
                .spawn(move || pool.serve())?;
            count.threads += 1;
        } else {
            return Ok(false);
        }
        // One thread is promised to this work: the queue cannot be full.
        Ok(self.submit.try_send(Box::new(work)).is_ok())
    }

    /// Whether there is a thread for one more, within `patience`.
    pub fn has_room(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut count = self.count.lock();
        loop {
            if count.idle > 0 || count.threads < self.most {
                return true;
            }
            if self.freed.wait_until(&mut count, deadline).timed_out() {
                return false;
            }
        }
    }

    fn serve(&self) {
        loop {
            if let Ok(work) = self.work.recv_timeout(IDLE) {
                work();
                self.count.lock().idle += 1;
                self.freed.notify_one();
                continue;
            }
            // Unless a connection has just been promised to it, an idle thread ends.
            let mut count = self.count.lock();
            if count.idle > 0 {
                count.idle -= 1;
                count.threads -= 1;
                return;
            }
        }
    }
}

/// Slots for connections that are not from peers (rule R20).
#[derive(Debug)]
pub struct Slots {
    free: Mutex<usize>,
    freed: Condvar,
}

/// A slot taken; given back when dropped.
#[derive(Debug)]
pub struct Slot(Arc<Slots>);

impl Slots {
    /// So many slots, all free.
    pub fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Mutex::new(count),
            freed: Condvar::new(),
        })
    }

    /// A slot now, or `None`.
    pub fn take(self: &Arc<Self>) -> Option<Slot> {
        self.wait(Duration::ZERO)
    }

    /// A slot within `patience`, or `None`.
    pub fn wait(self: &Arc<Self>, patience: Duration) -> Option<Slot> {
        let mut free = self.free.lock();
        let deadline = Instant::now() + patience;
        while *free == 0 {
            if self.freed.wait_until(&mut free, deadline).timed_out() && *free == 0 {
                return None;
            }
        }
        *free -= 1;
        Some(Slot(Arc::clone(self)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_pool_takes_no_more_and_a_freed_thread_takes_the_next() {
        let pool = Pool::new(1);
        let (release, wait) = bounded::<()>(0);
        let (tell, told) = bounded::<u8>(2);
        let done = tell.clone();
        assert!(
            pool.run(move || {
                let _ = wait.recv();
                let _ = done.send(1);
            })
            .unwrap()
        );
        assert!(!pool.run(|| ()).unwrap());
        assert!(!pool.has_room(Duration::ZERO));
        drop(release);
        assert!(pool.has_room(Duration::from_secs(5)));
        assert_eq!(told.recv_timeout(Duration::from_secs(5)), Ok(1));
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while std::time::Instant::now() < deadline {
            let tell = tell.clone();
            if pool.run(move || tell.send(2).unwrap()).unwrap() {
                assert_eq!(told.recv_timeout(Duration::from_secs(5)), Ok(2));
                return;
            }
            thread::yield_now();
        }
        panic!("the thread was not used again");
    }

    #[test]
    fn slots_come_back_when_dropped() {
        let slots = Slots::new(1);
        let slot = slots.take().unwrap();
        assert!(slots.take().is_none());
        drop(slot);
        assert!(slots.take().is_some());
    }
}
