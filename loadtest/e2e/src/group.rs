//! The runner of tests that share a stack.
//!
//! It starts one stack, runs the tests side by side, waits until the last one has ended, and then checks the stack once
//! against everything that all clients sent and received. The check is reported as a test of its own; a filter that selects
//! any test also selects the check.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use checker::{CheckConfig, History, Watch, check, settle};
use futures::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Trial};
use local_stack::Stack;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use crate::Environment;
use crate::environment::expect_clean;
use crate::request::REPEATED;
use crate::stacks::{self, StackKind};
use crate::wait::TIMEOUT;

/// How many tests run at a time, unless `--test-threads` is given. They mostly wait for the stack.
const SIDE_BY_SIDE: usize = 12;
/// For tests that cause takeovers: no other test has a coupon in this partition.
pub const TAKEOVER_PARTITION: i32 = 0;
/// For a test in whose partition nothing must happen: no other test appends a record to it.
pub const QUIET_PARTITION: i32 = 7;
const RESERVED_PARTITIONS: &[i32] = &[TAKEOVER_PARTITION, QUIET_PARTITION];
const CHECK: &str = "the_checker_finds_no_violation_after_all_tests_of_the_group";
const SLOWEST: usize = 10;

/// A test that injects no fault.
pub struct Test {
    /// Crate, module and function.
    pub path: &'static str,
    /// The function.
    pub run: for<'e> fn(&'e Environment) -> LocalBoxFuture<'e, ()>,
}

/// Lists the tests of a module, as its constant `TESTS`. A function that the list lacks is a compiler warning.
#[macro_export]
macro_rules! tests {
    ($($test:ident),+ $(,)?) => {
        pub(crate) const TESTS: &[$crate::group::Test] = &[$(
            $crate::group::Test {
                path: concat!(module_path!(), "::", stringify!($test)),
                run: |env| Box::pin($test(env)),
            },
        )+];
    };
}

impl Test {
    /// Module and function: the crate is the test target.
    fn name(&self) -> &'static str {
        self.path.split_once("::").map_or(self.path, |(_, name)| name)
    }

    fn function(&self) -> &'static str {
        self.path.rsplit("::").next().unwrap_or(self.path)
    }
}

struct Group {
    runtime: Runtime,
    stack: OnceCell<(Arc<Stack>, Mutex<Option<Watch>>)>,
    history: Arc<History>,
    /// Tests that have not ended yet.
    left: Mutex<usize>,
    ended: Condvar,
    seconds: Mutex<Vec<(f64, &'static str)>>,
}

/// Runs the tests that the command line selects.
pub fn run(modules: &[&'static [Test]]) -> ExitCode {
    let mut args = Arguments::from_args();
    args.test_threads.get_or_insert(SIDE_BY_SIDE);
    let tests: Vec<&'static Test> = modules.iter().copied().flatten().collect();
    expect_distinct_labels(&tests);
    let is_selected = |test: &Test| !args.is_filtered_out(&Trial::test(test.name(), || Ok(())));
    let selected: Vec<&'static Test> = tests.into_iter().filter(|test| is_selected(test)).collect();

    let group = Arc::new(Group {
        runtime: tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap(),
        stack: OnceCell::new(),
        history: Arc::default(),
        left: Mutex::new(selected.len()),
        ended: Condvar::new(),
        seconds: Mutex::default(),
    });
    let mut trials: Vec<Trial> = selected.into_iter().map(|test| Arc::clone(&group).trial(test)).collect();
    if !trials.is_empty() {
        // Last: a thread that takes it waits for tests that have all been taken before.
        let group = Arc::clone(&group);
        trials.push(Trial::test(CHECK, move || {
            group.check();
            Ok(())
        }));
    }
    // The selection is made.
    let args = Arguments { filter: None, skip: Vec::new(), exact: false, ..args };
    let conclusion = libtest_mimic::run(&args, trials);
    group.stop(conclusion.has_failed());
    conclusion.exit_code()
}

/// Coupons and users are distinguished by the test's name, which is shortened.
fn expect_distinct_labels(tests: &[&'static Test]) {
    let labels: BTreeSet<String> =
        tests.iter().map(|test| crate::environment::label(test.function())).collect();
    assert_eq!(labels.len(), tests.len(), "two names of tests begin with the same characters");
}

impl Group {
    fn trial(self: Arc<Self>, test: &'static Test) -> Trial {
        Trial::test(test.name(), move || {
            let _ended = Ended(&self);
            self.runtime.block_on(async {
                let stack = self.stack().await;
                let begun = Instant::now();
                let env = Environment::on(stack, Arc::clone(&self.history), test.function());
                (test.run)(&env.reserving(RESERVED_PARTITIONS)).await;
                self.seconds.lock().unwrap().push((begun.elapsed().as_secs_f64(), test.name()));
            });
            Ok(())
        })
    }

    async fn stack(&self) -> &Arc<Stack> {
        let start = || async {
            let stack = stacks::start(StackKind::Plain).await;
            let watch = Watch::begin(&stack.endpoints().postgres_url);
            (stack, Mutex::new(Some(watch)))
        };
        &self.stack.get_or_init(start).await.0
    }

    fn check(&self) {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.ended.wait_while(left, |left| *left > 0));
        let (stack, watch) = self.stack.get().expect("a stack that did not start has failed its tests");
        let watch = watch.lock().unwrap().take().expect("the group is checked once");
        self.runtime.block_on(async {
            let config = CheckConfig::settled(&stack.endpoints());
            settle(&config, TIMEOUT).await.unwrap();
            let mut report = check(&config, Some(&self.history)).await.unwrap();
            watch.end(&mut report).await;
            expect_clean(&report);
            let (requests, repeated) = (self.history.len(), REPEATED.load(Ordering::Relaxed));
            eprintln!(
                "checked together: {requests} requests of clients, {repeated} repeated after a 503\n{report}"
            );
            assert!(repeated * 100 <= requests, "a healthy stack rejects less than 1 % of the requests");
        });
    }

    fn stop(&self, has_failed: bool) {
        let mut seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        seconds.sort_by(|one, other| other.0.total_cmp(&one.0));
        for (seconds, name) in seconds.iter().take(SLOWEST) {
            eprintln!("{seconds:6.1} s {name}");
        }
        if let Some((stack, _)) = self.stack.get() {
            if has_failed {
                stacks::keep_logs(stack);
            }
            self.runtime.block_on(stack.stop()).unwrap();
        }
    }
}

/// Counts a test as ended, also when it panics.
struct Ended<'g>(&'g Group);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        *self.0.left.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.ended.notify_all();
    }
}
