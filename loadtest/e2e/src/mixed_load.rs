//! Many lives of codes at once: hands that claim, lock, release, give back, redeem, roll back and let lapse, for as long
//! as a test does something to the stack.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::life::{SHOP, word};
use super::sale::rules;
use super::{Act, Deed, Field};

const HANDS: usize = 12;
/// Of a coupon whose codes come back.
const CODES: u64 = 40;
/// Of a coupon that has enough for everybody, so that its owner keeps a list in Redis.
const PLENTY: u64 = 5_000;
/// How many of those are claimed by name, sooner or later.
const NAMED: i64 = 600;

/// What the hands do, and what became of it.
pub(crate) struct Lives<'f> {
    field: &'f Field,
    coupons: Vec<String>,
    plenty: String,
    names: Vec<String>,
    enough: AtomicBool,
    lived: AtomicUsize,
    words: Mutex<BTreeMap<String, usize>>,
}

impl<'f> Lives<'f> {
    /// Coupons of a few codes with short holds and locks: what lapses, somebody else waits for.
    pub(crate) async fn of(field: &'f Field) -> Self {
        let mut coupons = Vec::new();
        for requires_lock in [false, true, false] {
            let fields = json!({"hold_seconds": 2, "lock_seconds": 2, "requires_lock": requires_lock});
            coupons.push(field.stocked(CODES, rules(&fields)).await);
        }
        let plenty = field.stocked(PLENTY, rules(&json!({}))).await;
        let sql = "select k.code from stampede.codes k join stampede.loads l using (load_id)
                     join stampede.coupons c using (coupon_no)
                    where c.coupon_id = $1 and l.base + k.idx <= $2 order by k.idx";
        let names = sqlx::query_scalar(sql).bind(&plenty).bind(NAMED);
        let names = names.fetch_all(&mut field.postgres().await).await.unwrap();
        Self {
            field,
            coupons,
            plenty,
            names,
            enough: AtomicBool::new(false),
            lived: AtomicUsize::new(0),
            words: Mutex::default(),
        }
    }

    /// Those whose codes come back.
    pub(crate) fn coupons(&self) -> &[String] {
        &self.coupons
    }

    /// Lets the hands work until `meanwhile` is done; answers how often each kind of request had which outcome.
    pub(crate) async fn during(&self, meanwhile: impl Future<Output = ()>) -> BTreeMap<String, usize> {
        let hands = join_all((0..HANDS).map(|hand| self.hand(hand)));
        tokio::join!(hands, async {
            meanwhile.await;
            self.enough.store(true, Ordering::SeqCst);
        });
        self.words.lock().unwrap().clone()
    }

    /// Waits until so many more lives have been lived.
    pub(crate) async fn lived(&self, more: usize) {
        let wanted = self.lived.load(Ordering::SeqCst) + more;
        while self.lived.load(Ordering::SeqCst) < wanted {
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn hand(&self, hand: usize) {
        let mut n = hand;
        while !self.enough.load(Ordering::SeqCst) {
            self.live(&format!("hand-{hand}-{n}"), n).await;
            self.lived.fetch_add(1, Ordering::SeqCst);
            n += HANDS;
        }
    }

    async fn ask(&self, user: &str, n: usize, kind: &str, deed: Deed<'_>) -> Value {
        let outcome = self.field.see_through(Act::of(user, deed).at(n % 2).wait(2)).await;
        *self.words.lock().unwrap().entry(format!("{kind} {}", word(&outcome))).or_default() += 1;
        outcome
    }

    /// One user, one code, one of eight lives; and beside it two more of which there are plenty, one of them by name.
    async fn live(&self, user: &str, n: usize) {
        let name = &self.names[n % self.names.len()];
        tokio::join!(
            self.ask(user, n, "claim of plenty", Deed::Claim(&self.plenty)),
            self.ask(user, n, "claim of plenty by name", Deed::ClaimNamed(&self.plenty, name)),
        );
        let coupon = &self.coupons[n % self.coupons.len()];
        let claimed = self.ask(user, n, "claim", Deed::Claim(coupon)).await;
        let Some(code) = claimed["code"].as_str() else {
            // Sold out until something lapses or is undone.
            sleep(Duration::from_millis(100)).await;
            return;
        };
        let ask = async |kind: &str, deed: Deed<'_>| self.ask(user, n, kind, deed).await;
        match n / 3 % 8 {
            0 => drop(ask("redeem", Deed::Redeem(code, "order")).await),
            1 | 2 => {
                ask("lock", Deed::LockFor(code, "order")).await;
                let redeemed = ask("redeem", Deed::Redeem(code, "order")).await;
                if let Some(id) = redeemed["redemption"]["redemption_id"].as_str() {
                    self.ask(SHOP, n, "rollback", Deed::RollBack(id)).await;
                }
            }
            3 => {
                ask("lock", Deed::Lock(code)).await;
                ask("unlock", Deed::Unlock(code)).await;
                ask("return", Deed::Return(code)).await;
            }
            4 => drop(ask("lock", Deed::Lock(code)).await),
            5 => {
                ask("return", Deed::Return(code)).await;
                ask("claim by name", Deed::ClaimNamed(coupon, code)).await;
                ask("return", Deed::Return(code)).await;
            }
            // What a hold is for: nothing comes.
            _ => {}
        }
    }
}
