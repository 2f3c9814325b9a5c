//! Reads from the ledger: one query per kind, each at a moment of its own, before or after a write that is under way.

use crate::ledger::LoadState;
use crate::owner::{Call, Load};
use crate::perform::Left;
use crate::world::World;
use coupon_core::ids::CodeNumber;
use coupon_core::interface::{CodeEntry, Input, StoredCode, StoredCoupon, StoredLoad, UserCounts};

impl World {
    /// One query of the few that a load is made of.
    pub(crate) fn load(&mut self, mut load: Box<Load>, repeated: bool) -> Left {
        if repeated {
            // The connection broke: everything is read again.
            load.stage = 0;
            load.answers = Default::default();
            return Left::More(Call::Load(load));
        }
        loop {
            load.stage += 1;
            let asked = match load.stage {
                1 => self.load_coupons(&mut load),
                2 => self.load_decided(&mut load),
                3 => self.load_loads(&mut load),
                4 => self.load_users(&mut load),
                5 => self.load_returned(&mut load),
                6 => self.load_codes(&mut load),
                7 => self.load_lapsed(&mut load),
                8 => self.load_redemptions(&mut load),
                9 => self.load_codes_of_redemptions(&mut load),
                10 => self.load_orders(&mut load),
                11 => self.load_due(&mut load),
                _ => {
                    let answers = Box::new(std::mem::take(&mut load.answers));
                    return Left::Answer(Input::LookedUp { token: load.token, results: answers });
                }
            };
            if asked && self.rng.chance(500) {
                return Left::More(Call::Load(load));
            }
        }
    }

    fn load_coupons(&self, load: &mut Load) -> bool {
        for coupon_id in &load.wants.coupons {
            if let Some((no, coupon)) = self.ledger.by_id(coupon_id) {
                load.answers.coupons.push(StoredCoupon {
                    coupon_id: coupon_id.clone(),
                    coupon: no,
                    definition: coupon.definition.clone(),
                    stock: coupon.stock,
                    ahead: coupon.ahead.iter().copied().map(CodeNumber).collect(),
                });
            }
        }
        !load.wants.coupons.is_empty()
    }

    fn load_decided(&self, load: &mut Load) -> bool {
        let mut wanted = load.wants.decided.clone();
        wanted.sort_unstable();
        wanted.dedup();
        load.answers.decided =
            wanted.iter().flat_map(|identity| self.ledger.decided(*identity)).cloned().collect();
        !wanted.is_empty()
    }

    fn load_loads(&self, load: &mut Load) -> bool {
        let known = load.wants.loads.iter().filter_map(|wanted| self.ledger.load(*wanted));
        let known = known.map(|row| StoredLoad {
            load: row.id,
            coupon: row.coupon,
            count: row.count,
            sealed: matches!(row.state, LoadState::Sealed(_)),
        });
        load.answers.loads = known.collect();
        !load.wants.loads.is_empty()
    }

    fn load_users(&mut self, load: &mut Load) -> bool {
        for wanted in &load.wants.users {
            let Some(row) = self.ledger.coupon(wanted.coupon) else { continue };
            for user in &wanted.users {
                let count = row.users.get(user).copied().unwrap_or(0);
                let redemptions =
                    row.redeemers.get(user).copied().filter(|_| wanted.redemptions).unwrap_or(0);
                if count + redemptions > 0 || self.rng.chance(300) {
                    let (coupon, user) = (wanted.coupon, user.clone());
                    load.answers.users.push(UserCounts { coupon, user, claims: count, redemptions });
                }
            }
        }
        !load.wants.users.is_empty()
    }

    fn load_returned(&self, load: &mut Load) -> bool {
        for wanted in &load.wants.returned {
            let Some(coupon) = self.ledger.coupon(wanted.coupon) else { continue };
            let numbers = coupon.returned.iter().take(wanted.limit);
            let entries =
                numbers.map(|number| CodeEntry { number: CodeNumber(*number), code: coupon.text(*number) });
            load.answers.returned.push((wanted.coupon, entries.collect()));
        }
        !load.wants.returned.is_empty()
    }

    fn load_codes(&self, load: &mut Load) -> bool {
        for wanted in &load.wants.codes {
            let code =
                crate::ledger::named(&wanted.key).and_then(|(load, idx)| self.ledger.code_at(load, idx));
            once(&mut load.answers.codes, code);
        }
        !load.wants.codes.is_empty()
    }

    fn load_lapsed(&self, load: &mut Load) -> bool {
        for wanted in &load.wants.codes {
            let code =
                crate::ledger::named(&wanted.key).and_then(|(load, idx)| self.ledger.code_at(load, idx));
            let Some((code, base)) = code.and_then(|code| code.base.map(|base| (code, base))) else {
                continue;
            };
            let row = (code.coupon, CodeNumber(base + code.idx), wanted.user.clone());
            if self.ledger.lapsed.contains(&row) && !load.answers.lapsed.contains(&row) {
                load.answers.lapsed.push(row);
            }
        }
        !load.wants.codes.is_empty()
    }

    fn load_redemptions(&self, load: &mut Load) -> bool {
        let known = load.wants.redemptions.iter().filter_map(|wanted| self.ledger.redemption(*wanted));
        load.answers.redemptions = known.collect();
        !load.wants.redemptions.is_empty()
    }

    fn load_codes_of_redemptions(&self, load: &mut Load) -> bool {
        for stored in &load.answers.redemptions {
            let place = self.ledger.coupon(stored.coupon).and_then(|coupon| coupon.place(stored.number.0));
            let code = place.and_then(|(load, idx)| self.ledger.code_at(load, idx));
            once(&mut load.answers.codes, code);
        }
        !load.answers.redemptions.is_empty()
    }

    fn load_orders(&self, load: &mut Load) -> bool {
        let paid = load.wants.orders.iter().filter(|order| self.ledger.is_paid(order));
        load.answers.orders = paid.cloned().collect();
        !load.wants.orders.is_empty()
    }

    fn load_due(&self, load: &mut Load) -> bool {
        load.answers.due = load.wants.due.map(|due| self.ledger.due(due));
        load.wants.due.is_some()
    }
}

fn once(codes: &mut Vec<StoredCode>, code: Option<StoredCode>) {
    codes.extend(code.filter(|code| !codes.iter().any(|known| known.key == code.key)));
}
