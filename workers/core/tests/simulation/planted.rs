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
