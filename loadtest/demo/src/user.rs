//! One user of the sale, who does not give up: claims a code, locks it for a checkout, and redeems it.
//!
//! Some who have a code let it lapse; they come back too late, hear that their hold has lapsed, and claim once more.
//! Some who were told sold out wait for a code that comes back. The last word that a user hears about a claim is what
//! the user counts as.

use std::time::{Duration, Instant};

use coupon_core::words::Reason;

use super::errand::{Answer, Asker, Step, Wish, pursue};
use super::order::Order;
use super::window::Window;
use checker::History;
use stampede_client::http::Connection;

/// So long after their hold has ended do users come back who let it lapse: whoever waits has had their chance.
const TOO_LATE_BY: Duration = Duration::from_secs(1);
/// Nobody starts anew after this.
const COMES_BACK_FOR: Duration = Duration::from_secs(600);
/// However often a lock lapses in the middle of a checkout.
const CHECKOUTS: usize = 10;

/// What every user knows.
pub struct Shop {
    /// The coupon that everybody wants.
    pub coupon: String,
    /// How long a claim is held, and a lock lasts.
    pub hold: Duration,
    /// What they sent and heard.
    pub history: History,
    /// Where they wait for codes that come back.
    pub window: Window,
}

/// How it went for one user.
#[derive(Clone, Debug)]
pub struct Told {
    /// Who.
    pub user: String,
    /// Everything that was asked for, and its answer; the first is a claim.
    pub steps: Vec<Step>,
    /// Whether the user let a code lapse on purpose.
    pub let_lapse: bool,
    /// Whether the user was told sold out and waited.
    pub waited: bool,
}

/// A user, and what it has heard so far.
pub struct User {
    token: String,
    api: String,
    order: Order,
    connection: Connection,
    came: Instant,
    told: Told,
}

/// How a claim ended.
pub enum Claimed {
    /// With this code.
    Code(String),
    /// Nothing is left.
    SoldOut,
    /// With something that claiming again does not change.
    Otherwise,
}

/// How a checkout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckedOut {
    /// The code is redeemed.
    Redeemed,
    /// It is not the user's any more: its hold lapsed on the way.
    Lapsed,
    /// With something that another try does not change.
    Otherwise,
}

/// Why a user comes back.
pub enum Again {
    /// It lost its code in the middle of the checkout.
    Lapsed,
    /// It let this code lapse.
    LetLapse(String),
    /// It was told sold out, and is patient.
    SoldOut,
}

impl User {
    /// User number `n`, with a token, at one API.
    #[must_use]
    pub fn new(n: u64, token: String, api: &str, connection: Connection) -> Self {
        let told = Told { user: name(n), steps: Vec::new(), let_lapse: false, waited: false };
        Self { token, api: api.to_owned(), order: Order::of(n), connection, came: Instant::now(), told }
    }

    /// What it was told, and the connection for whoever comes next.
    #[must_use]
    pub fn leave(self) -> (Told, Connection) {
        (self.told, self.connection)
    }

    /// The same user with a connection of its own, for later.
    #[must_use]
    pub fn step_aside(mut self) -> (Self, Connection) {
        let connection = std::mem::replace(&mut self.connection, Connection::to(&self.api));
        (self, connection)
    }

    /// Whether the last thing that was asked for has an answer.
    #[must_use]
    pub fn has_answer(&self) -> bool {
        self.told.steps.last().is_some_and(|step| !matches!(step.answer, Answer::None { .. }))
    }

    /// Claims any code.
    pub async fn claim(&mut self, shop: &Shop) -> Claimed {
        match self.ask(shop, Wish::Claim { coupon: &shop.coupon }).await {
            Answer::Accepted { code, .. } => Claimed::Code(code.clone()),
            answer if answer.is_sold_out() => Claimed::SoldOut,
            _ => Claimed::Otherwise,
        }
    }

    /// Locks a code for the user's order; answers whether it is locked.
    pub async fn lock(&mut self, shop: &Shop, code: &str) -> bool {
        let order = self.order.clone();
        matches!(self.ask(shop, Wish::Lock { code, order: &order }).await, Answer::Accepted { .. })
    }

    /// Locks and redeems a code; again, if the lock lapses in between.
    pub async fn check_out(&mut self, shop: &Shop, code: &str) -> CheckedOut {
        for _ in 0..CHECKOUTS {
            if !self.lock(shop, code).await && !self.is_told(Reason::AlreadyLocked) {
                break;
            }
            if self.redeem(shop, code).await {
                return CheckedOut::Redeemed;
            }
            if !self.is_told(Reason::LockLapsed) && !self.is_told(Reason::NotLocked) {
                break;
            }
        }
        if self.is_told(Reason::HoldLapsed) { CheckedOut::Lapsed } else { CheckedOut::Otherwise }
    }

    /// Whoever has a reason to come back does, until there is a code to keep or the sale is over.
    pub async fn come_back(mut self, shop: &Shop, again: Again) -> Told {
        match again {
            Again::Lapsed => {}
            Again::LetLapse(code) => {
                self.told.let_lapse = true;
                tokio::time::sleep(shop.hold + TOO_LATE_BY).await;
                if self.redeem(shop, &code).await {
                    return self.told;
                }
            }
            Again::SoldOut => {
                if !self.wait(shop).await {
                    return self.told;
                }
            }
        }
        while self.came.elapsed() < COMES_BACK_FOR {
            match self.claim(shop).await {
                Claimed::Code(code) => match self.check_out(shop, &code).await {
                    CheckedOut::Lapsed => {}
                    CheckedOut::Redeemed | CheckedOut::Otherwise => break,
                },
                Claimed::SoldOut if self.wait(shop).await => {}
                Claimed::SoldOut | Claimed::Otherwise => break,
            }
        }
        self.told
    }

    /// Waits for a code that comes back, without a connection; `false`: the sale is over.
    async fn wait(&mut self, shop: &Shop) -> bool {
        self.told.waited = true;
        self.connection = Connection::to(&self.api);
        shop.window.code_to_be_had().await
    }

    async fn redeem(&mut self, shop: &Shop, code: &str) -> bool {
        let order = self.order.clone();
        matches!(self.ask(shop, Wish::Redeem { code, order: &order }).await, Answer::Accepted { .. })
    }

    async fn ask(&mut self, shop: &Shop, wish: Wish<'_>) -> &Answer {
        // Different for each step of a user: asking anew is another request, repeating a try is not.
        let key = format!("{}-{}-{}", shop.coupon, wish.kind(), self.told.steps.len());
        let asker =
            Asker { name: &self.told.user, token: &self.token, coupon: &shop.coupon, history: &shop.history };
        let step = pursue(&mut self.connection, asker, wish, &key).await;
        &self.told.steps.push_mut(step).answer
    }

    fn is_told(&self, reason: Reason) -> bool {
        self.told.steps.last().is_some_and(|step| step.answer.is_rejected_as(reason))
    }
}

/// What user number `n` is called: the subject of its token.
#[must_use]
pub fn name(n: u64) -> String {
    format!("user-{n:06}")
}
