//! Mistakes planted in the machine, each found by some seed: the simulation would find them if they were made.

use crate::assert_found;
use crate::plan::Setup;
use coupon_core::planted::{Bug, Planted};

fn assert_planted_is_found(bug: Bug) {
    assert_found(&format!("{bug:?}"), |seed| Setup { planted: Planted::one(bug), ..Setup::of(seed) });
}

#[test]
fn skipped_deduplication_is_found() {
    assert_planted_is_found(Bug::DeduplicationSkipped);
}

#[test]
fn a_pop_that_is_retried_after_an_unknown_answer_is_found() {
    assert_planted_is_found(Bug::UnknownPopRetried);
}

#[test]
fn an_offset_that_advances_early_is_found() {
    assert_planted_is_found(Bug::OffsetEarly);
}

#[test]
fn a_watermark_that_advances_early_is_found() {
    assert_planted_is_found(Bug::WatermarkEarly);
}

#[test]
fn a_next_batch_that_is_not_undone_is_found() {
    assert_planted_is_found(Bug::NextBatchNotUndone);
}

#[test]
fn an_overlay_that_is_dropped_too_soon_is_found() {
    assert_planted_is_found(Bug::OverlayDroppedEarly);
}

#[test]
fn a_lapse_by_wall_clock_is_found() {
    assert_planted_is_found(Bug::LapseByWallClock);
}

#[test]
fn a_lapse_that_is_lost_at_a_takeover_is_found() {
    assert_planted_is_found(Bug::LapseLostAtTakeover);
}

#[test]
fn a_claim_that_lapses_twice_is_found() {
    assert_planted_is_found(Bug::LapsedTwice);
}

#[test]
fn a_returned_code_that_is_lost_is_found() {
    assert_planted_is_found(Bug::ReturnedCodeLost);
}

#[test]
fn claimants_that_are_forgotten_and_taken_for_none_are_found() {
    assert_planted_is_found(Bug::ClaimantsForgotten);
}
