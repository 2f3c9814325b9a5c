//! Coupons and their codes: definitions, caches of what exists, and loads of codes in bulk.

pub(crate) mod code_cache;
pub(crate) mod coupon_body;
pub(crate) mod existence_cache;
pub(crate) mod leases;
pub(crate) mod loads;
pub(crate) mod lookup_cache;
pub(crate) mod stored_pattern;
