//! Many users at once: as many as may be in flight wait for their answers, and whoever has one makes room for the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use local_stack::{Child, Stack};
use tokio::task::JoinSet;

use super::SaleError;
use super::user::{Answer, Told, User, claim};
use crate::checker::History;
use crate::http::Connection;
use crate::tokens::Tokens;

/// Long enough for the slowest sale.
const TOKENS_LIVE: Duration = Duration::from_secs(24 * 3600);

/// Everything that a user needs to know, and everything that is kept of what they hear.
pub struct Crowd {
    /// The coupon that everybody wants.
    pub coupon: String,
    /// How many users there are.
    pub users: u64,
    /// How many wait at the same time.
    pub in_flight: u64,
    /// Where the APIs are.
    pub apis: Vec<String>,
    /// Signs the users' tokens.
    pub jwt_secret: String,
    /// What they sent and heard.
    pub history: History,
    /// What happens in the middle of it.
    pub ambush: Option<Ambush>,
    /// How it stands.
    pub score: Score,
}

/// How it stands, while it goes on.
#[derive(Debug, Default)]
pub struct Score {
    /// Users who have come, with an answer or without.
    next: AtomicU64,
    /// Users who have their answer.
    pub answered: AtomicU64,
    /// Of these, users with a code.
    pub won: AtomicU64,
    /// Of these, users who were told that nothing is left.
    pub sold_out: AtomicU64,
    /// When an ambush struck, how many had their answer.
    struck_at: AtomicU64,
}

/// SIGKILL for one of the stack's children, in the middle of the sale.
pub struct Ambush {
    /// Where it lives.
    pub stack: Arc<Stack>,
    /// Who is to die.
    pub child: Child,
    /// When so many users have their answer.
    pub at: u64,
    /// Where to say so.
    pub say: Box<dyn Fn(&str) + Send + Sync>,
}

/// How it went.
pub struct Outcome {
    /// What each user was told.
    pub told: Vec<Told>,
    /// From the first claim to the last answer.
    pub took: Duration,
    /// How many had their answer when the ambush struck.
    pub killed_at: Option<u64>,
}

impl Crowd {
    /// Lets the users loose; ends when each has an answer or no patience left.
    ///
    /// # Errors
    /// When a token cannot be made.
    pub async fn run(self: &Arc<Self>) -> Result<Outcome, SaleError> {
        let begun = Instant::now();
        // Dropped when the caller stops waiting, and then nobody goes on claiming.
        let mut slots = JoinSet::new();
        for slot in 0..self.in_flight.min(self.users) {
            slots.spawn(Arc::clone(self).fill(slot));
        }
        let mut told = Vec::with_capacity(usize::try_from(self.users).unwrap_or(0));
        while let Some(slot) = slots.join_next().await {
            told.extend(slot.map_err(|_| SaleError::Interrupted)??);
        }
        let took = begun.elapsed();
        let struck_at = self.score.struck_at.load(Ordering::SeqCst);
        Ok(Outcome { told, took, killed_at: (struck_at > 0).then_some(struck_at) })
    }

    /// One place in flight, with a connection of its own: one user after another.
    async fn fill(self: Arc<Self>, slot: u64) -> Result<Vec<Told>, SaleError> {
        let api = usize::try_from(slot).unwrap_or(0) % self.apis.len();
        let mut connection = Connection::to(&self.apis[api]);
        let tokens = Tokens::new(&self.jwt_secret, TOKENS_LIVE);
        let mut all = Vec::new();
        loop {
            let number = self.score.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.users {
                return Ok(all);
            }
            let name = format!("user-{:06}", number + 1);
            let token = tokens.issue(&name, "user")?;
            let key = format!("claim-{}", self.coupon);
            let told = claim(&mut connection, &User { name, token, key }, &self.coupon, &self.history).await;
            self.count(&told)?;
            all.push(told);
        }
    }

    fn count(&self, told: &Told) -> Result<(), SaleError> {
        match &told.answer {
            Answer::None { .. } => return Ok(()),
            Answer::Won { .. } => _ = self.score.won.fetch_add(1, Ordering::Relaxed),
            answer if answer.is_sold_out() => _ = self.score.sold_out.fetch_add(1, Ordering::Relaxed),
            _ => {}
        }
        let answered = self.score.answered.fetch_add(1, Ordering::SeqCst) + 1;
        match &self.ambush {
            // Exactly one user comes as this one.
            Some(ambush) if answered == ambush.at => {
                ambush.stack.kill(ambush.child)?;
                let struck_at = self.score.answered.load(Ordering::SeqCst);
                self.score.struck_at.store(struck_at, Ordering::SeqCst);
                (ambush.say)(&format!(
                    "{} gets SIGKILL: {struck_at} of {} users have their answer",
                    ambush.child, self.users
                ));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
