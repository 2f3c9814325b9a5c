//! Calls that an owner has made and that are not executed yet. The steps of a call are executed at separate times.

use crate::environment::broker::Message;
use crate::owner::OwnerId;
use coupon_core::batch::{Batch, Position};
use coupon_core::ids::{EmitSeq, Nonce, Offset};
use coupon_core::interface::{CodeEntry, LookupResults, Lookups, Pop, Popped, ReadCodes, Refill, Token};
use std::sync::Arc;

pub(crate) struct PendingCall {
    pub(crate) owner: OwnerId,
    /// It is not executed before this step.
    pub(crate) ready_at: u64,
    /// Whether its owner still waits for the response.
    pub(crate) awaited: bool,
    pub(crate) call: Call,
}

pub(crate) enum Call {
    TakeOver(Nonce),
    CheckLog(Position),
    Lookup(Box<LookupCall>),
    Reserve(Box<ReserveCall>),
    /// First the codes are read, then they are pushed.
    Refill(Refill, Option<Vec<CodeEntry>>),
    Write(Arc<Batch>),
    ReadBack,
    /// The record, and whether it was compared before.
    ReadClock(Offset, bool),
    Publish(EmitSeq, Vec<Message>),
    Republish(EmitSeq, EmitSeq),
    Tick,
}

/// One query for each kind of lookup.
pub(crate) struct LookupCall {
    pub(crate) token: Token,
    pub(crate) lookups: Lookups,
    /// Number of queries executed.
    pub(crate) stage: u8,
    pub(crate) results: LookupResults,
}

/// Pops and reads, one after another.
pub(crate) struct ReserveCall {
    pub(crate) token: Token,
    pub(crate) pops: Vec<Pop>,
    pub(crate) reads: Vec<ReadCodes>,
    pub(crate) popped: Vec<Popped>,
    pub(crate) read: Vec<Vec<CodeEntry>>,
}

impl Call {
    /// The name in the trace.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::TakeOver(_) => "take over",
            Self::CheckLog(_) => "check log",
            Self::Lookup(_) => "lookup",
            Self::Reserve(_) => "reserve",
            Self::Refill(..) => "refill",
            Self::Write(_) => "write",
            Self::ReadBack => "read back",
            Self::ReadClock(..) => "read clock",
            Self::Publish(..) => "publish",
            Self::Republish(..) => "republish",
            Self::Tick => "tick",
        }
    }
}
