//! The coupons that clients want: some of every kind, with stock that is renewed while a run is on.
//!
//! One is hot, many are cool; one has so few codes that it is sold out most of the time; some have holds and locks so
//! short that they lapse, some must be locked, some are shared by many. Every partition has a coupon for probes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use hyper::Method;
use schemas::partition_for;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::dice::Dice;
use super::field::{Field, Trouble};

/// How long the first coupons may take to have their codes.
const STOCKED_WITHIN: Duration = Duration::from_secs(120);
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
/// After so many looks there is a new coupon.
const LOOKS_PER_COUPON: usize = 15;
/// Names that are remembered, for whoever wants a code by its name.
const NAMES: usize = 500;

/// What is special about a coupon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Most want this one.
    Hot,
    /// Nothing is.
    Cool,
    /// Holds and locks of two seconds.
    Brief,
    /// Must be locked to be redeemed.
    Strict,
    /// Few codes.
    Scarce,
    /// Codes that many redeem and nobody claims.
    Shared,
    /// Wanted by probes.
    Probe,
}

impl Kind {
    fn rules(self) -> Value {
        match self {
            Self::Hot | Self::Cool => json!({"limits": {"claims_per_user": 2}}),
            Self::Brief => json!({"hold_seconds": 2, "lock_seconds": 2, "limits": {"claims_per_user": 5}}),
            Self::Strict => {
                json!({"hold_seconds": 120, "lock_seconds": 60, "requires_lock": true,
                       "limits": {"claims_per_user": 3, "redemptions_per_user": 2}})
            }
            Self::Scarce => json!({"hold_seconds": 600, "limits": {"claims_per_user": 1}}),
            Self::Shared => {
                json!({"limits": {"redemptions_per_code": 200, "redemptions_per_user": 3}})
            }
            Self::Probe => json!({"hold_seconds": 4, "limits": {"claims_per_user": null}}),
        }
    }

    /// Codes of one load, and below how many available ones there is another. A share code counts as available until
    /// it is used up.
    const fn stock(self) -> (u64, u64) {
        match self {
            Self::Hot => (3_000, 1_500),
            Self::Cool => (300, 100),
            Self::Brief => (150, 30),
            Self::Strict => (400, 150),
            // Sold out for a while each time: it is looked at like the others.
            Self::Scarce => (15, 1),
            Self::Shared => (10, 3),
            Self::Probe => (300, 150),
        }
    }
}

/// A coupon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coupon {
    /// Its id.
    pub id: String,
    /// What is special about it.
    pub kind: Kind,
}

/// All coupons, and what is known of their codes.
#[derive(Debug, Default)]
pub struct Shop {
    coupons: RwLock<Vec<Coupon>>,
    shared_codes: RwLock<Vec<String>>,
    names: Mutex<VecDeque<(String, String)>>,
    made: AtomicUsize,
}

impl Shop {
    /// Any coupon of a kind.
    #[must_use]
    pub fn any(&self, kind: Kind, dice: &mut Dice) -> Option<String> {
        let coupons = self.coupons.read().unwrap_or_else(PoisonError::into_inner);
        let of_the_kind: Vec<&Coupon> = coupons.iter().filter(|coupon| coupon.kind == kind).collect();
        dice.pick(&of_the_kind).map(|coupon| coupon.id.clone())
    }

    /// All coupons of a kind, in the order in which they were made.
    #[must_use]
    pub fn all(&self, kind: Kind) -> Vec<String> {
        let coupons = self.coupons.read().unwrap_or_else(PoisonError::into_inner);
        coupons.iter().filter(|coupon| coupon.kind == kind).map(|coupon| coupon.id.clone()).collect()
    }

    /// Any code that is shared by many.
    #[must_use]
    pub fn any_shared_code(&self, dice: &mut Dice) -> Option<String> {
        dice.pick(&self.shared_codes.read().unwrap_or_else(PoisonError::into_inner)).cloned()
    }

    /// Remembers the name of a code.
    pub fn remember(&self, coupon: &str, code: &str) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() == NAMES {
            names.pop_front();
        }
        names.push_back((coupon.to_owned(), code.to_owned()));
    }

    /// A coupon and a code of it that somebody has or had.
    #[must_use]
    pub fn any_name(&self, dice: &mut Dice) -> Option<(String, String)> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.get(dice.below(names.len())).cloned()
    }

    fn new_id(&self, kind: Kind, partition: Option<i32>, partitions: i32) -> String {
        loop {
            let n = self.made.fetch_add(1, Ordering::Relaxed);
            let id = format!("fire-{}-{n}", format!("{kind:?}").to_lowercase());
            if partition.is_none_or(|wanted| partition_for(id.as_bytes(), partitions) == wanted) {
                return id;
            }
        }
    }
}

impl Field {
    /// Makes the first coupons, and waits until each has codes.
    ///
    /// # Errors
    /// When the API refuses, or codes do not become stock.
    pub async fn open_shop(&self) -> Result<(), Trouble> {
        let kinds = [
            [Kind::Hot].as_slice(),
            &[Kind::Cool; 10],
            &[Kind::Brief; 2],
            &[Kind::Strict; 3],
            &[Kind::Scarce; 2],
            &[Kind::Shared; 2],
        ];
        let plain = kinds.concat().into_iter().map(|kind| (kind, None));
        let probes = (0..self.partitions).map(|partition| (Kind::Probe, Some(partition)));
        for (kind, partition) in plain.chain(probes) {
            self.make_coupon(kind, partition).await?;
        }
        let until = Instant::now() + STOCKED_WITHIN;
        for Coupon { id, kind } in self.coupons() {
            while self.available(&id).await? < kind.stock().0 {
                if Instant::now() > until {
                    return Err(
                        format!("the codes of {id} do not become stock; see the workers' logs").into()
                    );
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        self.learn_shared_codes().await
    }

    /// Renews the stock, and makes new coupons, until it is dropped. What fails is tried again later.
    pub async fn keep_shop(&self) {
        for look in 1_usize.. {
            sleep(BETWEEN_LOOKS).await;
            for Coupon { id, kind } in self.coupons() {
                if self.available(&id).await.is_ok_and(|available| available < kind.stock().1) {
                    self.load(&id, kind.stock().0).await.ok();
                }
            }
            self.learn_shared_codes().await.ok();
            if look.is_multiple_of(LOOKS_PER_COUPON) {
                self.make_coupon(Kind::Cool, None).await.ok();
            }
        }
    }

    /// A new coupon of a kind, with codes that become stock when its owner hears of them.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn make_coupon(&self, kind: Kind, partition: Option<i32>) -> Result<String, Trouble> {
        let id = self.shop.new_id(kind, partition, self.partitions);
        let mut body = json!({"id": id, "name": "Under fire", "category": "fire",
            "discount": {"type": "PERCENTAGE", "value": "12.50"}});
        for (name, value) in kind.rules().as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        self.as_admin(Method::POST, "/v1/coupons", Some(&body), 201).await?;
        self.load(&id, kind.stock().0).await?;
        let mut coupons = self.shop.coupons.write().unwrap_or_else(PoisonError::into_inner);
        coupons.push(Coupon { id: id.clone(), kind });
        Ok(id)
    }

    /// Generates codes. If the answer is lost, there may be twice as many.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn load(&self, coupon: &str, codes: u64) -> Result<(), Trouble> {
        let path = format!("/v1/coupons/{coupon}/codes/generate");
        self.as_admin(Method::POST, &path, Some(&json!({"count": codes})), 202).await.map(drop)
    }

    /// Codes of a coupon that can be claimed.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn available(&self, coupon: &str) -> Result<u64, Trouble> {
        let shown = self.as_admin(Method::GET, &format!("/v1/coupons/{coupon}"), None, 200).await?;
        shown["counts"]["available"].as_u64().ok_or_else(|| format!("{coupon} has no counters").into())
    }

    fn coupons(&self) -> Vec<Coupon> {
        self.shop.coupons.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shared codes are printed on posters; here they are read where they lie.
    async fn learn_shared_codes(&self) -> Result<(), Trouble> {
        let sql = "select k.code from stampede.codes k join stampede.loads l using (load_id)
                     join stampede.coupons c using (coupon_no)
                    where c.coupon_id = any ($1) and l.base is not null order by k.load_id, k.idx";
        let codes: Vec<String> = sqlx::query_scalar(sql)
            .bind(self.shop.all(Kind::Shared))
            .fetch_all(&mut self.postgres().await?)
            .await?;
        *self.shop.shared_codes.write().unwrap_or_else(PoisonError::into_inner) = codes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probes_coupon_belongs_to_its_partition() {
        let shop = Shop::default();
        for partition in 0..8 {
            let id = shop.new_id(Kind::Probe, Some(partition), 8);
            assert_eq!(partition_for(id.as_bytes(), 8), partition, "{id}");
        }
        assert_ne!(shop.new_id(Kind::Cool, None, 8), shop.new_id(Kind::Cool, None, 8));
    }

    #[test]
    fn of_the_names_the_newest_are_remembered() {
        let shop = Shop::default();
        assert_eq!(shop.any_name(&mut Dice::new(1)), None);
        (0..NAMES + 7).for_each(|n| shop.remember("spring", &n.to_string()));
        let names = shop.names.lock().expect("nobody else");
        assert_eq!((names.len(), names[0].1.as_str()), (NAMES, "7"));
    }
}
