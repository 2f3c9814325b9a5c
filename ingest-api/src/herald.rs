//! Tells many who wait what a thread of Kafka's has found out, with one wake-up for all of a bunch.
//!
//! Waking a task from a thread that is not the runtime's costs a queue that everybody shares, and a system call
//! where a thread of the runtime sleeps. Acknowledgements and outcomes come in bunches, so it is paid once for each
//! bunch: the thread leaves word here and wakes one task, which wakes the others from within the runtime.
//!
//! Guarantees: word that was left is told, in order, as long as the runtime lives; leaving it never waits.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

/// Word that was left, and for whom.
#[derive(Debug)]
pub(crate) struct Herald<T> {
    left: Mutex<Vec<(oneshot::Sender<T>, T)>>,
    word_was_left: Notify,
}

impl<T> Herald<T> {
    /// A herald with nothing to tell, who must be [run](Self::run).
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { left: Mutex::default(), word_was_left: Notify::new() })
    }

    /// Leaves word. Who has gone meanwhile needs none.
    pub(crate) fn tell(&self, whom: oneshot::Sender<T>, what: T) {
        let mut left = self.left();
        left.push((whom, what));
        let is_first = left.len() == 1;
        drop(left);
        if is_first {
            self.word_was_left.notify_one();
        }
    }

    /// Tells it. Ends with the runtime only: until the last acknowledgement there is somebody who waits for it.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut bunch = Vec::new();
        loop {
            self.word_was_left.notified().await;
            // Swapped, so that both sides keep the room that they have grown to.
            mem::swap(&mut *self.left(), &mut bunch);
            for (whom, what) in bunch.drain(..) {
                drop(whom.send(what));
            }
        }
    }

    fn left(&self) -> MutexGuard<'_, Vec<(oneshot::Sender<T>, T)>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn everybody_is_told_whatever_the_moment_at_which_word_is_left() {
        let herald = Herald::new();
        drop(tokio::spawn(Arc::clone(&herald).run()));
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..10_000).map(|_| oneshot::channel()).unzip();
        let leaving = std::thread::spawn(move || {
            for (n, sender) in senders.into_iter().enumerate() {
                herald.tell(sender, n);
                if n.is_multiple_of(100) {
                    std::thread::yield_now();
                }
            }
        });
        for (n, receiver) in receivers.into_iter().enumerate() {
            // Some have gone before they are told.
            if n.is_multiple_of(7) {
                drop(receiver);
            } else {
                assert_eq!(receiver.await, Ok(n));
            }
        }
        leaving.join().expect("nothing panicked");
    }
}
