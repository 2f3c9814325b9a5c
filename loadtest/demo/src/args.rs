//! What a demonstration sale can be asked for.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use local_stack::Child;

/// The whole of Stampede on this machine, and a demonstration sale on it.
///
/// Starts real Kafka, Redis and Postgres, one ingest-api and the workers as child processes, waits until each is
/// healthy, makes a new coupon with generated codes, and lets users loose on it, some hundreds at the same time: each
/// claims one code, locks it for a checkout and redeems it with an order. Some let their code lapse; it goes back to
/// stock, and to somebody who was told sold out and waited. What comes out is counted from Postgres and from what the
/// users were told, and every invariant is checked. Then everything stays up until Ctrl-C, with URLs, tokens and curl
/// commands to go on with.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct SaleArgs {
    /// Codes in the new coupon.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub codes: u64,

    /// Users; each of them wants one code.
    #[arg(long, value_name = "N", default_value = "5000")]
    pub users: NonZeroU64,

    /// How many users are waiting for their answer at any time.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    pub in_flight: u64,

    /// Share of the winners who let their code lapse instead of redeeming it, from 0 to 1. They come back after its
    /// hold has ended, when it is too late.
    #[arg(long, value_name = "SHARE", default_value = "0.1")]
    pub lapse: Share,

    /// How long a claim is held and a lock lasts. A code that is not redeemed in time goes back to stock.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub hold: u64,

    /// How many users who are told sold out wait for a code to come back, the first ones [default: as many as let
    /// their code lapse].
    #[arg(long, value_name = "N")]
    pub patient: Option<u64>,

    /// Worker processes.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub workers: u64,

    /// Sends SIGKILL to one of them when a third of the users have their answer. It is started again, and nothing may
    /// be lost or doubled. The worker is the one that owns the coupon.
    #[arg(long, value_name = "WHAT")]
    pub kill: Option<Victim>,

    /// Port of the API. All other ports are free ones, and printed.
    #[arg(long, value_name = "PORT", default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,

    /// Writes down what every user sends and is told, in a new file, for `loadtest verify --history`.
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,

    /// Ends after the sale. Exit code 1 if any invariant is broken, 0 otherwise.
    #[arg(long)]
    pub once: bool,

    /// Prints the figures as one JSON object on the last line of standard output; all else goes to standard error.
    #[arg(long)]
    pub json: bool,

    /// Drops the data of earlier runs first. Without it data is kept from run to run.
    #[arg(long)]
    pub fresh: bool,

    /// Where data and logs are kept [default: /var/lib/stampede for root, else below $XDG_DATA_HOME].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  deploy/run                               the sale, then the stack stays up until Ctrl-C
  deploy/run --once                        the sale only; the exit code tells whether all went well
  deploy/run --once --json | tail -n 1     its figures, for a program
  deploy/run --codes 20000 --users 30000 --workers 3
  deploy/run --lapse 0.5 --patient 100     half of the winners let it lapse, a hundred losers wait for that
  deploy/run --kill worker                 the same with a worker killed in the middle of it
  deploy/run --kill kafka --once           … or the broker; also redis and postgres
  deploy/run --fresh --port 9090           an empty stack on another port

The keys of --json; each user counts once, by the last word on its claims:
  attempts     users who claimed; retries of one user count once. won + sold_out + other rejections + unresolved
  won          users who were told a code, and have it in the end by Postgres
  sold_out     users who were told that nothing is left, answers of the sold-out gate included
  redeemed     of those who won, users who were told what their order comes to, to the cent as Postgres has it
  lapsed       claims whose hold ended before they were redeemed
  handed_on    codes that lapsed, and went on to somebody else
  unresolved   users without a final outcome for what was accepted (202), or who were told what Postgres does not say
  given_twice  codes that two had at the same time or that were redeemed twice, by Postgres' rows or by what was told
  p50_ms, p95_ms, p99_ms    from a user's first try to the answer to the first claim, retries and waiting included
  redeem_p50_ms, redeem_p99_ms    the same for redemptions
  rush_seconds from the first claim until everybody had the answer to their first claim
  seconds      from the first claim to the last answer: until the last code that lapsed was redeemed by somebody else
  killed_at    how many users had their answer when --kill struck; null without it";

impl SaleArgs {
    /// How many who are told sold out wait for a code to come back.
    #[must_use]
    pub fn patient(&self) -> u64 {
        self.patient.unwrap_or_else(|| self.lapse.of(self.codes.min(self.users.get())))
    }
}

/// A share of a whole: an exact number of millionths, so that the same run picks the same users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u64);

impl Share {
    const WHOLE: u64 = 1_000_000;

    /// So much of a whole, rounded down.
    #[must_use]
    pub const fn of(self, whole: u64) -> u64 {
        whole * self.0 / Self::WHOLE
    }

    /// Whether the `n`-th, counted from 0, is one of the share, and the how manieth: spread evenly.
    #[must_use]
    pub const fn picks(self, n: u64) -> Option<u64> {
        let before = self.of(n);
        if self.of(n + 1) > before { Some(before) } else { None }
    }
}

impl FromStr for Share {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const NO_SHARE: &str = "must be a number from 0 to 1";
        let share: f64 = text.parse().map_err(|_| NO_SHARE)?;
        if !(0.0..=1.0).contains(&share) {
            return Err(NO_SHARE);
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

/// What `--kill` can strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Victim {
    /// The worker that owns the coupon's partition.
    Worker,
    /// Redis, with everything in it.
    Redis,
    /// Postgres.
    Postgres,
    /// The Kafka broker.
    Kafka,
}

impl Victim {
    /// Which child that is; `owner` is the worker that owns the coupon.
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
    fn a_share_picks_exactly_so_many_and_spreads_them() {
        let tenth: Share = "0.1".parse().expect("a share");
        let picked: Vec<u64> = (0..100).filter(|n| tenth.picks(*n).is_some()).collect();
        assert_eq!(picked, (0..10).map(|n| n * 10 + 9).collect::<Vec<_>>());
        assert_eq!((tenth.picks(9), tenth.picks(19), tenth.of(1_000)), (Some(0), Some(1), 100));
        let share =
            |text: &str| text.parse::<Share>().map(|share| (0..50).filter_map(|n| share.picks(n)).count());
        assert_eq!((share("0"), share("1"), share("0.5")), (Ok(0), Ok(50), Ok(25)));
    }

    #[test]
    fn what_is_no_share_is_refused() {
        for text in ["-0.1", "1.1", "NaN", "inf", "ten", "", "10%"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }
}
