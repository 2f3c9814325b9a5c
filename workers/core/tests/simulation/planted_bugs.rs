//! Planted bugs of the ledger and of the machine. The simulation finds each of them, so it would find the same mistake in
//! a change of the code.

use crate::plan::{LedgerBug, RunConfig};
#[cfg(feature = "planted-bugs")]
use crate::seeds;
use crate::seeds::assert_found;
#[cfg(feature = "planted-bugs")]
use coupon_core::planted::{Bug, Planted};

fn assert_ledger_bug_is_found(ledger_bug: LedgerBug) {
    assert_found(&format!("{ledger_bug:?}"), |seed| RunConfig { ledger_bug, ..RunConfig::new(seed) });
}

#[test]
fn a_ledger_that_ignores_the_fence_is_found() {
    assert_ledger_bug_is_found(LedgerBug::FenceIgnored);
}

#[test]
fn a_ledger_that_does_not_count_its_writes_is_found() {
    assert_ledger_bug_is_found(LedgerBug::WriteNumberNotCounted);
}

#[cfg(feature = "planted-bugs")]
fn assert_planted_bug_is_found(bug: Bug) {
    let planted = Planted::one(bug);
    assert_found(&format!("{bug:?}"), |seed| RunConfig { planted, ..RunConfig::new(seed) });
}

#[cfg(feature = "planted-bugs")]
macro_rules! planted_bugs {
    ($($test:ident: $bug:ident,)*) => {
        const BUGS: &[Bug] = &[$(Bug::$bug),*];
        $(
            #[test]
            fn $test() {
                assert_planted_bug_is_found(Bug::$bug);
            }
        )*
    };
}

#[cfg(feature = "planted-bugs")]
planted_bugs! {
    skipped_deduplication_is_found: DeduplicationSkipped,
    a_pop_that_is_retried_after_an_unknown_result_is_found: UnknownPopRetried,
    an_offset_that_advances_early_is_found: OffsetEarly,
    a_watermark_that_advances_early_is_found: WatermarkEarly,
    a_next_batch_that_is_not_undone_is_found: NextBatchNotUndone,
    an_overlay_that_is_dropped_too_soon_is_found: OverlayDroppedEarly,
    an_append_time_far_ahead_that_is_trusted_is_found: AppendTimeTrusted,
    a_lapse_by_wall_clock_is_found: LapseByWallClock,
    a_lapse_that_is_lost_at_a_takeover_is_found: LapseLostAtTakeover,
    a_claim_that_lapses_twice_is_found: LapsedTwice,
    a_returned_code_that_is_lost_is_found: ReturnedCodeLost,
    a_look_up_of_duplicates_on_the_current_day_only_is_found: OnlyTodayLookedUp,
    a_slow_batch_that_is_repeated_is_found: SlowBatchRepeated,
    a_dropped_claimant_that_is_taken_to_have_no_claims_is_found: ClaimantsEvicted,
}

/// For work on the simulation: plays `STAMPEDE_SURVEY` seeds with each bug and prints how many of them fail.
#[cfg(feature = "planted-bugs")]
#[test]
fn survey() {
    let Some(seeds) = seeds::from_env("STAMPEDE_SURVEY") else { return };
    for bug in BUGS {
        let fails =
            |seed| seeds::play(RunConfig { planted: Planted::one(*bug), ..RunConfig::new(seed) }).is_err();
        println!("{bug:?}: {} of {seeds} seeds fail", (1..=seeds).filter(|seed| fails(*seed)).count());
    }
}
