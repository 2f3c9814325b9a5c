//! Many users at once: as many as may be in flight wait for their answers, and whoever has one makes room for the next.
//! Who has to wait longer (for a hold to lapse, for a code that comes back) steps aside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use local_stack::{Child, Stack};
use tokio::task::JoinSet;

use super::SaleError;
use super::args::Share;
use super::user::{Again, CheckedOut, Claimed, Shop, Told, User, name};
use load_support::tokens::Tokens;
use stampede_client::http::Connection;

/// Long enough for the slowest sale.
const TOKENS_LIVE: Duration = Duration::from_secs(24 * 3600);

/// Everything that goes on in a sale, and how it stands.
pub struct Crowd {
    /// What every user knows.
    pub shop: Shop,
    /// How many users there are.
    pub users: u64,
    /// How many wait at the same time.
    pub in_flight: u64,
    /// Which share of the winners lets the code lapse.
    pub lapse: Share,
    /// How many of those who are told sold out wait for a code that comes back.
    pub patient: u64,
    /// Where the APIs are.
    pub apis: Vec<String>,
    /// Signs the users' tokens.
    pub jwt_secret: String,
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
    /// Users who have the answer to their first claim.
    pub answered: AtomicU64,
    /// Of these, users with a code.
    pub won: AtomicU64,
    /// Of these, users who were told that nothing is left.
    pub sold_out: AtomicU64,
    /// Codes that were redeemed.
    pub redeemed: AtomicU64,
    /// Users who have stepped aside and will come back.
    pub aside: AtomicU64,
    /// When the last first answer came, in microseconds.
    rush: AtomicU64,
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
    /// From the first claim to the moment when everybody had an answer to their first claim.
    pub rush: Duration,
    /// From the first claim to the last answer.
    pub took: Duration,
    /// How many had their answer when the ambush struck.
    pub killed_at: Option<u64>,
}

/// Users who have stepped aside.
type Aside = JoinSet<Told>;

impl Crowd {
    /// Lets the users loose; ends when each has an answer and nobody waits for a code any more.
    ///
    /// # Errors
    /// When a token cannot be made.
    pub async fn run(self: &Arc<Self>) -> Result<Outcome, SaleError> {
        let begun = Instant::now();
        let visitor = Tokens::new(&self.jwt_secret, TOKENS_LIVE).issue("passer-by", "user")?;
        let everybody = async {
            // Dropped when the caller stops waiting, and then nobody goes on claiming.
            let mut slots = JoinSet::new();
            for slot in 0..self.in_flight.min(self.users) {
                slots.spawn(Arc::clone(self).fill(slot, begun));
            }
            let mut told = Vec::with_capacity(usize::try_from(self.users).unwrap_or(0));
            while let Some(slot) = slots.join_next().await {
                told.extend(slot.map_err(|_| SaleError::Interrupted)??);
            }
            Ok::<_, SaleError>(told)
        };
        let watching = async {
            self.shop.window.watch(&self.apis[0], &self.shop.coupon, &visitor).await;
            std::future::pending().await
        };
        let told = tokio::select! {
            told = everybody => told?,
            () = watching => Vec::new(),
        };
        let counted = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        let struck_at = counted(&self.score.struck_at);
        Ok(Outcome {
            told,
            rush: Duration::from_micros(counted(&self.score.rush)),
            took: begun.elapsed(),
            killed_at: (struck_at > 0).then_some(struck_at),
        })
    }

    /// One place in flight, with a connection of its own: one user after another.
    async fn fill(self: Arc<Self>, slot: u64, begun: Instant) -> Result<Vec<Told>, SaleError> {
        let api = &self.apis[usize::try_from(slot).unwrap_or(0) % self.apis.len()];
        let mut connection = Connection::to(api);
        let tokens = Tokens::new(&self.jwt_secret, TOKENS_LIVE);
        let mut all = Vec::new();
        let mut aside = Aside::new();
        loop {
            let n = self.score.next.fetch_add(1, Ordering::Relaxed) + 1;
            if n > self.users {
                break;
            }
            let token = tokens.issue(&name(n), "user")?;
            let mut user = User::new(n, token, api, connection);
            let again = self.serve(&mut user, begun).await?;
            if let Some(again) = again {
                let (user, freed) = user.step_aside();
                connection = freed;
                aside.spawn(Arc::clone(&self).wait_for(user, again));
            } else {
                let (told, freed) = user.leave();
                connection = freed;
                all.push(told);
            }
        }
        while let Some(told) = aside.join_next().await {
            all.push(told.map_err(|_| SaleError::Interrupted)?);
        }
        Ok(all)
    }

    /// A user's first claim and what follows from it at once; `Some`: the user will come back.
    async fn serve(&self, user: &mut User, begun: Instant) -> Result<Option<Again>, SaleError> {
        let claimed = user.claim(&self.shop).await;
        let rush = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.score.rush.fetch_max(rush, Ordering::SeqCst);
        if user.has_answer() {
            let answered = self.score.answered.fetch_add(1, Ordering::SeqCst) + 1;
            self.strike(answered)?;
        }
        Ok(match claimed {
            Claimed::Code(code) => self.keep_or_not(user, code).await,
            Claimed::SoldOut => {
                let turned_away = self.score.sold_out.fetch_add(1, Ordering::SeqCst);
                (turned_away < self.patient).then_some(Again::SoldOut)
            }
            Claimed::Otherwise => None,
        })
    }

    /// Of those who let it lapse, every other one has locked the code before.
    async fn keep_or_not(&self, user: &mut User, code: String) -> Option<Again> {
        let winner = self.score.won.fetch_add(1, Ordering::SeqCst);
        if let Some(nth) = self.lapse.picks(winner) {
            if nth % 2 == 0 {
                user.lock(&self.shop, &code).await;
            }
            return Some(Again::LetLapse(code));
        }
        match user.check_out(&self.shop, &code).await {
            CheckedOut::Redeemed => {
                self.score.redeemed.fetch_add(1, Ordering::Relaxed);
                None
            }
            CheckedOut::Lapsed => Some(Again::Lapsed),
            CheckedOut::Otherwise => None,
        }
    }

    /// A user who has stepped aside, until it has been told its last word.
    async fn wait_for(self: Arc<Self>, user: User, again: Again) -> Told {
        self.score.aside.fetch_add(1, Ordering::Relaxed);
        let told = user.come_back(&self.shop, again).await;
        self.score.aside.fetch_sub(1, Ordering::Relaxed);
        self.score.redeemed.fetch_add(u64::from(told.has_redeemed()), Ordering::Relaxed);
        told
    }

    fn strike(&self, answered: u64) -> Result<(), SaleError> {
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
