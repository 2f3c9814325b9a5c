//! Progress for people: moving bars on a terminal, plain lines elsewhere. Everything goes to standard error.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use local_stack::Reporter;

const PLAIN_LINE_INTERVAL: Duration = Duration::from_secs(2);
const TEMPLATE: &str = "{prefix:>10} {bar:40.cyan/black.bright} {pos:>9}/{len:<9} {msg}";

/// Standard error, shared by bars and lines. Clones write to the same place.
#[derive(Clone)]
pub struct Console {
    bars: MultiProgress,
    is_terminal: bool,
    started: Instant,
}

/// The progress of one activity.
pub struct Progress {
    bar: ProgressBar,
    console: Console,
    label: String,
    printed: Instant,
}

impl Default for Console {
    fn default() -> Self {
        Self {
            bars: MultiProgress::new(),
            is_terminal: std::io::stderr().is_terminal(),
            started: Instant::now(),
        }
    }
}

impl Console {
    /// Prints one line with the seconds since the start of the program.
    pub fn log(&self, line: &str) {
        self.print(&format!("{:>8.1} s  {line}", self.started.elapsed().as_secs_f64()));
    }

    /// Prints one line as it is.
    pub fn print(&self, line: &str) {
        // Bars are hidden while the line is written: it would be drawn over them otherwise.
        self.bars.suspend(|| eprintln!("{line}"));
    }

    /// Prints the lines that the local stack reports.
    #[must_use]
    pub fn reporter(&self) -> Reporter {
        let console = self.clone();
        Reporter::new(move |line| console.log(line))
    }

    /// Shows an activity of `total` steps.
    #[must_use]
    pub fn progress(&self, label: &str, total: u64) -> Progress {
        let bar = ProgressBar::new(total).with_prefix(label.to_owned());
        let bar = match ProgressStyle::with_template(TEMPLATE) {
            Ok(style) => bar.with_style(style.progress_chars("━╸━")),
            Err(_) => bar,
        };
        let bar = if self.is_terminal { self.bars.add(bar) } else { bar };
        Progress { bar, console: self.clone(), label: label.to_owned(), printed: Instant::now() }
    }
}

impl Progress {
    /// Shows that `done` steps are done.
    pub fn set(&mut self, done: u64, message: &str) {
        if self.console.is_terminal {
            self.bar.set_position(done);
            self.bar.set_message(message.to_owned());
        } else if self.printed.elapsed() >= PLAIN_LINE_INTERVAL {
            self.printed = Instant::now();
            let total = self.bar.length().unwrap_or(0);
            self.console.log(&format!("{}: {done} of {total} {message}", self.label));
        }
    }

    /// Removes the bar and prints one line in its place.
    pub fn finish(self, line: &str) {
        self.bar.finish_and_clear();
        self.console.log(line);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
