//! Which open loads have lost the process that fills them.
//!
//! A lease is over when its row has been the same for a whole lease by this process' monotonic clock while Postgres
//! responded all the time. So neither a wrong clock nor an outage of Postgres, during which no holder can renew, ends the
//! lease of a living holder.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::db::loads::OpenLoad;

/// Holders renew three times as often.
const LEASE: Duration = Duration::from_secs(30);
/// Without an observation for longer than this, Postgres did not respond.
const LONGEST_GAP: Duration = Duration::from_secs(5);

/// The open loads as observed, each since when its row has been the same.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    unchanged: HashMap<i64, (OpenLoad, Instant)>,
    observed: Option<Instant>,
}

impl Leases {
    /// Takes the open loads as they are `now`, and returns those whose lease is over.
    pub(crate) fn observe(&mut self, now: Instant, open: Vec<OpenLoad>) -> Vec<OpenLoad> {
        let mut before = std::mem::take(&mut self.unchanged);
        if self.observed.replace(now).is_none_or(|observed| now.duration_since(observed) > LONGEST_GAP) {
            before.clear();
        }
        let mut over = Vec::new();
        for load in open {
            let same = before.get(&load.load_id).filter(|(earlier, _)| *earlier == load);
            let since = same.map_or(now, |(_, since)| *since);
            if now.duration_since(since) >= LEASE {
                over.push(load);
            } else {
                drop(self.unchanged.insert(load.load_id, (load, since)));
            }
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Observes this load every second, and returns the seconds after which its lease was over.
    fn over_after(
        leases: &mut Leases,
        start: Instant,
        seconds: std::ops::Range<u64>,
        load: &OpenLoad,
    ) -> Option<u64> {
        seconds.into_iter().find(|second| {
            !leases.observe(start + Duration::from_secs(*second), vec![load.clone()]).is_empty()
        })
    }

    #[test]
    fn a_lease_is_over_once_its_row_was_the_same_for_a_whole_lease() {
        let (mut leases, start) = (Leases::default(), Instant::now());
        let load = OpenLoad::for_tests(1, 0);
        assert_eq!(over_after(&mut leases, start, 0..100, &load), Some(30));
        assert_eq!(over_after(&mut leases, start, 31..100, &load), Some(61), "it is observed anew");
    }

    #[test]
    fn a_renewal_or_a_chunk_begins_the_lease_anew() {
        let (mut leases, start) = (Leases::default(), Instant::now());
        assert_eq!(over_after(&mut leases, start, 0..29, &OpenLoad::for_tests(1, 0)), None);
        assert_eq!(over_after(&mut leases, start, 29..100, &OpenLoad::for_tests(1, 10)), Some(59));
    }

    #[test]
    fn an_outage_of_postgres_begins_every_lease_anew() {
        let (mut leases, start) = (Leases::default(), Instant::now());
        let load = OpenLoad::for_tests(1, 0);
        assert_eq!(over_after(&mut leases, start, 0..20, &load), None);
        assert_eq!(over_after(&mut leases, start, 300..400, &load), Some(330));
    }
}
