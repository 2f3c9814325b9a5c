//! The quiet after a run: nobody sends anything any more, and the time goes on. Every deadline that is left must pass
//! by ticks alone, and by no more ticks than there are lapses.

use crate::world::World;
use coupon_core::interface::Input;

/// Rounds of going on in which every deadline has passed, or never will.
const MOST_ROUNDS: u64 = 600;
/// A clock that runs faster than the broker's asks too early, and then again for ever smaller rests.
const TOO_EARLY: u64 = 40;
const LONGEST: i64 = 600_000;

pub(crate) fn every_deadline_passes(world: &mut World) -> Result<(), String> {
    if world.rng.chance(700) {
        world.log.mend_leader();
    }
    let before = (world.ticks, world.vain_ticks, world.lapses);
    let mut by = 200;
    world.reference.coverage.saw_if(!world.ledger.deadlines.is_empty(), "quiet: deadlines are left to ticks");
    for _ in 0..MOST_ROUNDS {
        let Some(next) = world.ledger.deadlines.first().cloned() else {
            return ticks_are_bounded(world, before);
        };
        world.log.pass(by);
        let owner = &world.owners[0];
        let (id, quiet) = (owner.id, owner.quiet(world.log.now()));
        world.feed(id, Input::Idle { since_last_record: quiet })?;
        world.come_to_rest()?;
        let same = world.ledger.deadlines.first() == Some(&next);
        by = if same { (2 * by).min(LONGEST) } else { *world.rng.pick(&[200, 5_000, 60_000]) };
    }
    let (left, time) = (&world.ledger.deadlines, world.ledger.row.position.time);
    Err(format!("I11: at {time}, the broker's {}, ticks never come to {left:?}", world.log.broker_time()))
}

fn ticks_are_bounded(world: &World, (ticks, vain, lapses): (u64, u64, u64)) -> Result<(), String> {
    let (ticks, vain, lapses) = (world.ticks - ticks, world.vain_ticks - vain, world.lapses - lapses);
    let early = if world.owners[0].rate > 1_000 { TOO_EARLY } else { 0 };
    let most = 2 + vain + lapses * (1 + early);
    if ticks <= most {
        return Ok(());
    }
    Err(format!("I12: {ticks} ticks, {vain} of them by a clock that is behind, for {lapses} lapses"))
}
