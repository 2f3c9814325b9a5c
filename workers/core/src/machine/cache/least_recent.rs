//! Which entries of a full cache were used least recently.

/// The use up to which entries are evicted, so that about `keep` of those with these last uses are left. Entries of one
/// batch have the same use, so more than that may go. `None` if nothing has to go.
pub(super) fn evicted_up_to(mut uses: Vec<u64>, keep: usize) -> Option<u64> {
    let evicted = uses.len().checked_sub(keep).filter(|evicted| *evicted > 0)?;
    let (_, last, _) = uses.select_nth_unstable(evicted - 1);
    Some(*last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_uses_go() {
        assert_eq!(evicted_up_to(vec![5, 1, 4, 2, 3], 3), Some(2));
        assert_eq!(evicted_up_to(vec![7, 7, 7], 1), Some(7));
        assert_eq!(evicted_up_to(vec![1, 2], 2), None);
        assert_eq!(evicted_up_to(vec![], 0), None);
    }
}
