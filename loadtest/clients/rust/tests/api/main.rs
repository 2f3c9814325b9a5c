//! The client against a local server that plays scripted responses and failures.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod requests;
mod resources;
mod scripted;
