//! Clients that claim, lock, unlock, return, redeem, roll back and let holds lapse, for as long as a test does something
//! to the stack.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::coupon::rules;
use crate::outcome::result_of;
use crate::request::SHOP;
use crate::{Coupon, Environment, Operation, Request, orders};

const CLIENTS: usize = 12;
/// Codes of a coupon whose codes return to stock.
const CODES: u64 = 40;
/// Codes of a coupon that never sells out, so that its owner keeps a list in Redis.
const PLENTY: u64 = 5_000;
/// How many of those are claimed by name, sooner or later.
const NAMED: i64 = 600;

/// The coupons that the clients work on, and the outcomes so far.
pub struct MixedLoad<'e> {
    env: &'e Environment,
    coupons: Vec<Coupon<'e>>,
    plenty: Coupon<'e>,
    names: Vec<String>,
    stopping: AtomicBool,
    rounds: AtomicUsize,
    outcomes: Mutex<BTreeMap<String, usize>>,
}

impl<'e> MixedLoad<'e> {
    /// Creates the coupons: some with few codes and short holds and locks, and one with plenty of codes.
    pub async fn new(env: &'e Environment) -> Self {
        let mut coupons = Vec::new();
        for requires_lock in [false, true, false] {
            let fields = json!({"hold_seconds": 2, "lock_seconds": 2, "requires_lock": requires_lock});
            coupons.push(env.stocked(CODES, rules(&fields)).await);
        }
        let plenty = env.stocked(PLENTY, rules(&json!({}))).await;
        let sql = "select k.code from stampede.codes k join stampede.loads l using (load_id)
                     join stampede.coupons c using (coupon_no)
                    where c.coupon_id = $1 and l.base + k.idx <= $2 order by k.idx";
        let names = sqlx::query_scalar(sql).bind(&plenty.id).bind(NAMED);
        let names = names.fetch_all(&mut env.postgres().await).await.unwrap();
        Self {
            env,
            coupons,
            plenty,
            names,
            stopping: AtomicBool::new(false),
            rounds: AtomicUsize::new(0),
            outcomes: Mutex::default(),
        }
    }

    /// The coupons whose codes return to stock.
    pub fn coupons(&self) -> &[Coupon<'e>] {
        &self.coupons
    }

    /// Runs the clients until `work` is done; returns how often each kind of request had which result.
    pub async fn during(&self, work: impl Future<Output = ()>) -> BTreeMap<String, usize> {
        let clients = join_all((0..CLIENTS).map(|client| self.client(client)));
        tokio::join!(clients, async {
            work.await;
            self.stopping.store(true, Ordering::SeqCst);
        });
        self.outcomes.lock().unwrap().clone()
    }

    /// Waits until the clients have finished so many more rounds.
    pub async fn rounds(&self, more: usize) {
        let wanted = self.rounds.load(Ordering::SeqCst) + more;
        while self.rounds.load(Ordering::SeqCst) < wanted {
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn client(&self, client: usize) {
        let mut n = client;
        while !self.stopping.load(Ordering::SeqCst) {
            self.round(&format!("client-{client}-{n}"), n).await;
            self.rounds.fetch_add(1, Ordering::SeqCst);
            n += CLIENTS;
        }
    }

    async fn send(&self, user: &str, n: usize, kind: &str, operation: Operation<'_>) -> Value {
        let outcome = self.env.decide(Request::new(user, operation).at(n % 2).wait(2)).await;
        let result = format!("{kind} {}", result_of(&outcome));
        *self.outcomes.lock().unwrap().entry(result).or_default() += 1;
        outcome
    }

    /// One user, and one of eight sequences for a code; besides, two claims of the coupon with plenty, one by name.
    async fn round(&self, user: &str, n: usize) {
        let name = &self.names[n % self.names.len()];
        tokio::join!(
            self.send(user, n, "claim of plenty", Operation::claim(&self.plenty.id)),
            self.send(user, n, "claim of plenty by name", Operation::claim_code(&self.plenty.id, name)),
        );
        let coupon = &self.coupons[n % self.coupons.len()].id;
        let claimed = self.send(user, n, "claim", Operation::claim(coupon)).await;
        let Some(code) = claimed["code"].as_str() else {
            // Sold out until a hold lapses or a redemption is rolled back.
            sleep(Duration::from_millis(100)).await;
            return;
        };
        let send = async |kind: &str, operation: Operation<'_>| self.send(user, n, kind, operation).await;
        match n / 3 % 8 {
            0 => drop(send("redeem", orders::redeem(code, "order")).await),
            1 | 2 => {
                send("lock", Operation::lock_for(code, "order")).await;
                let redeemed = send("redeem", orders::redeem(code, "order")).await;
                if let Some(id) = redeemed["redemption"]["redemption_id"].as_str() {
                    self.send(SHOP, n, "rollback", Operation::roll_back(id)).await;
                }
            }
            3 => {
                send("lock", Operation::lock(code)).await;
                send("unlock", Operation::unlock(code)).await;
                send("return", Operation::return_code(code)).await;
            }
            4 => drop(send("lock", Operation::lock(code)).await),
            5 => {
                send("return", Operation::return_code(code)).await;
                send("claim by name", Operation::claim_code(coupon, code)).await;
                send("return", Operation::return_code(code)).await;
            }
            // The hold lapses.
            _ => {}
        }
    }
}
