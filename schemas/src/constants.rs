//! The values of `kind` and `status`. They are strings in Avro, never enums: a reader of an older version must be able
//! to read a value that is new to it, and reject the request.

/// The values of `kind`.
pub mod kinds {
    /// Request: claim a code, any or a named one.
    pub const CLAIM: &str = "claim";
    /// Request: lock a claimed code during a checkout.
    pub const LOCK: &str = "lock";
    /// Request: release a lock.
    pub const UNLOCK: &str = "unlock";
    /// Request: return a claimed code.
    pub const RETURN: &str = "return";
    /// Request: redeem a code with an order.
    pub const REDEEM: &str = "redeem";
    /// Request: roll back a redemption.
    pub const ROLLBACK: &str = "rollback";
    /// Request: revoke a code permanently.
    pub const REVOKE: &str = "revoke";
    /// Internal: advances a partition's time when no other record does.
    pub const TICK: &str = "tick";
    /// Internal: a sealed load of codes becomes stock.
    pub const STOCK_ADDED: &str = "stock_added";
    /// Internal: a coupon's definition changes, in order with its requests.
    pub const DEFINITION_CHANGED: &str = "definition_changed";

    /// The requests of users, services and admins; each has exactly one outcome.
    pub const USER_REQUESTS: &[&str] = &[CLAIM, LOCK, UNLOCK, RETURN, REDEEM, ROLLBACK, REVOKE];
    /// Every kind of `CouponRequest`.
    pub const REQUESTS: &[&str] =
        &[CLAIM, LOCK, UNLOCK, RETURN, REDEEM, ROLLBACK, REVOKE, TICK, STOCK_ADDED, DEFINITION_CHANGED];

    /// Event: a hold has lapsed, its code is back in stock.
    pub const HOLD_LAPSED: &str = "hold_lapsed";
    /// Event: a lock has lapsed.
    pub const LOCK_LAPSED: &str = "lock_lapsed";
    /// Event: fewer codes are available than the coupon's threshold.
    pub const LOW_STOCK: &str = "low_stock";
    /// Event: no code is available.
    pub const SOLD_OUT: &str = "sold_out";
    /// Event: codes are available again.
    pub const RESTOCKED: &str = "restocked";

    /// Every kind of `CouponEvent`.
    pub const EVENTS: &[&str] = &[HOLD_LAPSED, LOCK_LAPSED, LOW_STOCK, SOLD_OUT, RESTOCKED];
}

/// The values of `status` in a `CouponResponse`.
pub mod status {
    /// The request was accepted.
    pub const ACCEPTED: &str = "accepted";
    /// The request was rejected; `reason` has the cause.
    pub const REJECTED: &str = "rejected";
}
