//! The figures as a table for people.

use std::fmt::Write as _;

use super::figures::{Details, Figures};
use super::snapshot::Money;

/// What the table shows besides the figures.
pub struct Heading<'a> {
    /// The coupon.
    pub coupon: &'a str,
    /// How many codes it had.
    pub codes: u64,
    /// How many users were in flight.
    pub in_flight: u64,
    /// The sums of the orders.
    pub money: &'a Money,
    /// The child that got SIGKILL.
    pub killed: Option<String>,
    /// Whether to use colours.
    pub colours: bool,
}

const WIDTH: usize = 78;
const BAR: u64 = 30;

/// The table, with its last line end.
#[must_use]
pub fn draw(heading: &Heading<'_>, figures: &Figures, details: &Details) -> String {
    let mut out = String::new();
    let rule = "─".repeat(WIDTH);
    let title = format!("Sale of {}: {} codes", heading.coupon, grouped(heading.codes));
    let (bold, plain) = if heading.colours { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    let title = format!("{bold}{title}{plain}");
    let sections = [vec![title], counts(heading, figures, details), times(heading, figures, details)];
    for section in sections {
        _ = writeln!(out, "{rule}");
        for line in section {
            _ = writeln!(out, "{line}");
        }
    }
    _ = writeln!(out, "{rule}");
    out
}

fn counts(heading: &Heading<'_>, figures: &Figures, details: &Details) -> Vec<String> {
    let share = |count: u64| bar(count, figures.attempts);
    let gate = match details.gate {
        0 => String::new(),
        gate => format!(" ({} by the sold-out gate)", grouped(gate)),
    };
    let Money { orders, discounts } = heading.money;
    let discount = match figures.redeemed {
        0 => String::new(),
        _ => format!("{} EUR off {} EUR", grouped_amount(discounts), grouped_amount(orders)),
    };
    let mut rows = vec![
        row("users who claimed", figures.attempts, &format!("{} in flight", grouped(heading.in_flight))),
        row("won a code", figures.won, &share(figures.won)),
        row("sold out", figures.sold_out, &format!("{}{gate}", share(figures.sold_out))),
    ];
    for (reason, count) in &details.rejected {
        rows.push(row(reason, *count, &share(*count)));
    }
    rows.push(row("redeemed", figures.redeemed, &discount));
    for (reason, count) in &details.not_redeemed {
        rows.push(row("not redeemed", *count, &format!("rejected: {reason}")));
    }
    rows.push(row("lapsed holds", figures.lapsed, &lapses(figures, details)));
    if details.waited > 0 {
        let won = format!("{} got a code that returned to stock", grouped(details.waited_and_won));
        rows.push(row("waited for a code", details.waited, &won));
    }
    rows.push(row("unresolved", figures.unresolved, &defects(figures, details, heading)));
    rows.push(row("given twice", figures.given_twice, mark(figures.given_twice, heading.colours)));
    rows
}

fn times(heading: &Heading<'_>, figures: &Figures, details: &Details) -> Vec<String> {
    let rate = if figures.rush_seconds > 0.0 { float(figures.attempts) / figures.rush_seconds } else { 0.0 };
    let retries = grouped(details.retries);
    let mut lines = vec![
        format!(
            "{:<20}{:>11.2} s   {rate:.0} users/s, {retries} attempts repeated",
            "first claims within", figures.rush_seconds
        ),
        format!("{:<20}{:>11.2} s   lapsed holds included", "finished within", figures.seconds),
        format!(
            "{:<20}p50 {:.1} ms   p95 {:.1} ms   p99 {:.1} ms",
            "claim to outcome", figures.p50_ms, figures.p95_ms, figures.p99_ms
        ),
        format!(
            "{:<20}p50 {:.1} ms                  p99 {:.1} ms",
            "redeem to outcome", figures.redeem_p50_ms, figures.redeem_p99_ms
        ),
    ];
    if let (Some(killed), Some(at)) = (&heading.killed, figures.killed_at) {
        lines.push(format!("{:<20}{killed}, after {} first claims", "SIGKILL", grouped(at)));
    }
    lines
}

fn row(label: &str, count: u64, remark: &str) -> String {
    format!("{label:<20}{:>11}     {remark}", grouped(count)).trim_end().to_owned()
}

/// Why holds lapsed, and where the codes went.
fn lapses(figures: &Figures, details: &Details) -> String {
    if figures.lapsed == 0 {
        return String::new();
    }
    let (let_lapse, handed_on) = (grouped(details.let_lapse), grouped(figures.handed_on));
    format!("{let_lapse} on purpose; {handed_on} codes went to another user")
}

fn defects(figures: &Figures, details: &Details, heading: &Heading<'_>) -> String {
    let mut defects = mark(figures.unresolved, heading.colours).to_owned();
    for (count, what) in
        [(details.never_accepted, "never accepted"), (details.contradicted, "contradicted by Postgres")]
    {
        if count > 0 {
            _ = write!(defects, ", {} {what}", grouped(count));
        }
    }
    defects
}

/// A tick for none, a cross for any.
const fn mark(defects: u64, colours: bool) -> &'static str {
    match (defects == 0, colours) {
        (true, true) => "\x1b[32m✓\x1b[0m",
        (true, false) => "✓",
        (false, true) => "\x1b[31m✗\x1b[0m",
        (false, false) => "✗",
    }
}

/// A share of the whole; at least one block unless it is zero.
fn bar(part: u64, whole: u64) -> String {
    if part == 0 || whole == 0 {
        return String::new();
    }
    let blocks = (part * BAR / whole).max(1);
    let filled = usize::try_from(blocks).unwrap_or(0);
    format!("{} {:.1} %", "█".repeat(filled), float(part) * 100.0 / float(whole))
}

#[expect(clippy::cast_precision_loss, reason = "counts of users are far below 2^52")]
const fn float(count: u64) -> f64 {
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
fn grouped_amount(amount: &str) -> String {
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
        assert_eq!(["0", "12.5", "18876.20"].map(grouped_amount), ["0.00", "12.5", "18,876.20"]);
    }

    #[test]
    fn a_share_above_zero_is_visible() {
        assert_eq!(bar(0, 10), "");
        assert!(bar(1, 1_000_000).starts_with('█'));
        assert_eq!(bar(10, 10).chars().filter(|c| *c == '█').count(), 30);
    }
}
