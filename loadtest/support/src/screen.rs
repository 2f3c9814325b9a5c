//! What a person sees while something runs: bars that move on a terminal, plain lines elsewhere. Always standard error.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use local_stack::Reporter;

const BETWEEN_PLAIN_LINES: Duration = Duration::from_secs(2);
const TEMPLATE: &str = "{prefix:>10} {bar:40.cyan/black.bright} {pos:>9}/{len:<9} {msg}";

/// Standard error, shared by bars and lines. Clones write to the same place.
#[derive(Clone)]
pub struct Screen {
    bars: MultiProgress,
    terminal: bool,
    began: Instant,
}

/// The progress of one thing.
pub struct Progress {
    bar: ProgressBar,
    screen: Screen,
    label: String,
    said: Instant,
}

impl Default for Screen {
    fn default() -> Self {
        Self { bars: MultiProgress::new(), terminal: std::io::stderr().is_terminal(), began: Instant::now() }
    }
}

impl Screen {
    /// One line, with the seconds since the program began.
    pub fn say(&self, line: &str) {
        self.print(&format!("{:>8.1} s  {line}", self.began.elapsed().as_secs_f64()));
    }

    /// One line as it is.
    pub fn print(&self, line: &str) {
        // Between the bars, not through them.
        self.bars.suspend(|| eprintln!("{line}"));
    }

    /// For the stack's own lines.
    #[must_use]
    pub fn reporter(&self) -> Reporter {
        let screen = self.clone();
        Reporter::new(move |line| screen.say(line))
    }

    /// A thing that has `total` steps.
    #[must_use]
    pub fn progress(&self, label: &str, total: u64) -> Progress {
        let bar = ProgressBar::new(total).with_prefix(label.to_owned());
        let bar = match ProgressStyle::with_template(TEMPLATE) {
            Ok(style) => bar.with_style(style.progress_chars("━╸━")),
            Err(_) => bar,
        };
        let bar = if self.terminal { self.bars.add(bar) } else { bar };
        Progress { bar, screen: self.clone(), label: label.to_owned(), said: Instant::now() }
    }
}

impl Progress {
    /// So many steps are done.
    pub fn set(&mut self, done: u64, message: &str) {
        if self.screen.terminal {
            self.bar.set_position(done);
            self.bar.set_message(message.to_owned());
        } else if self.said.elapsed() >= BETWEEN_PLAIN_LINES {
            self.said = Instant::now();
            let total = self.bar.length().unwrap_or(0);
            self.screen.say(&format!("{}: {done} of {total} {message}", self.label));
        }
    }

    /// It is over; the bar goes, and one line stays.
    pub fn finish(self, line: &str) {
        self.bar.finish_and_clear();
        self.screen.say(line);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
