//! Plots as SVG: bars on a logarithmic scale, and lines.
//!
//! No script and no font from elsewhere, so that a plot is whole wherever it is opened. Its background is opaque, and dark
//! where the reader prefers that, so that its text can be read on every page.

use std::io;
use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, SegmentValue, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use thiserror::Error;

use crate::results::report::short;

const WIDTH: u32 = 760;
const LINES_HEIGHT: u32 = 320;
/// At most so many numbers on an axis.
const TICKS: usize = 7;
const BAR_HEIGHT: usize = 30;
/// Distance of a bar from the edge of its row.
const BAR_MARGIN: u32 = 4;
/// Room for a character, as far as it can be estimated without the font.
const CHARACTER_WIDTH: usize = 8;
const VALUE_WIDTH: u32 = 100;
const VALUE_HALF_HEIGHT: i32 = 8;
const TITLE_HEIGHT: u32 = 34;
const AXIS_HEIGHT: u32 = 30;
const MARGIN: u32 = 10;
const FONT: &str = "system-ui,sans-serif";
/// 13 pixels: the library divides by 1.24.
const FONT_SIZE: f64 = 16.12;

const BACKGROUND: RGBColor = RGBColor(0xFF, 0xFF, 0xFF);
const TEXT: RGBColor = RGBColor(0x24, 0x29, 0x2F);
const GRID: RGBColor = RGBColor(0xD0, 0xD7, 0xDE);
const HIGHLIGHT: RGBColor = RGBColor(0x1F, 0x88, 0x3D);
const OTHER: RGBColor = RGBColor(0x8C, 0x95, 0x9F);
const SERIES: [RGBColor; 2] = [RGBColor(0x2F, 0x81, 0xF7), RGBColor(0xD2, 0x6A, 0x1B)];
/// On a dark background, the colours above that cannot be seen there are replaced.
const STYLE: &str = "<style>@media(prefers-color-scheme:dark){svg text{fill:#e6edf3}svg [fill='#FFFFFF']{fill:#0d1117}\
    svg [stroke='#D0D7DE']{stroke:#30363d}svg [fill='#8C959F']{fill:#6e7681}}</style>";

/// Why there is no plot.
#[derive(Debug, Error)]
#[error("a plot cannot be drawn: {0}")]
pub struct PlotError(#[from] DrawingAreaErrorKind<io::Error>);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A bar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bar<'a> {
    /// What it shows.
    pub name: &'a str,
    /// Its length; above zero.
    pub value: f64,
    /// Whether it is the subject of the plot.
    pub highlighted: bool,
}

/// A line.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What it shows.
    pub name: &'static str,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
}

/// How values are placed on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From zero.
    Linear,
    /// By powers of ten; for values above zero.
    Log,
}

/// An axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    /// What is on it, with its unit.
    pub title: &'static str,
    /// How values are placed.
    pub scale: Scale,
}

/// A bar for each value on a logarithmic scale, in the given order.
///
/// # Errors
/// [`PlotError`].
pub fn bars(title: &'static str, bars: &[Bar<'_>]) -> Result<String, PlotError> {
    let values = Coordinate::of(Scale::Log, bars.iter().map(|bar| bar.value));
    let least = values.range.start;
    let rows = u32::try_from(bars.len() * BAR_HEIGHT).unwrap_or(u32::MAX);
    let longest = bars.iter().map(|bar| bar.name.chars().count()).max().unwrap_or(0);
    let name_width = u32::try_from(longest * CHARACTER_WIDTH).unwrap_or(WIDTH).min(WIDTH / 2) + 2 * MARGIN;
    // The first bar is at the top: rows are numbered from below.
    let row = |at: usize| bars.len() - 1 - at;
    svg(title, TITLE_HEIGHT + rows + AXIS_HEIGHT + MARGIN, |area| {
        let heading = Pos::new(HPos::Left, VPos::Top);
        area.draw(&Text::new(title, (px(MARGIN), px(MARGIN)), text(FontStyle::Bold).pos(heading)))?;
        let mut chart = ChartBuilder::on(area)
            .margin_top(TITLE_HEIGHT)
            .margin_bottom(MARGIN)
            .margin_right(VALUE_WIDTH)
            .x_label_area_size(AXIS_HEIGHT)
            .y_label_area_size(name_width)
            .build_cartesian_2d(values, (0..bars.len().saturating_sub(1)).into_segmented())?;
        let name = |value: &SegmentValue<usize>| match value {
            SegmentValue::CenterOf(at) if *at < bars.len() => bars[row(*at)].name.to_owned(),
            _ => String::new(),
        };
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(text(FontStyle::Normal))
            .y_labels(bars.len())
            .y_label_formatter(&name)
            .draw()?;
        for (at, bar) in bars.iter().enumerate() {
            let colour = if bar.highlighted { HIGHLIGHT } else { OTHER };
            let corners =
                [(least, SegmentValue::Exact(row(at))), (bar.value, SegmentValue::Exact(row(at) + 1))];
            let mut rectangle = Rectangle::new(corners, colour.filled());
            rectangle.set_margin(BAR_MARGIN, BAR_MARGIN, 0, 0);
            let value = thousands(bar.value);
            let right = px(MARGIN) + i32::try_from(value.len() * CHARACTER_WIDTH).unwrap_or(i32::MAX);
            let middle = text(FontStyle::Bold).pos(Pos::new(HPos::Left, VPos::Center));
            // In front of the grid.
            let label = EmptyElement::at((bar.value, SegmentValue::CenterOf(row(at))))
                + Rectangle::new(
                    [(px(MARGIN), -VALUE_HALF_HEIGHT), (right, VALUE_HALF_HEIGHT)],
                    BACKGROUND.filled(),
                )
                + Text::new(value, (px(MARGIN), 0), middle);
            chart.draw_series([rectangle])?;
            chart.draw_series([label])?;
        }
        Ok(())
    })
}

/// Lines through points, with a dot at each, and a legend where there are several.
///
/// # Errors
/// [`PlotError`].
pub fn lines(series: &[Series], x: Axis, y: Axis) -> Result<String, PlotError> {
    let points = || series.iter().flat_map(|series| &series.points);
    let xs = Coordinate::of(x.scale, points().map(|(x, _)| *x));
    let ys = Coordinate::of(y.scale, points().map(|(_, y)| *y));
    svg(y.title, LINES_HEIGHT, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(MARGIN)
            .margin_right(4 * MARGIN)
            .x_label_area_size(AXIS_HEIGHT + 2 * MARGIN)
            .y_label_area_size(7 * MARGIN)
            .build_cartesian_2d(xs, ys)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(text(FontStyle::Normal))
            .axis_desc_style(text(FontStyle::Normal))
            .x_labels(TICKS)
            .y_labels(TICKS)
            .x_desc(x.title)
            .y_desc(y.title)
            .draw()?;
        for (one, colour) in series.iter().zip(SERIES.into_iter().cycle()) {
            let line = LineSeries::new(one.points.iter().copied(), colour.stroke_width(2)).point_size(3);
            let legend = move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2));
            chart.draw_series(line)?.label(one.name).legend(legend);
            chart.draw_series(one.points.iter().map(|point| Circle::new(*point, 4, colour.filled())))?;
        }
        if series.len() > 1 {
            let labels = &mut chart.configure_series_labels();
            labels.position(SeriesLabelPosition::UpperLeft).label_font(text(FontStyle::Normal)).draw()?;
        }
        Ok(())
    })
}

/// The document that `draw` fills. A title holds no character that has to be escaped.
fn svg<F>(title: &'static str, height: u32, draw: F) -> Result<String, PlotError>
where
    F: FnOnce(&Area<'_>) -> Result<(), DrawingAreaErrorKind<io::Error>>,
{
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
    area.fill(&BACKGROUND)?;
    draw(&area)?;
    area.present()?;
    drop(area);
    let head = format!("\" role=\"img\" aria-label=\"{title}\">\n{STYLE}\n");
    Ok(svg.replacen("\">\n", &head, 1))
}

fn text(style: FontStyle) -> TextStyle<'static> {
    FontDesc::new(FontFamily::Name(FONT), FONT_SIZE, style).color(&TEXT)
}

fn px(size: u32) -> i32 {
    size.cast_signed()
}

/// Values on an axis of either scale.
struct Coordinate {
    scale: Scale,
    range: Range<f64>,
}

impl Coordinate {
    /// An axis that holds all these values.
    fn of(scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        let (least, most) = values.fold((f64::MAX, f64::MIN_POSITIVE), |(least, most), value| {
            (least.min(value.max(f64::MIN_POSITIVE)), most.max(value))
        });
        let range = match scale {
            Scale::Linear => 0.0..most * 1.05,
            // From a power of ten, and at least to the next one.
            Scale::Log => {
                let start = 10_f64.powf(least.min(most).log10().floor());
                start..most.max(start * 10.0)
            }
        };
        Self { scale, range }
    }
}

impl Ranged for Coordinate {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let Range { start, end } = self.range;
        match self.scale {
            Scale::Linear => RangedCoordf64::from(start..end).map(value, limit),
            Scale::Log => {
                RangedCoordf64::from(start.log10()..end.log10()).map(&value.max(start).log10(), limit)
            }
        }
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match self.scale {
            Scale::Linear => RangedCoordf64::from(self.range.clone()).key_points(hint),
            Scale::Log => {
                let decades = (0..20).map(|n| self.range.start * 10_f64.powi(n));
                decades.take_while(|decade| *decade <= self.range.end * 1.000_001).collect()
            }
        }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Coordinate {
    fn format_ext(&self, value: &f64) -> String {
        match *value {
            value if value >= 1_000.0 => thousands(value),
            value => format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').to_owned(),
        }
    }
}

/// With a comma after each three digits.
pub(super) fn thousands(value: f64) -> String {
    if value < 1_000.0 {
        return short(value);
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(name: &str, value: f64) -> Bar<'_> {
        Bar { name, value, highlighted: false }
    }

    #[test]
    fn an_axis_holds_every_value_between_round_numbers() {
        for (scale, values) in [
            (Scale::Linear, vec![3.0, 17.3]),
            (Scale::Linear, vec![0.0]),
            (Scale::Log, vec![2_500.0, 140_000.0]),
            (Scale::Log, vec![5.0]),
            (Scale::Log, vec![0.0, 1_000.0]),
            (Scale::Log, Vec::new()),
        ] {
            let axis = Coordinate::of(scale, values.iter().copied());
            for value in &values {
                let at = axis.map(value, (0, 1_000));
                assert!((0..=1_000).contains(&at), "{value} of {values:?} is at {at}");
            }
        }
        let axis = Coordinate::of(Scale::Log, [2_500.0, 140_000.0].into_iter());
        let ticks: Vec<String> = axis.key_points(TICKS).iter().map(|tick| axis.format_ext(tick)).collect();
        assert_eq!(ticks, ["1,000", "10,000", "100,000"]);
        assert_eq!((axis.map(&1_000.0, (0, 400)), axis.map(&10_000.0, (0, 400))), (0, 186));
    }

    #[test]
    fn a_bar_has_its_name_and_value_and_no_text_becomes_markup() {
        let plot = bars("title", &[bar("<script>", 10.0), bar("b & c", 1_234_567.0)]).expect("a plot");
        assert!(plot.contains("&lt;script&gt;") && plot.contains("b &amp; c") && !plot.contains("<script>"));
        assert!(plot.contains("\n1,234,567\n") && plot.contains("\n10.0\n"), "{plot}");
        assert!(plot.starts_with("<svg ") && plot.contains("role=\"img\"") && plot.ends_with("</svg>\n"));
    }

    #[test]
    fn several_lines_have_a_legend_and_plots_of_nothing_are_empty() {
        let series = |name, points| Series { name, points };
        let axis = |scale| Axis { title: "axis", scale };
        let one = [series("p50", vec![(1.0, 2.0), (2.0, 3.0)])];
        let plot = lines(&one, axis(Scale::Linear), axis(Scale::Log)).expect("a plot");
        assert!(!plot.contains("p50") && plot.matches("<circle").count() == 4, "{plot}");
        let two = [one[0].clone(), series("p99", vec![(1.0, 20.0)])];
        let plot = lines(&two, axis(Scale::Linear), axis(Scale::Log)).expect("a plot");
        assert!(plot.contains("\np50\n") && plot.contains("\np99\n"), "{plot}");
        assert!(bars("title", &[]).is_ok() && lines(&[], axis(Scale::Log), axis(Scale::Linear)).is_ok());
    }
}
