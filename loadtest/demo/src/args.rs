//! The options of the demonstration sale.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use local_stack::Child;

/// Starts all of Stampede on this machine and runs a demonstration sale.
///
/// Starts Kafka, Redis, Postgres, one ingest-api and the workers as child processes, waits until each is healthy,
/// creates a coupon with generated codes, and runs many users at the same time: each claims one code, locks it for a
/// checkout, and redeems it with an order. Some users let their code lapse; it returns to stock and goes to a user who
/// got `sold_out` and waited. The figures are counted from Postgres and from the responses, and every invariant is
/// checked. Then the stack stays up until Ctrl-C, with URLs, tokens and curl commands to try.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct SaleArgs {
    /// Codes in the new coupon.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub codes: u64,

    /// Users; each claims one code.
    #[arg(long, value_name = "N", default_value = "5000")]
    pub users: NonZeroU64,

    /// Users with a request in flight at the same time.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    pub in_flight: u64,

    /// Share of the winners who let their code lapse instead of redeeming it, from 0 to 1. They return after its hold
    /// has ended, too late to redeem it.
    #[arg(long, value_name = "SHARE", default_value = "0.1")]
    pub lapse: Share,

    /// How long a claim is held and a lock lasts. A code that is not redeemed in time returns to stock.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub hold: u64,

    /// How many users who get `sold_out` wait for a code that returns to stock; the first ones do [default: as many
    /// as let their code lapse].
    #[arg(long, value_name = "N")]
    pub waiters: Option<u64>,

    /// Worker processes.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub workers: u64,

    /// Sends SIGKILL to one of them when a third of the users have the result of their claim. It is restarted, and no
    /// request may be lost or applied twice. The worker is the one that owns the coupon.
    #[arg(long, value_name = "WHAT")]
    pub kill: Option<KillTarget>,

    /// Port of the API. All other ports are chosen among the free ones, and printed.
    #[arg(long, value_name = "PORT", default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,

    /// Records every request and response of the users in a new file, for `verify --history`.
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,

    /// Stops after the sale. The exit code is 1 if an invariant is violated, else 0.
    #[arg(long)]
    pub once: bool,

    /// Prints the figures as one JSON object on the last line of standard output; everything else goes to standard
    /// error.
    #[arg(long)]
    pub json: bool,

    /// Deletes the data of earlier runs first. Without it data is kept from run to run.
    #[arg(long)]
    pub fresh: bool,

    /// The directory of data and logs [default: /var/lib/stampede for root, else below $XDG_DATA_HOME].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  deploy/run                               the sale; the stack stays up until Ctrl-C
  deploy/run --once                        the sale only; the exit code is 0 if everything is clean
  deploy/run --once --json | tail -n 1     its figures, for a program
  deploy/run --codes 20000 --users 30000 --workers 3
  deploy/run --lapse 0.5 --waiters 100     half of the winners let their code lapse, a hundred users wait for one
  deploy/run --kill worker                 a worker is killed in the middle of the sale
  deploy/run --kill kafka --once           the broker is killed; also redis and postgres
  deploy/run --fresh --port 9090           an empty stack on another port

The keys of --json. Each user counts once, by the result of the last claim:
  attempts     users who claimed, retries not counted: won + sold_out + other rejections + unresolved
  won          users who got a code and have it at the end, confirmed by Postgres
  sold_out     users whose last claim found no code left; responses of the sold-out gate included
  redeemed     of the winners, users with a redemption that Postgres has with the same amounts
  lapsed       claims whose hold ended before they were redeemed
  handed_on    codes that lapsed and went to another user
  unresolved   users with an accepted request (202) that has no outcome, or with a response that Postgres contradicts
  given_twice  codes that two claims held at the same time, or that were redeemed twice, by rows or by responses
  p50_ms, p95_ms, p99_ms          from a user's first attempt to the result of the first claim, retries included
  redeem_p50_ms, redeem_p99_ms    the same for redemptions
  rush_seconds from the first claim until every user had the result of the first claim
  seconds      from the first claim to the last result: until the last lapsed code was redeemed by another user
  killed_at    how many users had the result of their claim when --kill struck; null without it";

impl SaleArgs {
    /// How many users who get `sold_out` wait for a code.
    #[must_use]
    pub fn waiters(&self) -> u64 {
        self.waiters.unwrap_or_else(|| self.lapse.of(self.codes.min(self.users.get())))
    }
}

/// A share of a whole, in exact millionths, so that equal runs pick the same users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u64);

impl Share {
    const WHOLE: u64 = 1_000_000;

    /// This share of a whole, rounded down.
    #[must_use]
    pub const fn of(self, whole: u64) -> u64 {
        whole * self.0 / Self::WHOLE
    }

    /// Whether the `n`-th item, counted from 0, belongs to the share, and its number within the share. Evenly spread.
    #[must_use]
    pub const fn picks(self, n: u64) -> Option<u64> {
        let before = self.of(n);
        if self.of(n + 1) > before { Some(before) } else { None }
    }
}

impl FromStr for Share {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const INVALID: &str = "must be a number from 0 to 1";
        let share: f64 = text.parse().map_err(|_| INVALID)?;
        if !(0.0..=1.0).contains(&share) {
            return Err(INVALID);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it lies between 0 and 1"
        )]
        let millionths = (share * 1e6).round() as u64;
        Ok(Self(millionths))
    }
}

/// What `--kill` can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KillTarget {
    /// The worker that owns the coupon's partition.
    Worker,
    /// Redis, with all its data.
    Redis,
    /// Postgres.
    Postgres,
    /// The Kafka broker.
    Kafka,
}

impl KillTarget {
    /// The child of the stack; `owner` is the worker that owns the coupon.
    #[must_use]
    pub const fn child(self, owner: Child) -> Child {
        match self {
            Self::Worker => owner,
            Self::Redis => Child::Redis,
            Self::Postgres => Child::Postgres,
            Self::Kafka => Child::Kafka,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_picks_an_exact_number_and_spreads_it() {
        let tenth: Share = "0.1".parse().expect("a share");
        let picked: Vec<u64> = (0..100).filter(|n| tenth.picks(*n).is_some()).collect();
        assert_eq!(picked, (0..10).map(|n| n * 10 + 9).collect::<Vec<_>>());
        assert_eq!((tenth.picks(9), tenth.picks(19), tenth.of(1_000)), (Some(0), Some(1), 100));
        let share =
            |text: &str| text.parse::<Share>().map(|share| (0..50).filter_map(|n| share.picks(n)).count());
        assert_eq!((share("0"), share("1"), share("0.5")), (Ok(0), Ok(50), Ok(25)));
    }

    #[test]
    fn a_text_that_is_not_a_share_is_rejected() {
        for text in ["-0.1", "1.1", "NaN", "inf", "ten", "", "10%"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }
}
