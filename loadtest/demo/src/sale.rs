//! The demonstration sale from start to stop.
//!
//! Order: start the stack · create the coupon · run the [users](crate::users) · read Postgres, count, and check every
//! invariant · print the results · keep the stack up · stop. An interrupt at any point leads to the same orderly stop.

use std::io::{self, IsTerminal as _, Write as _};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use checker::{CheckConfig, History, Report};
use load_support::coupons;
use load_support::progress::Console;
use load_support::tokens::Tokens;
use local_stack::{Child, Programs, Stack, StackConfig, default_data_dir, shutdown_signal};
use sqlx::PgPool;
use stampede_client::Client;
use stampede_client::model::NewCoupon;

use crate::args::SaleArgs;
use crate::error::SaleError;
use crate::results::figures::{self, Details, Figures};
use crate::results::snapshot::{Money, Snapshot};
use crate::results::{summary, table};
use crate::users::counter_poller::CounterPoller;
use crate::users::user::Sale;
use crate::users::{Counters, KillPlan, Records, Users};

const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// From the last response to a user until every outcome is published.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(300);
const UPDATE_INTERVAL: Duration = Duration::from_millis(100);
/// As a shell reports a program that SIGINT ended.
const INTERRUPTED: u8 = 130;
/// In the coupon that is left for trying by hand.
const CODES_TO_TRY: u64 = 100;
/// Its hold: time enough to type.
const HOLD_TO_TRY_SECONDS: u64 = 900;

/// The results of a sale.
struct Results {
    figures: Figures,
    details: Details,
    money: Money,
    report: Report,
    killed: Option<Child>,
}

impl Results {
    fn is_clean(&self) -> bool {
        let Self { figures, report, .. } = self;
        let defects = figures.unresolved + figures.given_twice + report.unresolved + report.given_twice;
        defects == 0 && report.is_clean()
    }
}

/// Runs a sale. The exit code is 0 if every user was served and no invariant is violated.
///
/// # Errors
/// [`SaleError`], in one line.
pub async fn run(args: SaleArgs) -> Result<ExitCode, SaleError> {
    let console = Console::default();
    let mut interrupt = pin!(shutdown_signal());
    // Signals are received from the first line on: an interrupt during the start stops what has been started so far.
    let stack = tokio::select! {
        biased;
        signal = &mut interrupt => {
            log_signal(&console, signal?);
            return Ok(ExitCode::from(INTERRUPTED));
        }
        started = start(&args, &console) => Arc::new(started?),
    };
    let supervisor = stack.supervise();
    // From here on every path ends with the orderly stop. None: interrupted before there were figures.
    let clean = tokio::select! {
        biased;
        signal = &mut interrupt => signal.map_err(SaleError::from).map(|signal| {
            log_signal(&console, signal);
            None
        }),
        clean = sell_and_print(&args, &stack, &console) => clean.map(Some),
    };
    if !args.once && matches!(clean, Ok(Some(_))) {
        log_signal(&console, interrupt.await.unwrap_or("no signals"));
    }
    drop(supervisor);
    let stopped = stack.stop().await;
    console.log("everything has stopped");
    let clean = clean?;
    stopped?;
    Ok(clean.map_or(ExitCode::from(INTERRUPTED), |clean| ExitCode::from(u8::from(!clean))))
}

/// The sale and its tables, and the summary if the stack stays up. Returns whether everything is clean.
async fn sell_and_print(args: &SaleArgs, stack: &Arc<Stack>, console: &Console) -> Result<bool, SaleError> {
    let tokens = Tokens::new(stack.jwt_secret(), TOKEN_LIFETIME);
    let client = client(args, stack);
    let admin = client.with_token(&tokens.issue("admin", "admin")?);
    let suffix = unique_suffix();
    let sold = format!("sale-{suffix}");
    let coupon = NewCoupon {
        hold_seconds: Some(args.hold),
        lock_seconds: Some(args.hold),
        requires_lock: Some(true),
        ..coupons::demonstration(&sold)
    };
    coupons::create_with_codes(&admin, &coupon, args.codes, console).await?;
    let results = sell(args, stack, client, &sold, console).await?;
    print(args, &sold, &results)?;
    if !args.once {
        let open = format!("try-{suffix}");
        let coupon = NewCoupon { hold_seconds: Some(HOLD_TO_TRY_SECONDS), ..coupons::demonstration(&open) };
        coupons::create_with_codes(&admin, &coupon, CODES_TO_TRY, console).await?;
        let coupons = summary::Coupons { sold: &sold, open: &open, new: &format!("mine-{suffix}") };
        console.print(&summary::write(stack, &tokens, &coupons)?);
    }
    Ok(results.is_clean())
}

fn log_signal(console: &Console, signal: &str) {
    console.log(&format!("{signal}: stopping everything in order"));
}

async fn start(args: &SaleArgs, console: &Console) -> Result<Stack, SaleError> {
    let data_dir = args.data_dir.clone().unwrap_or_else(default_data_dir);
    console.log(&format!("starting the stack; data and logs are in {}", data_dir.display()));
    let config = StackConfig {
        data_dir: Some(data_dir),
        fresh: args.fresh,
        api_port: Some(args.port),
        workers: usize::try_from(args.workers).unwrap_or(usize::MAX),
        report: console.reporter(),
        ..StackConfig::full(Programs::beside_current_exe()?)
    };
    Ok(Stack::start(config).await?)
}

/// A connection for each user in flight.
fn client(args: &SaleArgs, stack: &Stack) -> Client {
    let mut apis = stack.endpoints().apis.into_iter();
    let first = apis.next().unwrap_or_default();
    let connections = usize::try_from(args.in_flight).unwrap_or(usize::MAX);
    let builder = Client::builder(&first).max_idle_connections(connections);
    apis.fold(builder, |builder, api| builder.server(&api)).build()
}

/// The users, then the figures.
async fn sell(
    args: &SaleArgs,
    stack: &Arc<Stack>,
    client: Client,
    coupon: &str,
    console: &Console,
) -> Result<Results, SaleError> {
    let endpoints = stack.endpoints();
    let pool = PgPool::connect_lazy(&endpoints.postgres_url)?;
    let kill = kill_plan(args, stack, &pool, coupon, console).await?;
    let killed = kill.as_ref().map(|kill| kill.child);
    let users = Arc::new(Users {
        sale: Sale {
            client,
            coupon: coupon.to_owned(),
            hold: Duration::from_secs(args.hold),
            history: match &args.history {
                Some(file) => History::recording_to(file)?,
                None => History::new(),
            },
            poller: CounterPoller::default(),
        },
        count: args.users.get(),
        in_flight: args.in_flight,
        lapse: args.lapse,
        waiters: args.waiters(),
        jwt_secret: stack.jwt_secret().to_owned(),
        kill,
        counters: Counters::default(),
    });
    let records = run_users(&users, console).await?;
    users.sale.history.finish()?;
    console.log("reading Postgres, and checking every invariant");
    let check = CheckConfig::settled(&endpoints);
    checker::settle(&check, SETTLE_TIMEOUT).await?;
    let snapshot = Snapshot::read(&pool, coupon).await?;
    let report = checker::check(&check, Some(&users.sale.history)).await?;
    let (figures, details) = figures::count(&records, &snapshot);
    Ok(Results { figures, details, money: snapshot.money, report, killed })
}

/// What `--kill` ends. The worker is the one that owns the coupon: without any other the sale would hardly change.
async fn kill_plan(
    args: &SaleArgs,
    stack: &Arc<Stack>,
    pool: &PgPool,
    coupon: &str,
    console: &Console,
) -> Result<Option<KillPlan>, SaleError> {
    let Some(target) = args.kill else { return Ok(None) };
    let owner: Option<String> = sqlx::query_scalar(
        "select owner from stampede.partitions join stampede.coupons using (partition) where coupon_id = $1",
    )
    .bind(coupon)
    .fetch_optional(pool)
    .await?
    .flatten();
    let owner = stack.children().into_iter().find(|child| Some(child.to_string()) == owner);
    let console = console.clone();
    Ok(Some(KillPlan {
        stack: Arc::clone(stack),
        child: target.child(owner.unwrap_or(Child::Worker(0))),
        after: args.users.get().div_ceil(3),
        log: Box::new(move |line| console.log(line)),
    }))
}

/// Runs the users and shows their progress.
async fn run_users(users: &Arc<Users>, console: &Console) -> Result<Records, SaleError> {
    console.log(&format!("{} users claim, {} at a time", users.count, users.in_flight));
    let mut progress = console.progress("claims", users.count);
    let mut running = pin!(users.run());
    loop {
        let counters = &users.counters;
        tokio::select! {
            records = &mut running => {
                let records = records?;
                let (rush, total) = (records.rush.as_secs_f64(), records.total.as_secs_f64());
                let decided = counters.decided.load(Ordering::Relaxed);
                progress.finish(&format!(
                    "{decided} first claims decided after {rush:.2} s, all users finished after {total:.2} s"
                ));
                return Ok(records);
            }
            () = tokio::time::sleep(UPDATE_INTERVAL) => {
                progress.set(counters.decided.load(Ordering::Relaxed), &status(counters));
            }
        }
    }
}

/// Short: it stands behind a bar.
fn status(counters: &Counters) -> String {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (won, redeemed) = (count(&counters.won), count(&counters.redeemed));
    match count(&counters.waiting) {
        0 => format!("won {won}, redeemed {redeemed}"),
        waiting => format!("won {won}, redeemed {redeemed}, {waiting} will return"),
    }
}

/// The tables, and with `--json` the figures as the last line of standard output.
fn print(args: &SaleArgs, coupon: &str, results: &Results) -> Result<(), SaleError> {
    let is_terminal = if args.json { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
    let heading = table::Heading {
        coupon,
        codes: args.codes,
        in_flight: args.in_flight,
        money: &results.money,
        killed: results.killed.map(|child| child.to_string()),
        colours: is_terminal && std::env::var_os("NO_COLOR").is_none(),
    };
    let text = format!("{}{}\n", table::draw(&heading, &results.figures, &results.details), results.report);
    if args.json {
        io::stderr().write_all(text.as_bytes())?;
        let json = serde_json::to_string(&results.figures).map_err(io::Error::from)?;
        writeln!(io::stdout(), "{json}")?;
    } else {
        io::stdout().write_all(text.as_bytes())?;
    }
    Ok(io::stdout().flush()?)
}

/// Different for every run: seconds since 2020, in letters and digits.
fn unique_suffix() -> String {
    const START_OF_2020: u64 = 1_577_836_800;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut rest = now.saturating_sub(START_OF_2020);
    let mut digits = Vec::new();
    while rest > 0 {
        digits.push(char::from_digit(u32::try_from(rest % 36).unwrap_or(0), 36).unwrap_or('0'));
        rest /= 36;
    }
    digits.iter().rev().collect()
}
