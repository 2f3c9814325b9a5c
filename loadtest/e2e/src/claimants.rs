//! Many users at once, with a bound on how many are under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use checker::Told;
use futures::StreamExt as _;
use tokio::sync::watch;

use super::{Ask, Field};

/// What became of the users of a crowd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) won: usize,
    pub(crate) sold_out: usize,
    /// Rejected for any other reason.
    pub(crate) rejected: usize,
    /// Never heard back from a request without a key.
    pub(crate) lost: usize,
}

/// Users who each want one code of one coupon.
#[derive(Debug)]
pub(crate) struct Crowd {
    pub(crate) coupon: String,
    pub(crate) users: usize,
    pub(crate) in_flight: usize,
    /// How many users have their answer, for a test that wants to do something in the middle.
    answered: watch::Sender<usize>,
    count: AtomicUsize,
}

impl Crowd {
    pub(crate) fn new(coupon: &str, users: usize) -> Arc<Self> {
        let (answered, _) = watch::channel(0);
        Arc::new(Self {
            coupon: coupon.to_owned(),
            users,
            in_flight: 64,
            answered,
            count: AtomicUsize::new(0),
        })
    }

    /// How many users have their answer by now.
    pub(crate) fn progress(&self) -> watch::Receiver<usize> {
        self.answered.subscribe()
    }

    /// Waits until so many users have their answer.
    pub(crate) async fn answered(&self, count: usize) {
        let mut answered = self.answered.subscribe();
        answered.wait_for(|now| *now >= count).await.unwrap();
    }

    /// Every user claims, every second one without an Idempotency-Key, and stays at it until it has an answer.
    pub(crate) async fn run(&self, field: &Field) -> Tally {
        let instances = field.stack.endpoints().apis.len();
        let each = |n: usize| async move {
            let user = format!("{}-user-{n}", self.coupon);
            let ask = Ask::of(&user, &self.coupon).at(n % instances).wait(5);
            let told = field.pursue(if n.is_multiple_of(2) { ask.key("only one") } else { ask }).await;
            self.answered.send_replace(self.count.fetch_add(1, Ordering::SeqCst) + 1);
            told
        };
        let told = futures::stream::iter(0..self.users).map(each).buffer_unordered(self.in_flight);
        told.fold(Tally::default(), |tally, told| async move { tally.with(&told) }).await
    }
}

impl Tally {
    fn with(mut self, told: &Told) -> Self {
        match told {
            Told::Accepted { .. } => self.won += 1,
            Told::Rejected { reason } if &**reason == "sold_out" => self.sold_out += 1,
            told if told.is_gate() => self.sold_out += 1,
            Told::Rejected { .. } => self.rejected += 1,
            _ => self.lost += 1,
        }
        self
    }
}
