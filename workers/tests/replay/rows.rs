//! The rows of a ledger as lines of text, made in the same way of the simulated ledger and of the tables.

use std::collections::BTreeSet;

use coupon_core::batch::{Decision, Verdict};
use coupon_core::ids::{CouponNo, Millis};
use uuid::Uuid;

use crate::database::{Database, PARTITION, state_no};
use crate::environment::ledger::Ledger;
use crate::environment::ledger::tables::{Coupon, LoadState};

/// Every table as lines, with `|` between the columns and nothing for null.
const QUERIES: &[&str] = &[
    "select concat_ws('|', 'partition', epoch, nonce, write_no, attempt, next_offset, last_offset, last_digest, time_ms,
            suspect_until_ms, next_emit_seq, emitted_seq) from partitions where partition = 3",
    "select concat_ws('|', 'stock', coupon_no, top, cursor, ahead, returned, claimed, locked, redeemed, revoked, redemptions)
       from stock",
    "select concat_ws('|', 'ahead', coupon_no, number) from stock_ahead",
    "select concat_ws('|', 'returned', coupon_no, number) from stock_returned",
    "select concat_ws('|', 'flags', coupon_no, number, uses, revoked) from code_marks where uses > 0 or revoked",
    "select concat_ws('|', 'load', load_id, coupon_no, base) from loads where state = 'applied'",
    "select 'claim|' || concat_ws('|', identity, body, coupon_no, number, \"offset\", claimed_ms, state, user_id)
            || format('|%s|%s|%s|%s|%s', hold_until_ms, lock_until_ms, order_id, lapsed_ms, deadline_ms) from claims",
    "select 'redemption|' || concat_ws('|', identity, body, coupon_no, number, \"offset\", redeemed_ms, user_id, order_id,
            order_amount, discount, final_price, currency) || format('|%s|%s', claimed_ms, rolled_back_ms) from redemptions",
    "select 'outcome|' || concat_ws('|', day - date '1970-01-01', identity, body, \"offset\", decided_ms, kind, user_id)
            || format('|%s|%s|%s|%s', coupon_no, reason, number, claim_state) from outcomes",
    "select format('outbox|%s|%s', seq, (select string_agg(id::text, ',' order by id) from unnest(ids) id)) from outbox",
    "select format('messages|%s|%s', seq, count(*)) from outbox_messages group by seq",
];

pub(crate) async fn of_postgres(database: &Database) -> BTreeSet<String> {
    let mut rows = BTreeSet::new();
    for query in QUERIES {
        let lines: Vec<String> = sqlx::query_scalar(*query).fetch_all(&database.pool).await.unwrap();
        rows.extend(lines);
    }
    rows
}

pub(crate) fn of_simulation(ledger: &Ledger) -> BTreeSet<String> {
    let row = &ledger.row;
    let position = &row.position;
    let attempt = row.attempt.map(|attempt| format!("|{}", Uuid::from_u128(attempt.0))).unwrap_or_default();
    let mut rows = BTreeSet::from([format!(
        "partition|{}|{}|{}{attempt}|{}|{}|{}|{}|{}|{}|{}",
        row.epoch,
        Uuid::from_u128(row.nonce.0),
        row.write_no,
        position.next_offset,
        position.last_offset,
        position.last_digest,
        position.time,
        position.possible_duplicates_until,
        row.next_emit_seq,
        row.emitted_seq,
    )]);
    for (no, coupon) in (1..).map(CouponNo).zip(&ledger.coupons) {
        rows.extend(of_coupon(no, coupon));
    }
    for load in ledger.loads.iter().filter(|load| load.state == LoadState::Applied) {
        let (coupon, id) = (load.coupon, load.id);
        let base = ledger.coupon(coupon).unwrap().loads.iter().find(|(_, applied)| *applied == id).unwrap().0;
        rows.insert(format!("load|{id}|{coupon}|{base}"));
    }
    rows.extend(ledger.claims.values().map(|row| {
        let (claim, status) = (&row.claim, &row.claim.status);
        let Decision { offset, .. } = row.decision;
        format!(
            "claim|{}|{}|{}|{}|{offset}|{}|{}|{}|{}|{}|{}|{}|{}",
            Uuid::from_u128(claim.id.identity),
            claim.id.body,
            claim.coupon,
            claim.number,
            claim.claimed,
            state_no(status.state),
            claim.user,
            text(status.hold_until),
            text(status.lock_until),
            status.order.as_deref().unwrap_or_default(),
            text(status.lapsed),
            text(status.deadline()),
        )
    }));
    rows.extend(ledger.redemptions.values().map(|row| {
        let redemption = &row.redemption;
        let claimed = match &row.decision.verdict {
            Verdict::Changed(changed) => changed.claimed,
            Verdict::Claimed { .. } | Verdict::Rejected(_) => None,
        };
        format!(
            "redemption|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}",
            Uuid::from_u128(redemption.id.identity),
            redemption.id.body,
            row.coupon,
            row.number,
            row.decision.offset,
            redemption.redeemed,
            row.decision.request.user,
            redemption.order,
            redemption.amount,
            redemption.discount,
            redemption.final_price,
            redemption.currency,
            text(claimed),
            text(row.rolled_back),
        )
    }));
    rows.extend(ledger.other_outcomes().map(|(day, decision)| of_outcome(day, decision)));
    rows.extend(of_outbox(ledger));
    rows
}

fn of_coupon(no: CouponNo, coupon: &Coupon) -> Vec<String> {
    let stock = &coupon.stock;
    let mut rows = vec![format!(
        "stock|{no}|{}|{}|{}|{}|{}|{}|{}|{}|{}",
        stock.top,
        stock.cursor,
        stock.ahead,
        stock.returned,
        stock.claimed,
        stock.locked,
        stock.redeemed,
        stock.revoked,
        stock.redemptions,
    )];
    rows.extend(coupon.ahead.iter().map(|number| format!("ahead|{no}|{number}")));
    rows.extend(coupon.returned.iter().map(|number| format!("returned|{no}|{number}")));
    let flags = coupon.flags.iter().filter(|(_, flags)| flags.uses > 0 || flags.revoked);
    rows.extend(flags.map(|(number, flags)| {
        let revoked = if flags.revoked { "t" } else { "f" };
        format!("flags|{no}|{number}|{}|{revoked}", flags.uses)
    }));
    rows
}

fn of_outcome(day: i32, decision: &Decision) -> String {
    let request = &decision.request;
    let (reason, number, state) = match &decision.verdict {
        Verdict::Rejected(reason) => (reason.as_str(), String::new(), String::new()),
        Verdict::Changed(changed) => {
            let state = changed.state.map(|state| state_no(state).to_string()).unwrap_or_default();
            ("", changed.number.to_string(), state)
        }
        Verdict::Claimed { .. } => unreachable!("claims have rows of their own"),
    };
    format!(
        "outcome|{day}|{}|{}|{}|{}|{}|{}|{}|{reason}|{number}|{state}",
        Uuid::from_u128(request.id.identity),
        request.id.body,
        decision.offset,
        decision.decided,
        request.kind,
        request.user,
        decision.coupon.map(|no| no.to_string()).unwrap_or_default(),
    )
}

/// The functions store the ids of claims first.
fn of_outbox(ledger: &Ledger) -> Vec<String> {
    let mut rows = Vec::new();
    for (seq, entry) in &ledger.outbox {
        let mut ids: Vec<Uuid> = entry.ids.iter().map(|id| Uuid::from_u128(id.identity)).collect();
        ids.sort_unstable();
        let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
        rows.push(format!("outbox|{seq}|{}", ids.join(",")));
        let messages = entry.dead_letters.len() + entry.events.len();
        if messages > 0 {
            rows.push(format!("messages|{seq}|{messages}"));
        }
    }
    rows
}

fn text(time: Option<Millis>) -> String {
    time.map(|time| time.to_string()).unwrap_or_default()
}

const _: () = assert!(PARTITION.0 == 3);
