//! The coupons of a run, by kind, with the codes that users may name.
//!
//! One is hot, many are cool; one has so few codes that it is sold out most of the time; some have holds and locks so
//! short that they lapse, some require a lock, some have shared codes. Every partition has a coupon for probes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use schemas::partition_for;
use stampede_client::model::{Discount, Limit, NewCoupon};

use super::rng::Rng;

/// Bound on the codes that are kept for named claims.
const MAX_CODES: usize = 500;

/// The kind of a coupon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Most claims are for this one.
    Hot,
    /// Ordinary.
    Cool,
    /// Holds and locks of two seconds.
    Brief,
    /// A redemption requires a lock.
    Strict,
    /// Few codes.
    Scarce,
    /// Shared codes: redeemed many times without a claim.
    Shared,
    /// Claimed by probes.
    Probe,
}

impl Kind {
    /// The definition of a coupon of this kind.
    pub(super) fn definition(self, id: &str) -> NewCoupon {
        let mut coupon = NewCoupon::new("Under fire", Discount::percentage("12.50"));
        coupon.id = Some(id.to_owned());
        coupon.category = Some("fire".to_owned());
        let limits = &mut coupon.limits;
        limits.claims_per_user = match self {
            Self::Hot | Self::Cool => Some(Limit::AtMost(2)),
            Self::Brief => Some(Limit::AtMost(5)),
            Self::Strict => Some(Limit::AtMost(3)),
            Self::Scarce => Some(Limit::AtMost(1)),
            Self::Probe => Some(Limit::Unlimited),
            Self::Shared => None,
        };
        match self {
            Self::Strict => limits.redemptions_per_user = Some(Limit::AtMost(2)),
            Self::Shared => {
                limits.redemptions_per_user = Some(Limit::AtMost(3));
                limits.redemptions_per_code = Some(Limit::AtMost(200));
            }
            _ => {}
        }
        (coupon.hold_seconds, coupon.lock_seconds) = match self {
            Self::Brief => (Some(2), Some(2)),
            Self::Strict => (Some(120), Some(60)),
            Self::Scarce => (Some(600), None),
            Self::Probe => (Some(4), None),
            Self::Hot | Self::Cool | Self::Shared => (None, None),
        };
        coupon.requires_lock = (self == Self::Strict).then_some(true);
        coupon
    }

    /// Codes of one load, and the number of available ones below which another is added. A shared code counts as available
    /// until it is used up.
    pub(super) const fn stock(self) -> (u64, u64) {
        match self {
            Self::Hot => (3_000, 1_500),
            Self::Cool => (300, 100),
            Self::Brief => (150, 30),
            Self::Strict => (400, 150),
            // Sold out for a while before each refill.
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
    /// Its kind.
    pub kind: Kind,
}

/// All coupons, with codes that users may name.
#[derive(Debug, Default)]
pub struct Fixtures {
    coupons: RwLock<Vec<Coupon>>,
    shared_codes: RwLock<Vec<String>>,
    codes: Mutex<VecDeque<(String, String)>>,
    made: AtomicUsize,
}

impl Fixtures {
    /// A random coupon of a kind.
    #[must_use]
    pub fn any(&self, kind: Kind, rng: &mut Rng) -> Option<String> {
        let coupons = self.coupons.read().unwrap_or_else(PoisonError::into_inner);
        let of_the_kind: Vec<&Coupon> = coupons.iter().filter(|coupon| coupon.kind == kind).collect();
        rng.pick(&of_the_kind).map(|coupon| coupon.id.clone())
    }

    /// All coupons of a kind, in order of creation.
    #[must_use]
    pub fn all(&self, kind: Kind) -> Vec<String> {
        let coupons = self.coupons.read().unwrap_or_else(PoisonError::into_inner);
        coupons.iter().filter(|coupon| coupon.kind == kind).map(|coupon| coupon.id.clone()).collect()
    }

    /// A random shared code.
    #[must_use]
    pub fn any_shared_code(&self, rng: &mut Rng) -> Option<String> {
        rng.pick(&self.shared_codes.read().unwrap_or_else(PoisonError::into_inner)).cloned()
    }

    /// Keeps a code for named claims.
    pub fn record_code(&self, coupon: &str, code: &str) {
        let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        if codes.len() == MAX_CODES {
            codes.pop_front();
        }
        codes.push_back((coupon.to_owned(), code.to_owned()));
    }

    /// A random coupon and a code of it that a user has or had.
    #[must_use]
    pub fn any_code(&self, rng: &mut Rng) -> Option<(String, String)> {
        let codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        codes.get(rng.below(codes.len())).cloned()
    }

    /// A copy of the list of coupons.
    #[must_use]
    pub fn coupons(&self) -> Vec<Coupon> {
        self.coupons.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds a coupon.
    pub fn add(&self, coupon: Coupon) {
        self.coupons.write().unwrap_or_else(PoisonError::into_inner).push(coupon);
    }

    /// Replaces the list of shared codes.
    pub fn set_shared_codes(&self, codes: Vec<String>) {
        *self.shared_codes.write().unwrap_or_else(PoisonError::into_inner) = codes;
    }

    /// A new coupon id, in the given partition if there is one.
    pub fn new_id(&self, kind: Kind, partition: Option<i32>, partitions: i32) -> String {
        loop {
            let n = self.made.fetch_add(1, Ordering::Relaxed);
            let id = format!("fire-{}-{n}", format!("{kind:?}").to_lowercase());
            if partition.is_none_or(|wanted| partition_for(id.as_bytes(), partitions) == wanted) {
                return id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coupon_of_a_probe_is_in_its_partition() {
        let shop = Fixtures::default();
        for partition in 0..8 {
            let id = shop.new_id(Kind::Probe, Some(partition), 8);
            assert_eq!(partition_for(id.as_bytes(), 8), partition, "{id}");
        }
        assert_ne!(shop.new_id(Kind::Cool, None, 8), shop.new_id(Kind::Cool, None, 8));
    }

    #[test]
    fn the_newest_codes_are_kept() {
        let shop = Fixtures::default();
        assert_eq!(shop.any_code(&mut Rng::new(1)), None);
        (0..MAX_CODES + 7).for_each(|n| shop.record_code("spring", &n.to_string()));
        let codes = shop.codes.lock().expect("the lock is not poisoned");
        assert_eq!((codes.len(), codes[0].1.as_str()), (MAX_CODES, "7"));
    }
}
