//! The content of one snapshot of Postgres, with the indexes by which the checks find rows.

use std::collections::BTreeMap;

use coupon_core::ids::RequestId;

use super::codes::{Codes, Load};
use super::model::{Change, ClaimStatus, CodeFlags, CodeId, Coupon, Position, Redemption, Row};
use crate::collections::{Map, Set};

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// How many partitions each topic had when Stampede was set up.
    pub(crate) topic_partitions: Map<String, i32>,
    pub(crate) partitions: BTreeMap<i32, Position>,
    pub(crate) coupons: BTreeMap<i64, Coupon>,
    /// The number of each coupon id.
    pub(crate) coupon_numbers: Map<Box<str>, i64>,
    pub(crate) loads: Vec<Load>,
    pub(crate) codes: Codes,
    pub(crate) ahead: Vec<CodeId>,
    pub(crate) returned: Vec<CodeId>,
    pub(crate) code_flags: Map<CodeId, CodeFlags>,
    pub(crate) rows: Vec<Row>,
    /// By the index of the claim's row; plain claims have none.
    pub(crate) claim_status: Map<u32, ClaimStatus>,
    pub(crate) changes: Vec<Change>,
    pub(crate) redemptions: Vec<Redemption>,
    /// The index in `redemptions`, by the index of the row.
    pub(super) redemption_of_row: Map<u32, u32>,
    by_identity: Map<u128, u32>,
    /// Further rows of an identity, after the first.
    siblings: Map<u128, Vec<u32>>,
    /// Requests whose responses are in the outbox.
    pub(crate) unpublished_responses: Set<RequestId>,
    /// Partitions with events in the outbox.
    pub(crate) partitions_with_unpublished_events: Set<i32>,
    /// The events in the outbox, encoded.
    pub(crate) unpublished_events: Vec<Vec<u8>>,
    /// The origins (partition and offset) of the dead letters in the outbox.
    pub(crate) unpublished_dead_letters: Set<(i32, i64)>,
    pub(crate) outbox_entries: u64,
}

impl Ledger {
    /// Every row of an identity.
    pub(crate) fn of_identity(&self, identity: u128) -> impl Iterator<Item = &Row> {
        let first = self.by_identity.get(&identity).copied();
        let others = self.siblings.get(&identity).into_iter().flatten().copied();
        first.into_iter().chain(others).filter_map(|index| self.row_at(index))
    }

    /// The row at an index.
    pub(crate) fn row_at(&self, index: u32) -> Option<&Row> {
        self.rows.get(index as usize)
    }

    /// The row of a request.
    pub(crate) fn row(&self, id: RequestId) -> Option<&Row> {
        self.index_of(id).and_then(|index| self.row_at(index))
    }

    /// The index of a request's row.
    pub(crate) fn index_of(&self, id: RequestId) -> Option<u32> {
        self.indices_of(id).next()
    }

    /// The indices of all rows of a request; several if it was decided anew after the deduplication window.
    pub(crate) fn indices_of(&self, id: RequestId) -> impl Iterator<Item = u32> {
        let first = self.by_identity.get(&id.identity).copied();
        let others = self.siblings.get(&id.identity).into_iter().flatten().copied();
        let is_row = move |index: &u32| self.row_at(*index).is_some_and(|row| row.id == id);
        first.into_iter().chain(others).filter(is_row)
    }

    /// The index of the redemption that a request made.
    pub(crate) fn redemption_index(&self, id: RequestId) -> Option<u32> {
        self.redemption_of_row.get(&self.index_of(id)?).copied()
    }

    /// The redemption at an index.
    pub(crate) fn redemption_at(&self, index: u32) -> Option<&Redemption> {
        self.redemptions.get(index as usize)
    }

    /// Identities with several rows.
    pub(crate) fn shared_identities(&self) -> impl Iterator<Item = u128> {
        self.siblings.keys().copied()
    }

    /// The request id of a row, for messages.
    pub(crate) fn request_name(&self, index: u32) -> String {
        self.row_at(index).map(|row| row.id.to_string()).unwrap_or_default()
    }

    /// A coupon's id, for messages.
    pub(crate) fn coupon_name(&self, coupon: i64) -> String {
        self.coupons.get(&coupon).map_or_else(|| format!("coupon number {coupon}"), |c| c.id.to_string())
    }

    /// A code, for messages.
    pub(crate) fn code_name(&self, (coupon, number): CodeId) -> String {
        let text = self.codes.text_of(coupon, number).unwrap_or("?");
        format!("code {number} ({text}) of {}", self.coupon_name(coupon))
    }

    /// The first offset of a partition that is not decided.
    pub(crate) fn next_offset(&self, partition: i32) -> i64 {
        self.partitions.get(&partition).map_or(0, |position| position.next_offset)
    }

    /// Adds a row, and returns its index.
    pub(super) fn add(&mut self, row: Row) -> u32 {
        let index = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        if *self.by_identity.entry(row.id.identity).or_insert(index) != index {
            self.siblings.entry(row.id.identity).or_default().push(index);
        }
        self.rows.push(row);
        index
    }

    /// Adds a redemption, whose row has been added.
    pub(super) fn add_redemption(&mut self, redemption: Redemption) {
        let index = u32::try_from(self.redemptions.len()).unwrap_or(u32::MAX);
        self.redemption_of_row.insert(redemption.row, index);
        self.redemptions.push(redemption);
    }
}
