//! The interface of the core: the effects that the machine requests, and the inputs that it receives.
//!
//! The driver performs every effect and returns its result as an input. Results may arrive in any order and at any
//! time. A result carries the token of its request; the machine ignores results of requests that it has abandoned.

mod cache_list;
mod effect;
mod input;
mod lookup;

pub use cache_list::{CacheListName, CodeEntry, Pop, Popped, ReadCodes, Refill, RefillResult};
pub use effect::{Effect, Release, Token};
pub use input::{Input, PartitionRow, WriteResult};
pub use lookup::{
    CodeLookup, DueClaims, DueLookup, LookupResults, Lookups, OrderLookup, ReturnedLookup, StoredCode,
    StoredCoupon, StoredLoad, StoredRedemption, UserCounts, UserLookup,
};
