//! Deadlines without traffic: after the drain no record is appended, and the time advances. Every remaining deadline must
//! pass by ticks alone (I11), with a number of ticks in proportion to the lapses (I12).

use super::Run;
use coupon_core::interface::Input;

/// Rounds after which a deadline that has not passed never will.
const MAX_ROUNDS: u64 = 600;
/// Ticks per lapse of an owner whose clock runs faster than the broker's: it requests ticks too early, and again after
/// ever shorter pauses.
const MAX_EARLY_TICKS: u64 = 40;
const MAX_PAUSE_MS: i64 = 600_000;

impl Run {
    pub(super) fn let_deadlines_pass(&mut self) -> Result<(), String> {
        if self.rng.chance(700) {
            self.environment.log.correct_leader_clock();
        }
        let before = (self.ticks, self.ineffective_ticks, self.lapses);
        let mut pause = 200;
        let left = !self.environment.ledger.deadlines.is_empty();
        self.reference.coverage.count_if(left, "idle: deadlines pass by ticks alone");
        for _ in 0..MAX_ROUNDS {
            let Some(next) = self.environment.ledger.deadlines.first().copied() else {
                return self.ticks_are_bounded(before);
            };
            let log = &mut self.environment.log;
            log.pass(pause);
            let owner = &self.owners[0];
            let (id, since_last_record) = (owner.id, owner.since_last_record(log.now()));
            self.apply_input(id, Input::Idle { since_last_record })?;
            self.run_until_quiescent()?;
            let same = self.environment.ledger.deadlines.first() == Some(&next);
            pause = if same { (2 * pause).min(MAX_PAUSE_MS) } else { *self.rng.pick(&[200, 5_000, 60_000]) };
        }
        let ledger = &self.environment.ledger;
        let (left, time, broker_time) =
            (&ledger.deadlines, ledger.row.position.time, self.environment.log.broker_time());
        Err(format!("I11: at {time}, broker time {broker_time}, no tick reaches the deadlines {left:?}"))
    }

    fn ticks_are_bounded(&self, (ticks, ineffective, lapses): (u64, u64, u64)) -> Result<(), String> {
        let ticks = self.ticks - ticks;
        let ineffective = self.ineffective_ticks - ineffective;
        let lapses = self.lapses - lapses;
        let early = if self.owners[0].clock_rate > 1_000 { MAX_EARLY_TICKS } else { 0 };
        if ticks <= 2 + ineffective + lapses * (1 + early) {
            return Ok(());
        }
        Err(format!(
            "I12: {ticks} ticks for {lapses} lapses, {ineffective} of them behind the partition's time"
        ))
    }
}
