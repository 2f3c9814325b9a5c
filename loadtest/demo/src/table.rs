//! The figures as a person reads them.

use std::fmt::Write as _;

use super::figures::{Details, Figures};
use super::truth::Money;

/// What the table says besides the figures.
pub struct Heading<'a> {
    /// The coupon.
    pub coupon: &'a str,
    /// How many codes it had.
    pub codes: u64,
    /// How many users were in flight.
    pub in_flight: u64,
    /// What the orders came to.
    pub money: &'a Money,
    /// Who got SIGKILL.
    pub killed: Option<String>,
    /// Whether colours are wanted.
    pub colours: bool,
}

const WIDTH: usize = 78;
const BAR: u64 = 30;

/// The table, with its last line end.
#[must_use]
pub fn draw(heading: &Heading<'_>, figures: &Figures, details: &Details) -> String {
    let mut out = String::new();
    let title = format!("Sale of {}: {} codes", heading.coupon, grouped(heading.codes));
    let rule = "─".repeat(WIDTH);
    let (bold, plain) = if heading.colours { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    let mut line = |text: &str| _ = writeln!(out, "{text}");
    line(&rule);
    line(&format!("{bold}{title}{plain}"));
    line(&rule);
    let share = |count: u64| bar(count, figures.attempts);
    line(&row("users who claimed", figures.attempts, &format!("{} in flight", grouped(heading.in_flight))));
    line(&row("won a code", figures.won, &share(figures.won)));
    let gate =
        if details.gate > 0 { format!(" ({} by the gate)", grouped(details.gate)) } else { String::new() };
    line(&row("told sold out", figures.sold_out, &format!("{}{gate}", share(figures.sold_out))));
    for (word, count) in &details.others {
        line(&row(&format!("told {word}"), *count, &share(*count)));
    }
    let Money { orders, discounts } = heading.money;
    let taken_off = format!("{} EUR off {} EUR", precisely(discounts), precisely(orders));
    line(&row("redeemed", figures.redeemed, if figures.redeemed > 0 { &taken_off } else { "" }));
    for (word, count) in &details.not_redeemed {
        line(&row("not redeemed", *count, &format!("told {word}")));
    }
    line(&row("holds that lapsed", figures.lapsed, &on_purpose(figures, details)));
    if details.waited > 0 {
        let won = format!("{} got a code that came back", grouped(details.waited_and_won));
        line(&row("waited for one", details.waited, &won));
    }
    line(&row("unresolved", figures.unresolved, &doubts(figures, details, heading)));
    line(&row("given twice", figures.given_twice, verdict(figures.given_twice, heading.colours)));
    line(&rule);
    let rate =
        if figures.rush_seconds > 0.0 { precise(figures.attempts) / figures.rush_seconds } else { 0.0 };
    line(&format!(
        "{:<20}{:>11.2} s   {:.0} users/s, {} tries repeated",
        "all were answered in",
        figures.rush_seconds,
        rate,
        grouped(details.retries)
    ));
    line(&format!("{:<20}{:>11.2} s   what lapsed included", "all was over in", figures.seconds));
    line(&format!(
        "{:<20}p50 {:.1} ms   p95 {:.1} ms   p99 {:.1} ms",
        "claim to answer", figures.p50_ms, figures.p95_ms, figures.p99_ms
    ));
    line(&format!(
        "{:<20}p50 {:.1} ms                  p99 {:.1} ms",
        "redeem to answer", figures.redeem_p50_ms, figures.redeem_p99_ms
    ));
    if let (Some(killed), Some(at)) = (&heading.killed, figures.killed_at) {
        line(&format!("{:<20}{killed}, when {} users had their answer", "SIGKILL", grouped(at)));
    }
    line(&rule);
    out
}

fn row(label: &str, count: u64, remark: &str) -> String {
    format!("{label:<20}{:>11}     {remark}", grouped(count)).trim_end().to_owned()
}

/// Why holds lapsed, and what became of the codes.
fn on_purpose(figures: &Figures, details: &Details) -> String {
    if figures.lapsed == 0 {
        return String::new();
    }
    let (let_lapse, handed_on) = (grouped(details.let_lapse), grouped(figures.handed_on));
    format!("{let_lapse} on purpose; {handed_on} codes went on to somebody else")
}

fn doubts(figures: &Figures, details: &Details, heading: &Heading<'_>) -> String {
    let mut doubts = verdict(figures.unresolved, heading.colours).to_owned();
    for (count, what) in
        [(details.never_accepted, "never accepted"), (details.contradicted, "not as Postgres says")]
    {
        if count > 0 {
            _ = write!(doubts, ", {} {what}", grouped(count));
        }
    }
    doubts
}

fn verdict(bad: u64, colours: bool) -> &'static str {
    match (bad == 0, colours) {
        (true, true) => "\x1b[32m✓\x1b[0m",
        (true, false) => "✓",
        (false, true) => "\x1b[31m✗\x1b[0m",
        (false, false) => "✗",
    }
}

/// A share of the whole, at least one block where there is anything at all.
fn bar(part: u64, whole: u64) -> String {
    if part == 0 || whole == 0 {
        return String::new();
    }
    let blocks = (part * BAR / whole).max(1);
    let filled = usize::try_from(blocks).unwrap_or(0);
    format!("{} {:.1} %", "█".repeat(filled), precise(part) * 100.0 / precise(whole))
}

#[expect(clippy::cast_precision_loss, reason = "counts of users are far below 2^52")]
const fn precise(count: u64) -> f64 {
    count as f64
}

/// 1234567 as 1,234,567.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// "1234567.80" as 1,234,567.80.
fn precisely(amount: &str) -> String {
    let (whole, rest) = amount.split_once('.').unwrap_or((amount, "00"));
    format!("{}.{rest}", whole.parse().map_or_else(|_| whole.to_owned(), grouped))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let shown = [0, 7, 999, 1_000, 30_000, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "7", "999", "1,000", "30,000", "1,234,567"]);
        assert_eq!(["0", "12.5", "18876.20"].map(precisely), ["0.00", "12.5", "18,876.20"]);
    }

    #[test]
    fn a_share_that_is_not_nothing_is_seen() {
        assert_eq!(bar(0, 10), "");
        assert!(bar(1, 1_000_000).starts_with('█'));
        assert_eq!(bar(10, 10).chars().filter(|c| *c == '█').count(), 30);
    }
}
