//! Many users who each want one code of one coupon, a bounded number of them at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use checker::ApiResponse;
use futures::StreamExt as _;
use tokio::sync::watch;

use crate::{Environment, Request};

/// How many users' requests had which result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Accepted.
    pub won: usize,
    /// Rejected with `sold_out`, by the owner or by the gate.
    pub sold_out: usize,
    /// Rejected for any other reason.
    pub rejected: usize,
    /// Without a key and without a response.
    pub lost: usize,
}

/// Users who each want one code of one coupon.
#[derive(Debug)]
pub struct Claimants {
    /// The coupon.
    pub coupon: String,
    /// How many users there are.
    pub users: usize,
    in_flight: usize,
    /// How many users have their result, for a test that does something in the middle.
    done: watch::Sender<usize>,
    count: AtomicUsize,
}

impl Claimants {
    /// So many users of this coupon.
    pub fn new(coupon: &str, users: usize) -> Arc<Self> {
        let (done, _) = watch::channel(0);
        let count = AtomicUsize::new(0);
        Arc::new(Self { coupon: coupon.to_owned(), users, in_flight: 64, done, count })
    }

    /// Whether every user has a result.
    pub fn are_done(&self) -> bool {
        *self.done.borrow() == self.users
    }

    /// Waits until so many users have their result.
    pub async fn until_done(&self, count: usize) {
        self.done.subscribe().wait_for(|now| *now >= count).await.unwrap();
    }

    /// Every user claims until it has a final response, every second one without an Idempotency-Key.
    pub async fn run(&self, env: &Environment) -> Tally {
        let instances = env.stack.endpoints().apis.len();
        let each = |n: usize| async move {
            let user = format!("user-{n}");
            let request = Request::claim(&user, &self.coupon).at(n % instances).wait(5);
            let request = if n.is_multiple_of(2) { request.key("only one") } else { request };
            let response = env.final_response(request).await;
            self.done.send_replace(self.count.fetch_add(1, Ordering::SeqCst) + 1);
            response
        };
        let responses = futures::stream::iter(0..self.users).map(each).buffer_unordered(self.in_flight);
        responses.fold(Tally::default(), |tally, response| async move { tally.with(&response) }).await
    }

    /// Every user has a final response or lost it, and as many codes are claimed as there were.
    pub async fn expect_all_claimed(&self, env: &Environment, tally: Tally, codes: usize) {
        let Tally { won, sold_out, rejected, lost } = tally;
        assert_eq!(won + sold_out + rejected + lost, self.users, "{tally:?}");
        // Requests whose response was lost may still be pending.
        env.settle().await;
        let counts = env.counts(&self.coupon).await;
        let found = (counts["claimed"].as_u64(), counts["available"].as_u64());
        assert_eq!(found, (Some(codes as u64), Some(0)), "{tally:?} {counts}");
    }
}

impl Tally {
    fn with(mut self, response: &ApiResponse) -> Self {
        match response {
            ApiResponse::Accepted { .. } => self.won += 1,
            ApiResponse::Rejected { reason } if &**reason == "sold_out" => self.sold_out += 1,
            response if response.is_gate() => self.sold_out += 1,
            ApiResponse::Rejected { .. } => self.rejected += 1,
            _ => self.lost += 1,
        }
        self
    }
}
