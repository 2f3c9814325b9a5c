//! Lookups in the ledger: one query for each kind, each executed at a time of its own, before or after a write that is
//! under way. So a lookup may combine rows from before a write with rows from after it.

use super::Run;
use super::calls::Progress;
use super::pending::{Call, LookupCall};
use crate::environment::ledger::parse_code_key;
use crate::environment::ledger::tables::LoadState;
use coupon_core::ids::CodeNumber;
use coupon_core::interface::{CodeEntry, Input, StoredCode, StoredCoupon, StoredLoad, UserCounts};

impl Run {
    /// Executes queries up to a random point.
    pub(super) fn look_up(&mut self, mut call: Box<LookupCall>, retried: bool) -> Progress {
        if retried {
            // The connection is lost: every query is executed again.
            call.stage = 0;
            call.results = Default::default();
            return Progress::Continue(Call::Lookup(call));
        }
        loop {
            call.stage += 1;
            let executed = match call.stage {
                1 => self.find_coupons(&mut call),
                2 => self.find_outcomes(&mut call),
                3 => self.find_loads(&mut call),
                4 => self.find_users(&mut call),
                5 => self.find_returned(&mut call),
                6 => self.find_codes(&mut call),
                7 => self.find_lapsed(&mut call),
                8 => self.find_redemptions(&mut call),
                9 => self.find_codes_of_redemptions(&mut call),
                10 => self.find_orders(&mut call),
                11 => self.find_due_claims(&mut call),
                _ => {
                    let results = Box::new(std::mem::take(&mut call.results));
                    return Progress::Response(Input::LookedUp { token: call.token, results });
                }
            };
            if executed && self.rng.chance(500) {
                return Progress::Continue(Call::Lookup(call));
            }
        }
    }

    fn find_coupons(&self, call: &mut LookupCall) -> bool {
        for coupon_id in &call.lookups.coupons {
            if let Some((no, coupon)) = self.environment.ledger.coupon_by_id(coupon_id) {
                call.results.coupons.push(StoredCoupon {
                    coupon_id: coupon_id.clone(),
                    coupon: no,
                    definition: coupon.definition.clone(),
                    stock: coupon.stock,
                    ahead: coupon.ahead.iter().copied().map(CodeNumber).collect(),
                });
            }
        }
        !call.lookups.coupons.is_empty()
    }

    fn find_outcomes(&self, call: &mut LookupCall) -> bool {
        let mut identities = call.lookups.decided.clone();
        identities.sort_unstable();
        identities.dedup();
        let (ledger, days) = (&self.environment.ledger, &call.lookups.decided_in);
        let outcomes =
            identities.iter().flat_map(|identity| ledger.outcomes_of(*identity, |day| days.contains(&day)));
        call.results.decided = outcomes.cloned().collect();
        !identities.is_empty()
    }

    fn find_loads(&self, call: &mut LookupCall) -> bool {
        let rows = call.lookups.loads.iter().filter_map(|id| self.environment.ledger.load(*id));
        let loads = rows.map(|row| StoredLoad {
            load: row.id,
            coupon: row.coupon,
            count: row.count,
            sealed: matches!(row.state, LoadState::Sealed(_)),
        });
        call.results.loads = loads.collect();
        !call.lookups.loads.is_empty()
    }

    /// Users without claims and redemptions may or may not be in the result.
    fn find_users(&mut self, call: &mut LookupCall) -> bool {
        for lookup in &call.lookups.users {
            let coupon = lookup.coupon;
            let Some(row) = self.environment.ledger.coupon(coupon) else { continue };
            for user in &lookup.users {
                let claims = row.claims_by_user.get(user).copied().unwrap_or(0);
                let redemptions = row.redemptions_by_user.get(user).copied();
                let redemptions = redemptions.filter(|_| lookup.redemptions).unwrap_or(0);
                if claims + redemptions > 0 || self.rng.chance(300) {
                    call.results.users.push(UserCounts { coupon, user: user.clone(), claims, redemptions });
                }
            }
        }
        !call.lookups.users.is_empty()
    }

    fn find_returned(&self, call: &mut LookupCall) -> bool {
        for lookup in &call.lookups.returned {
            let Some(coupon) = self.environment.ledger.coupon(lookup.coupon) else { continue };
            let numbers = coupon.returned.range(lookup.from.0..).take(lookup.limit);
            let entries = numbers
                .map(|number| CodeEntry { number: CodeNumber(*number), code: coupon.code_text(*number) });
            call.results.returned.push((lookup.coupon, entries.collect()));
        }
        !call.lookups.returned.is_empty()
    }

    fn find_code(&self, key: &str) -> Option<StoredCode> {
        let (load, idx) = parse_code_key(key)?;
        self.environment.ledger.code_at(load, idx)
    }

    fn find_codes(&self, call: &mut LookupCall) -> bool {
        for lookup in &call.lookups.codes {
            push_once(&mut call.results.codes, self.find_code(&lookup.key));
        }
        !call.lookups.codes.is_empty()
    }

    fn find_lapsed(&self, call: &mut LookupCall) -> bool {
        for lookup in &call.lookups.codes {
            let Some(code) = self.find_code(&lookup.key) else { continue };
            let Some(base) = code.base else { continue };
            let row = (code.coupon, CodeNumber(base + code.idx), lookup.user.clone());
            if self.environment.ledger.lapsed.contains(&row) && !call.results.lapsed.contains(&row) {
                call.results.lapsed.push(row);
            }
        }
        !call.lookups.codes.is_empty()
    }

    fn find_redemptions(&self, call: &mut LookupCall) -> bool {
        let ids = call.lookups.redemptions.iter();
        call.results.redemptions = ids.filter_map(|id| self.environment.ledger.redemption(*id)).collect();
        !call.lookups.redemptions.is_empty()
    }

    fn find_codes_of_redemptions(&self, call: &mut LookupCall) -> bool {
        let ledger = &self.environment.ledger;
        for stored in &call.results.redemptions {
            let coupon = ledger.coupon(stored.coupon);
            let place = coupon.and_then(|coupon| coupon.load_and_index(stored.number.0));
            let code = place.and_then(|(load, idx)| ledger.code_at(load, idx));
            push_once(&mut call.results.codes, code);
        }
        !call.results.redemptions.is_empty()
    }

    fn find_orders(&self, call: &mut LookupCall) -> bool {
        let used = call.lookups.orders.iter().filter(|order| self.environment.ledger.is_order_used(order));
        call.results.orders = used.cloned().collect();
        !call.lookups.orders.is_empty()
    }

    fn find_due_claims(&self, call: &mut LookupCall) -> bool {
        call.results.due = call.lookups.due.map(|due| self.environment.ledger.due_claims(due));
        call.lookups.due.is_some()
    }
}

fn push_once(codes: &mut Vec<StoredCode>, code: Option<StoredCode>) {
    codes.extend(code.filter(|code| !codes.iter().any(|other| other.key == code.key)));
}
