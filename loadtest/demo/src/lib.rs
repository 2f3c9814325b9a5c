//! The demonstration sale: the whole stack, a new coupon, many users, and figures that are counted, never assumed.
//!
//! Order: start the stack · make the coupon ([`setup`]) · let the users loose ([`crowd`]; one [`user`], who asks for
//! one thing after another: [`errand`], and may wait at the [`window`]) · ask Postgres ([`truth`]) and count
//! ([`figures`], [`holders`]) · check every invariant · show it ([`table`]) · stay up ([`farewell`]) · stop. An
//! interrupt at any point leads to the same orderly stop.

pub mod args;
pub mod crowd;
pub mod errand;
pub mod farewell;
pub mod figures;
pub mod holders;
pub mod k6;
pub mod order;
pub mod setup;
pub mod table;
pub mod truth;
pub mod user;
pub mod window;

use std::io::{self, IsTerminal as _, Write as _};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use local_stack::{Child, Programs, Stack, StackConfig, StackError, default_data_dir, shutdown_signal};
use sqlx::PgPool;
use thiserror::Error;

use args::SaleArgs;
use checker::{CheckConfig, CheckError, Report};
use crowd::{Ambush, Crowd, Outcome};
use figures::{Details, Figures};
use load_support::screen::Screen;
use load_support::tokens::Tokens;
use setup::Terms;
use stampede_client::http::Lost;
use truth::{Money, Truth};
use user::Shop;
use window::Window;

const TOKENS_LIVE: Duration = Duration::from_secs(24 * 3600);
/// How long work that was accepted may take to be told once everybody has their answer.
const SETTLE_WITHIN: Duration = Duration::from_secs(300);
const BETWEEN_UPDATES: Duration = Duration::from_millis(100);
/// As a shell reports a program that SIGINT ended.
const INTERRUPTED: u8 = 130;
/// In the coupon that is left for trying by hand.
const CODES_TO_TRY: u64 = 100;
/// Time enough to type.
const TERMS_TO_TRY: Terms = Terms { hold_seconds: Some(900), lock_seconds: 300, requires_lock: false };

/// Why there are no figures.
#[derive(Debug, Error)]
pub enum SaleError {
    /// The stack.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The API refused what the sale needs.
    #[error("{path} answered {status}: {body}")]
    Refused {
        /// What was asked for.
        path: String,
        /// HTTP status.
        status: u16,
        /// The beginning of the answer.
        body: String,
    },
    /// The API did not answer.
    #[error("the API did not answer: {0}")]
    Lost(#[from] Lost),
    /// The API answered something else than it documents.
    #[error("{path} answered what cannot be read: {error}")]
    Unreadable {
        /// What was asked for.
        path: String,
        /// What is wrong with the answer.
        error: serde_json::Error,
    },
    /// The codes did not become stock.
    #[error(
        "only {available} of {codes} codes can be claimed: job {job} is {state} at {done}; see the workers' logs"
    )]
    NoStock {
        /// The job.
        job: String,
        /// Its state.
        state: String,
        /// Codes made.
        done: u64,
        /// Codes that can be claimed.
        available: u64,
        /// Codes wanted.
        codes: u64,
    },
    /// A token could not be signed.
    #[error("no token: {0}")]
    Token(#[from] jsonwebtoken::errors::Error),
    /// The figures could not be read.
    #[error("Postgres: {0}")]
    Postgres(#[from] sqlx::Error),
    /// The checker could not do its work.
    #[error("the checker: {0}")]
    Check(#[from] CheckError),
    /// A task of the sale was lost.
    #[error("the sale was cut short")]
    Interrupted,
    /// Nothing can be printed, or no signal can be listened to.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a sale ends with.
struct Ended {
    figures: Figures,
    details: Details,
    money: Money,
    report: Report,
    killed: Option<Child>,
}

impl Ended {
    fn is_clean(&self) -> bool {
        let Self { figures, report, .. } = self;
        let doubts = figures.unresolved + figures.given_twice + report.unresolved + report.given_twice;
        doubts == 0 && report.is_clean()
    }
}

/// Runs it.
///
/// # Errors
/// [`SaleError`], in one line.
pub async fn run(args: SaleArgs) -> Result<ExitCode, SaleError> {
    let screen = Screen::default();
    let mut interrupt = pin!(shutdown_signal());
    // Listening from the first line on: an interrupt during the start stops what has been started until then.
    let stack = tokio::select! {
        biased;
        signal = &mut interrupt => {
            leaving(&screen, signal?);
            return Ok(ExitCode::from(INTERRUPTED));
        }
        started = start(&args, &screen) => Arc::new(started?),
    };
    let supervisor = stack.supervise();
    // Whatever happens from here on, it ends with the orderly stop. None: interrupted before there were figures.
    let clean = tokio::select! {
        biased;
        signal = &mut interrupt => signal.map_err(SaleError::from).map(|signal| {
            leaving(&screen, signal);
            None
        }),
        clean = conclude(&args, &stack, &screen) => clean.map(Some),
    };
    if !args.once && matches!(clean, Ok(Some(_))) {
        leaving(&screen, interrupt.await.unwrap_or("no signals"));
    }
    drop(supervisor);
    let stopped = stack.stop().await;
    screen.say("everything has stopped");
    let clean = clean?;
    stopped?;
    Ok(clean.map_or(ExitCode::from(INTERRUPTED), |clean| ExitCode::from(u8::from(!clean))))
}

/// The sale and its tables; and what to go on with, if the stack stays up. Answers whether all is as it must be.
async fn conclude(args: &SaleArgs, stack: &Arc<Stack>, screen: &Screen) -> Result<bool, SaleError> {
    let tokens = Tokens::new(stack.jwt_secret(), TOKENS_LIVE);
    let api = stack.endpoints().apis.first().cloned().unwrap_or_default();
    let mut admin = setup::Admin::new(&api, tokens.issue("admin", "admin")?);
    let tag = tag();
    let sold = format!("sale-{tag}");
    let ended = sell(args, stack, &mut admin, &sold, screen).await?;
    show(args, &sold, &ended)?;
    if !args.once {
        let open = format!("try-{tag}");
        admin.make_coupon(&open, CODES_TO_TRY, TERMS_TO_TRY, screen).await?;
        let coupons = farewell::Coupons { sold: &sold, open: &open, new: &format!("mine-{tag}") };
        screen.print(&farewell::write(stack, &tokens, &coupons)?);
    }
    Ok(ended.is_clean())
}

fn leaving(screen: &Screen, signal: &str) {
    screen.say(&format!("{signal}: stopping everything in order"));
}

async fn start(args: &SaleArgs, screen: &Screen) -> Result<Stack, SaleError> {
    let data_dir = args.data_dir.clone().unwrap_or_else(default_data_dir);
    screen.say(&format!("starting the stack; data and logs are in {}", data_dir.display()));
    let config = StackConfig {
        data_dir: Some(data_dir),
        fresh: args.fresh,
        api_port: Some(args.port),
        workers: usize::try_from(args.workers).unwrap_or(usize::MAX),
        report: screen.reporter(),
        ..StackConfig::full(Programs::beside_current_exe()?)
    };
    Ok(Stack::start(config).await?)
}

/// Everything between "healthy" and the figures.
async fn sell(
    args: &SaleArgs,
    stack: &Arc<Stack>,
    admin: &mut setup::Admin,
    coupon: &str,
    screen: &Screen,
) -> Result<Ended, SaleError> {
    let endpoints = stack.endpoints();
    let terms = Terms { hold_seconds: Some(args.hold), lock_seconds: args.hold, requires_lock: true };
    admin.make_coupon(coupon, args.codes, terms, screen).await?;
    let pool = PgPool::connect_lazy(&endpoints.postgres_url)?;
    let ambush = ambush(args, stack, &pool, coupon, screen).await?;
    let killed = ambush.as_ref().map(|ambush| ambush.child);
    let crowd = Arc::new(Crowd {
        shop: Shop {
            coupon: coupon.to_owned(),
            hold: Duration::from_secs(args.hold),
            history: match &args.history {
                Some(file) => checker::History::recorded(file)?,
                None => checker::History::new(),
            },
            window: Window::default(),
        },
        users: args.users.get(),
        in_flight: args.in_flight,
        lapse: args.lapse,
        patient: args.patient(),
        apis: endpoints.apis.clone(),
        jwt_secret: stack.jwt_secret().to_owned(),
        ambush,
        score: crowd::Score::default(),
    });
    let outcome = watched(&crowd, screen).await?;
    crowd.shop.history.finish()?;
    screen.say("asking Postgres, and checking every invariant");
    let check = CheckConfig::settled(&endpoints);
    checker::settle(&check, SETTLE_WITHIN).await?;
    let truth = Truth::read(&pool, coupon).await?;
    let report = checker::check(&check, Some(&crowd.shop.history)).await?;
    let (figures, details) = figures::count(&outcome, &truth);
    Ok(Ended { figures, details, money: truth.money, report, killed })
}

/// Whom to kill, if anybody; the worker is the one that owns the coupon, any other would hardly be missed.
async fn ambush(
    args: &SaleArgs,
    stack: &Arc<Stack>,
    pool: &PgPool,
    coupon: &str,
    screen: &Screen,
) -> Result<Option<Ambush>, SaleError> {
    let Some(victim) = args.kill else { return Ok(None) };
    let owner: Option<String> = sqlx::query_scalar(
        "select owner from stampede.partitions join stampede.coupons using (partition) where coupon_id = $1",
    )
    .bind(coupon)
    .fetch_optional(pool)
    .await?
    .flatten();
    let known = stack.children().into_iter().find(|child| Some(child.to_string()) == owner);
    let screen = screen.clone();
    Ok(Some(Ambush {
        stack: Arc::clone(stack),
        child: victim.child(known.unwrap_or(Child::Worker(0))),
        at: args.users.get().div_ceil(3),
        say: Box::new(move |line| screen.say(line)),
    }))
}

/// The crowd, with its progress on the screen.
async fn watched(crowd: &Arc<Crowd>, screen: &Screen) -> Result<Outcome, SaleError> {
    screen.say(&format!("{} users claim, {} at a time", crowd.users, crowd.in_flight));
    let mut progress = screen.progress("answers", crowd.users);
    let mut running = pin!(crowd.run());
    loop {
        let score = &crowd.score;
        tokio::select! {
            outcome = &mut running => {
                let outcome = outcome?;
                let (rush, took) = (outcome.rush.as_secs_f64(), outcome.took.as_secs_f64());
                let answered = score.answered.load(Ordering::Relaxed);
                progress.finish(&format!("{answered} answers after {rush:.2} s, all was over after {took:.2} s"));
                return Ok(outcome);
            }
            () = tokio::time::sleep(BETWEEN_UPDATES) => {
                progress.set(score.answered.load(Ordering::Relaxed), &standing(score));
            }
        }
    }
}

/// Short: it stands behind a bar.
fn standing(score: &crowd::Score) -> String {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (won, redeemed) = (count(&score.won), count(&score.redeemed));
    match count(&score.aside) {
        0 => format!("won {won}, redeemed {redeemed}"),
        aside => format!("won {won}, redeemed {redeemed}, {aside} will come back"),
    }
}

/// The tables, and with `--json` the figures as the last line of standard output.
fn show(args: &SaleArgs, coupon: &str, ended: &Ended) -> Result<(), SaleError> {
    let terminal = if args.json { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
    let heading = table::Heading {
        coupon,
        codes: args.codes,
        in_flight: args.in_flight,
        money: &ended.money,
        killed: ended.killed.map(|child| child.to_string()),
        colours: terminal && std::env::var_os("NO_COLOR").is_none(),
    };
    let text = format!("{}{}\n", table::draw(&heading, &ended.figures, &ended.details), ended.report);
    if args.json {
        io::stderr().write_all(text.as_bytes())?;
        let json = serde_json::to_string(&ended.figures).map_err(io::Error::from)?;
        writeln!(io::stdout(), "{json}")?;
    } else {
        io::stdout().write_all(text.as_bytes())?;
    }
    Ok(io::stdout().flush()?)
}

/// Different for every run: seconds since 2020, in letters and digits.
fn tag() -> String {
    const BEGAN: u64 = 1_577_836_800;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut rest = now.saturating_sub(BEGAN);
    let mut digits = Vec::new();
    while rest > 0 {
        digits.push(char::from_digit(u32::try_from(rest % 36).unwrap_or(0), 36).unwrap_or('0'));
        rest /= 36;
    }
    digits.iter().rev().collect()
}
