//! The words that stand in `kind` and `status`. They are strings in Avro, never enums: a reader of an older
//! version must be able to read a word that it does not know, and to answer it.

/// The words of `kind`.
pub mod kinds {
    /// Request: obtain a code, any or a named one.
    pub const CLAIM: &str = "claim";
    /// Request: reserve one's own code for a checkout.
    pub const LOCK: &str = "lock";
    /// Request: release a lock.
    pub const UNLOCK: &str = "unlock";
    /// Request: give a claimed code back.
    pub const RETURN: &str = "return";
    /// Request: use a code with an order.
    pub const REDEEM: &str = "redeem";
    /// Request: undo a redemption.
    pub const ROLLBACK: &str = "rollback";
    /// Request: withdraw a code for good.
    pub const REVOKE: &str = "revoke";
    /// Internal: moves a partition's time when nothing else does.
    pub const TICK: &str = "tick";
    /// Internal: a sealed load of codes becomes stock.
    pub const STOCK_ADDED: &str = "stock_added";
    /// Internal: a coupon's definition changes, in order with its requests.
    pub const DEFINITION_CHANGED: &str = "definition_changed";

    /// What a user, a service or an admin asks for; each has exactly one outcome.
    pub const USER_REQUESTS: &[&str] = &[CLAIM, LOCK, UNLOCK, RETURN, REDEEM, ROLLBACK, REVOKE];
    /// Every kind of `CouponRequest`.
    pub const REQUESTS: &[&str] =
        &[CLAIM, LOCK, UNLOCK, RETURN, REDEEM, ROLLBACK, REVOKE, TICK, STOCK_ADDED, DEFINITION_CHANGED];

    /// Event: a hold's time is over, its code is stock again.
    pub const HOLD_LAPSED: &str = "hold_lapsed";
    /// Event: a lock's time is over.
    pub const LOCK_LAPSED: &str = "lock_lapsed";
    /// Event: fewer codes are left than the coupon's threshold.
    pub const LOW_STOCK: &str = "low_stock";
    /// Event: no code is left.
    pub const SOLD_OUT: &str = "sold_out";
    /// Event: there are codes again.
    pub const RESTOCKED: &str = "restocked";

    /// Every kind of `CouponEvent`.
    pub const EVENTS: &[&str] = &[HOLD_LAPSED, LOCK_LAPSED, LOW_STOCK, SOLD_OUT, RESTOCKED];
}

/// The words of `status` in a `CouponResponse`.
pub mod status {
    /// The request was granted.
    pub const ACCEPTED: &str = "accepted";
    /// The request was refused; `reason` says why.
    pub const REJECTED: &str = "rejected";
}
