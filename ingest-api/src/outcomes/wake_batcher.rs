//! Sends values from Kafka's threads to waiting tasks, with one wake-up of the runtime for many values.
//!
//! Waking a task from a thread outside the runtime costs access to a shared queue, and a system call where a runtime
//! thread sleeps. Acknowledgements and outcomes arrive in batches, so the cost is paid once per batch: the thread
//! queues its values here and wakes one task, which wakes the others from within the runtime.
//!
//! Guarantees: queued values are delivered, in order, as long as the runtime lives; queueing never waits.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

/// Values queued for waiting tasks.
#[derive(Debug)]
pub(crate) struct WakeBatcher<T> {
    queue: Mutex<Vec<(oneshot::Sender<T>, T)>>,
    queued: Notify,
}

impl<T> WakeBatcher<T> {
    /// An empty queue. Nothing is delivered until [`Self::run`] runs.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { queue: Mutex::default(), queued: Notify::new() })
    }

    /// Queues a value. It is dropped if its receiver is gone by the time of delivery.
    pub(crate) fn send(&self, receiver: oneshot::Sender<T>, value: T) {
        let mut queue = self.queue();
        queue.push((receiver, value));
        let is_first = queue.len() == 1;
        drop(queue);
        if is_first {
            self.queued.notify_one();
        }
    }

    /// Delivers queued values. Ends with the runtime only: handlers wait until the last acknowledgement.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut batch = Vec::new();
        loop {
            self.queued.notified().await;
            // Swapped, so that both vectors keep their capacity.
            mem::swap(&mut *self.queue(), &mut batch);
            for (receiver, value) in batch.drain(..) {
                drop(receiver.send(value));
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Vec<(oneshot::Sender<T>, T)>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_value_is_delivered_whenever_it_is_queued() {
        let batcher = WakeBatcher::new();
        drop(tokio::spawn(Arc::clone(&batcher).run()));
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..10_000).map(|_| oneshot::channel()).unzip();
        let sending = std::thread::spawn(move || {
            for (n, sender) in senders.into_iter().enumerate() {
                batcher.send(sender, n);
                if n.is_multiple_of(100) {
                    std::thread::yield_now();
                }
            }
        });
        for (n, receiver) in receivers.into_iter().enumerate() {
            // Some receivers are gone before delivery.
            if n.is_multiple_of(7) {
                drop(receiver);
            } else {
                assert_eq!(receiver.await, Ok(n));
            }
        }
        sending.join().expect("no panic");
    }
}
