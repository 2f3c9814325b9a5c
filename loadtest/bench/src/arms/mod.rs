//! The arms: one file for each design, and the list of all.

pub mod accept;
pub mod claim_to_outcome;
pub mod conditional_update;
pub mod drains;
pub mod echo;
pub mod gate;
pub mod http_ceiling;
pub mod overload;
pub mod pg_ceiling;
pub mod redis_lua;
pub mod row_lock;
pub mod scaling;
pub mod skip_locked;
pub mod takeover;

use crate::arm::Arm;
use accept::ACCEPT;
use claim_to_outcome::{CLAIM_ALONE, CLAIM_TO_OUTCOME};
use conditional_update::CONDITIONAL_UPDATE;
use drains::{
    COUPONS_10, COUPONS_100, COUPONS_1000, HISTORY_1, HISTORY_30, HISTORY_365, HOT_DRAIN, HOT_DRAIN_8,
    REDEEM_DRAIN, SOLD_OUT_DRAIN, STOCK_1000, STOCK_10000, STOCK_100000, STOCK_1000000, UNIFORM_DRAIN,
};
use echo::ECHO;
use gate::GATE;
use http_ceiling::HTTP_CEILING;
use overload::OVERLOAD;
use pg_ceiling::PG_CEILING;
use redis_lua::REDIS_LUA;
use row_lock::ROW_LOCK;
use scaling::{SCALING_1, SCALING_2, SCALING_4};
use skip_locked::SKIP_LOCKED;
use takeover::{HAND_OVER, TAKEOVER, TAKEOVER_MILLION};

/// Every arm, in display order.
pub const ALL: &[&dyn Arm] = &[
    &HOT_DRAIN,
    &SOLD_OUT_DRAIN,
    &UNIFORM_DRAIN,
    &HOT_DRAIN_8,
    &REDEEM_DRAIN,
    &ACCEPT,
    &GATE,
    &CLAIM_TO_OUTCOME,
    &CLAIM_ALONE,
    &OVERLOAD,
    &TAKEOVER,
    &TAKEOVER_MILLION,
    &HAND_OVER,
    &SCALING_1,
    &SCALING_2,
    &SCALING_4,
    &COUPONS_10,
    &COUPONS_100,
    &COUPONS_1000,
    &STOCK_1000,
    &STOCK_10000,
    &STOCK_100000,
    &STOCK_1000000,
    &HISTORY_1,
    &HISTORY_30,
    &HISTORY_365,
    &ROW_LOCK,
    &CONDITIONAL_UPDATE,
    &SKIP_LOCKED,
    &REDIS_LUA,
    &PG_CEILING,
    &HTTP_CEILING,
    &ECHO,
];
