//! From samples to figures, ratios, targets, and reports.

pub mod figures;
pub mod goals;
pub mod html;
pub mod plot;
pub mod ratios;
pub mod readme_plot;
pub mod report;
