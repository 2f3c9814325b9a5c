//! The headline: many more attempts than codes, through HTTP, in one unattended run.
//!
//! Order: start the stack · make the coupon through the API · run all attempts ([`attempts`]) while the memory of each
//! process is watched · wait until everything accepted is decided and published · count from Postgres · check every
//! invariant.

pub mod attempts;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use local_stack::{Profile, Programs, Stack, StackConfig, StackError, shutdown_signal};
use serde::Serialize;
use sqlx::PgPool;
use thiserror::Error;

use crate::memory::peaks::Peaks;
use attempts::{Rush, Score};
use checker::{CheckConfig, CheckError, Report};
use load_support::coupons::{self, CouponError};
use load_support::progress::Console;
use load_support::tokens::Tokens;
use stampede_client::Client;

const COUPON: &str = "headline";
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Bound on the time until every accepted request is decided and published, after the last response.
const SETTLE_WITHIN: Duration = Duration::from_secs(600);
const BETWEEN_UPDATES: Duration = Duration::from_millis(200);
const INTERRUPTED: u8 = 130;

/// Sends many more claims than there are codes, through HTTP: every code must be given once, every claim must get a
/// response.
///
/// Builds the programs, starts the whole stack with empty data, and lets each user try once. Prints time, memory of each
/// process, and what the checker found. The exit code is 0 only if all is as it must be.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = KEYS)]
pub struct HeadlineArgs {
    /// Attempts, each by another user.
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..=99_999_999))]
    pub attempts: u64,

    /// Codes.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub codes: u64,

    /// Requests in flight at the same time.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub connections: u64,

    /// Worker processes.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub workers: u64,

    /// Prints the result as one JSON object on the last line of standard output; all else goes to standard error.
    #[arg(long)]
    pub json: bool,

    /// Where `workers` and `ingest-api` are, instead of building them in release mode.
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
}

const KEYS: &str = "\
The keys of --json:
  attempts, codes   as given
  accepted          attempts received 202
  gated             attempts received 409 by the sold-out gate
  unanswered        attempts without a response, or with an unexpected one
  repeated, lost    requests sent again; those whose acceptance is unknown
  decided           outcomes in Postgres: at least as many as were accepted, and at most so many more as were lost
  given             codes given, by Postgres: all of them, or one for each attempt
  given_twice       codes given to two
  seconds           from the first attempt to the last response; per_second: attempts received
  settled_seconds   until the last outcome was published
  peak_mib          the most memory of each process; shared pages are counted in part
  clean             whether no invariant is broken
  all_well          whether everything is as it must be";

/// Errors that leave the run without a result.
#[derive(Debug, Error)]
pub enum HeadlineError {
    /// The stack did not start, or failed.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The coupon could not be created.
    #[error(transparent)]
    Coupon(#[from] CouponError),
    /// A token could not be signed.
    #[error("no token: {0}")]
    Token(#[from] jsonwebtoken::errors::Error),
    /// The figures could not be read.
    #[error("Postgres: {0}")]
    Postgres(#[from] sqlx::Error),
    /// The checker could not run.
    #[error("the checker: {0}")]
    Check(#[from] CheckError),
    /// A task panicked.
    #[error("the attempts were cut short")]
    CutShort,
    /// Output or signal handling failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the keys of --json are described in its help")]
pub struct Headline {
    pub attempts: u64,
    pub codes: u64,
    pub accepted: u64,
    pub gated: u64,
    pub unanswered: u64,
    pub repeated: u64,
    pub lost: u64,
    pub decided: u64,
    pub given: u64,
    pub given_twice: u64,
    pub seconds: f64,
    pub settled_seconds: f64,
    pub per_second: f64,
    pub peak_mib: BTreeMap<String, u64>,
    pub clean: bool,
    pub all_well: bool,
}

impl Headline {
    /// Whether every code was given once, every attempt got a response, and every accepted request was decided.
    fn is_as_it_must_be(&self) -> bool {
        self.accepted + self.gated == self.attempts
            && self.unanswered == 0
            && self.given == self.codes.min(self.attempts)
            && self.given_twice == 0
            && self.decided >= self.accepted
            && self.decided <= self.accepted + self.lost
            && self.clean
    }
}

/// Builds the programs, runs, and prints the result.
///
/// # Errors
/// [`HeadlineError`] as one line of text.
pub async fn run(args: HeadlineArgs) -> Result<ExitCode, HeadlineError> {
    let console = Console::default();
    let mut interrupt = pin!(shutdown_signal());
    let (headline, report) = tokio::select! {
        biased;
        // Dropping the stack ends its processes.
        signal = &mut interrupt => {
            console.log(&format!("{}: stopping", signal?));
            return Ok(ExitCode::from(INTERRUPTED));
        }
        measured = measure(&args, &console) => measured?,
    };
    let text = format!("{}\n{report}\n", show(&headline));
    if args.json {
        io::stderr().write_all(text.as_bytes())?;
        let json = serde_json::to_string(&headline).map_err(io::Error::from)?;
        writeln!(io::stdout(), "{json}")?;
    } else {
        io::stdout().write_all(text.as_bytes())?;
    }
    io::stdout().flush()?;
    Ok(ExitCode::from(u8::from(!headline.all_well)))
}

async fn measure(args: &HeadlineArgs, console: &Console) -> Result<(Headline, Report), HeadlineError> {
    let programs = match &args.programs {
        Some(dir) => Programs::in_dir(dir)?,
        None => {
            console.log("building the programs in release mode");
            Programs::build(&[], Profile::Release).await?
        }
    };
    headline(args, programs, console).await
}

/// One run with given programs.
///
/// # Errors
/// [`HeadlineError`]: there is no result.
pub async fn headline(
    args: &HeadlineArgs,
    programs: Programs,
    console: &Console,
) -> Result<(Headline, Report), HeadlineError> {
    let config = StackConfig {
        workers: usize::try_from(args.workers).unwrap_or(usize::MAX),
        report: console.reporter(),
        ..StackConfig::full(programs)
    };
    let stack = Arc::new(Stack::start(config).await?);
    let peaks = Peaks::watch(&stack);
    let endpoints = stack.endpoints();
    let api = endpoints.apis.first().cloned().unwrap_or_default();
    let tokens = Tokens::new(stack.jwt_secret(), TOKEN_LIFETIME);
    let admin = Client::new(&api, &tokens.issue("admin", "admin")?);
    // Without a hold no code returns to stock.
    coupons::create_with_codes(&admin, &coupons::demonstration(COUPON), args.codes, console).await?;

    let score = Score::default();
    let rush = Rush { api, tokens, coupon: COUPON.to_owned(), attempts: args.attempts, score };
    let rush = Arc::new(rush);
    let started = Instant::now();
    watched(&rush, args.connections, console).await?;
    let took = started.elapsed();
    console.log("waiting until everything is decided and published, and checking every invariant");
    let check = CheckConfig::settled(&endpoints);
    checker::settle(&check, SETTLE_WITHIN).await?;
    let settled = started.elapsed();
    let peak_mib = peaks.end().await;
    let pool = PgPool::connect_lazy(&endpoints.postgres_url)?;
    let (decided, given, different) = counted(&pool).await?;
    pool.close().await;
    let report = checker::check(&check, None).await?;
    stack.stop().await?;

    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let score = &rush.score;
    let mut headline = Headline {
        attempts: args.attempts,
        codes: args.codes,
        accepted: count(&score.accepted),
        gated: count(&score.gated),
        unanswered: count(&score.unanswered),
        repeated: count(&score.repeated),
        lost: count(&score.lost),
        decided,
        given,
        given_twice: given - different + report.given_twice,
        seconds: took.as_secs_f64(),
        settled_seconds: settled.as_secs_f64(),
        per_second: per_second(args.attempts, took),
        peak_mib,
        clean: report.is_clean(),
        all_well: false,
    };
    headline.all_well = headline.is_as_it_must_be();
    Ok((headline, report))
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn per_second(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64().max(1e-9)
}

/// Outcomes of the coupon's requests, codes given, and how many different ones those are.
async fn counted(pool: &PgPool) -> Result<(u64, u64, u64), HeadlineError> {
    let query = "
        select (select count(*) from stampede.outcomes o where o.coupon_no = k.coupon_no) + count(c.identity),
               count(c.identity), count(distinct c.number)
          from stampede.coupons k left join stampede.claims c using (coupon_no)
         where k.coupon_id = $1 group by k.coupon_no";
    let (decided, given, different): (i64, i64, i64) =
        sqlx::query_as(query).bind(COUPON).fetch_one(pool).await?;
    Ok((decided.unsigned_abs(), given.unsigned_abs(), different.unsigned_abs()))
}

/// The attempts, with their progress on the console.
async fn watched(rush: &Arc<Rush>, connections: u64, console: &Console) -> Result<(), HeadlineError> {
    console.log(&format!("{} users try, {connections} at a time", rush.attempts));
    let mut progress = console.progress("responses", rush.attempts);
    let connections = usize::try_from(connections).unwrap_or(usize::MAX);
    let mut running = pin!(attempts::all(rush, connections));
    loop {
        let score = &rush.score;
        tokio::select! {
            done = &mut running => {
                progress.finish(&format!("{} attempts were received", score.done()));
                return done;
            }
            () = tokio::time::sleep(BETWEEN_UPDATES) => {
                let (accepted, gated) = (&score.accepted, &score.gated);
                let (accepted, gated) = (accepted.load(Ordering::Relaxed), gated.load(Ordering::Relaxed));
                progress.set(score.done(), &format!("accepted {accepted}, by the gate {gated}"));
            }
        }
    }
}

fn show(of: &Headline) -> String {
    let peaks: Vec<String> = of.peak_mib.iter().map(|(name, mib)| format!("{name} {mib} MiB")).collect();
    let verdict =
        if of.all_well { "every code given once, a response to every attempt" } else { "NOT as it must be" };
    format!(
        "{} attempts at {} codes in {:.1} s ({:.0} a second), all published after {:.1} s: {verdict}\n\
         accepted {}, by the sold-out gate {}, unanswered {}, repeated {}, lost {}\n\
         decided {}, codes given {}, given twice {}\n\
         most memory: {}\n",
        of.attempts,
        of.codes,
        of.seconds,
        of.per_second,
        of.settled_seconds,
        of.accepted,
        of.gated,
        of.unanswered,
        of.repeated,
        of.lost,
        of.decided,
        of.given,
        of.given_twice,
        peaks.join(", "),
    )
}
