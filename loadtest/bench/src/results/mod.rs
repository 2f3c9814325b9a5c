//! From samples to figures, ratios, targets, and reports.

pub mod figures;
pub mod goals;
pub mod html;
pub mod ratios;
pub mod report;
pub mod svg;
