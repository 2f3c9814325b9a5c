//! Helper programs that run to completion, such as initdb and mount.

use std::io;
use std::process::Output;

use super::logs::relevant_line;
use crate::error::StackError;

/// The result of a helper program; on failure its most relevant output line.
pub(crate) fn finished(what: &'static str, output: io::Result<Output>) -> Result<(), StackError> {
    let output = output.map_err(|source| StackError::Io { what: format!("cannot run {what}"), source })?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(StackError::Tool { what, last_line: relevant_line(&String::from_utf8_lossy(&text)) })
}
