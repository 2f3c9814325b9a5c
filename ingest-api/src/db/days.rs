//! The days among whose tables an outcome is read. An outcome is stored on the UTC day of its decision, whose time is the
//! append time of its record. Days without a table cost next to nothing.

use coupon_core::ids::{DAY_MS, Millis};

/// The days of a range of times, in days since 1970. One day more at its end: a record may be appended after its id was
/// minted, and the clocks of the brokers and of this process differ.
pub(crate) fn between(from_ms: i64, to_ms: i64) -> Vec<i32> {
    let to = Millis(to_ms.saturating_add(DAY_MS));
    (Millis(from_ms).day()..=to.day()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_the_days_of_its_times_and_one_more() {
        assert_eq!(between(10 * DAY_MS + 5, 12 * DAY_MS - 1), [10, 11, 12]);
        assert_eq!(between(-1, 0), [-1, 0, 1]);
        assert_eq!(between(5 * DAY_MS, 0), [] as [i32; 0]);
    }
}
