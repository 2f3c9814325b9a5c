//! Errors of the ledger, sorted by remedy. What follows from a failed write is one pure function: [`result_of_code`].

use std::time::Duration;

use coupon_core::interface::WriteResult;
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use thiserror::Error;

/// A read or a takeover has failed. Retry: nothing was changed.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// An error that Postgres or its connection reports.
    #[error("Postgres: {0}")]
    Postgres(#[from] sqlx::Error),
    /// A row holds a value that this version cannot read. Substituting another one could change an outcome.
    #[error("a row that this version cannot read ({0}): was it written by a newer one?")]
    Unreadable(String),
    /// It timed out.
    #[error("Postgres did not respond within {0:?}")]
    TimedOut(Duration),
}

/// The result of a write that ended with this error.
pub(super) fn result_of(error: &sqlx::Error) -> WriteResult {
    match error {
        sqlx::Error::Database(reported) => {
            let code = reported.code().unwrap_or_default();
            result_of_code(&code, reported.constraint().unwrap_or_default(), reported.message())
        }
        // A value that cannot be encoded as a parameter.
        sqlx::Error::Encode(_) => WriteResult::DataRejected(error.to_string()),
        // Any other error concerns the connection: the call may have arrived, and may still be running.
        _ => WriteResult::Unknown,
    }
}

/// Whether the connection can be used again: the server reported the error and keeps the session.
pub(super) fn connection_survives(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(reported) = error else {
        return matches!(error, sqlx::Error::Encode(_));
    };
    // A server that has become read-only is no longer the primary: reconnect, possibly to the new one.
    reported.code().as_deref() != Some("25006")
        && reported.try_downcast_ref::<PgDatabaseError>().is_some_and(|e| e.severity() == PgSeverity::Error)
}

/// The error table: SQLSTATE, name of the constraint, message. An error that the server reports means that nothing was
/// written; if it is reported after the commit all the same, the fence rejects the identical call.
fn result_of_code(code: &str, constraint: &str, message: &str) -> WriteResult {
    match (code, constraint) {
        ("SP001", _) => WriteResult::Fenced,
        ("SP002", _) => WriteResult::Mismatch(message.to_owned()),
        ("23505", name) if is_identity_key(name) => WriteResult::AlreadyDecided,
        ("23505", name) => WriteResult::Mismatch(format!("{name}: {message}")),
        ("23514", name) if contradicts_cached_state(name) => {
            WriteResult::Mismatch(format!("{name}: {message}"))
        }
        ("23514", name) if name.ends_with("_length") => {
            WriteResult::DataRejected(format!("{name}: {message}"))
        }
        ("57014", _) => WriteResult::StatementTimedOut,
        _ if code.starts_with("22") => WriteResult::DataRejected(message.to_owned()),
        _ => {
            if !is_transient(code) {
                tracing::error!(
                    code,
                    constraint,
                    message,
                    "write failed for a reason that is not in the batch"
                );
            }
            WriteResult::Retry
        }
    }
}

/// The batch contradicts the rows: the owner's cached state is wrong.
fn contradicts_cached_state(constraint: &str) -> bool {
    constraint.starts_with("stock_")
        || ["mark_uses", "claim_deadline", "redemption_adds_up"].contains(&constraint)
}

/// The daily tables of outcomes have their own constraint names: `outcomes_20260101_pkey`.
fn is_identity_key(constraint: &str) -> bool {
    ["claims_pkey", "redemptions_pkey"].contains(&constraint)
        || (constraint.starts_with("outcomes") && constraint.ends_with("_pkey"))
}

/// Transient errors: serialization and deadlock, lock timeouts, shutdown and start, out of connections,
/// memory or disk.
fn is_transient(code: &str) -> bool {
    ["40", "53"].iter().any(|class| code.starts_with(class))
        || ["55P03", "57P01", "57P02", "57P03", "25006"].contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    enum Expected {
        Fenced,
        Mismatch,
        AlreadyDecided,
        DataRejected,
        Retry,
        StatementTimedOut,
    }
    use Expected::{AlreadyDecided, DataRejected, Fenced, Mismatch, Retry, StatementTimedOut};

    const TABLE: &[(&str, &str, &str, Expected)] = &[
        ("the fence does not match", "SP001", "", Fenced),
        ("a count does not match", "SP002", "", Mismatch),
        ("a claim with this identity exists", "23505", "claims_pkey", AlreadyDecided),
        ("an outcome with this id exists", "23505", "outcomes_20260101_pkey", AlreadyDecided),
        ("the code is in a live claim", "23505", "claims_live", Mismatch),
        ("a redemption with this identity exists", "23505", "redemptions_pkey", AlreadyDecided),
        ("the order was paid with the code", "23505", "redemptions_live", Mismatch),
        ("the number is ahead already", "23505", "stock_ahead_pkey", Mismatch),
        ("the number was returned already", "23505", "stock_returned_pkey", Mismatch),
        ("the outbox entry exists", "23505", "outbox_pkey", Mismatch),
        ("stock would be negative", "23514", "stock_never_negative", Mismatch),
        ("stock would not add up", "23514", "stock_adds_up", Mismatch),
        ("redemptions would be negative", "23514", "stock_redemptions", Mismatch),
        ("a code's uses would be negative", "23514", "mark_uses", Mismatch),
        ("a claim's deadline is not that of its state", "23514", "claim_deadline", Mismatch),
        ("amounts do not add up", "23514", "redemption_adds_up", Mismatch),
        ("an order's id is too long", "23514", "claim_order_length", DataRejected),
        ("a redemption's order id is too long", "23514", "redemption_order_length", DataRejected),
        ("a user id is too long", "23514", "claim_user_length", DataRejected),
        ("an outcome's user id is too long", "23514", "outcome_user_length", DataRejected),
        ("a NUL or invalid UTF-8", "22021", "", DataRejected),
        ("a number out of range", "22003", "", DataRejected),
        ("the day's table is missing", "23514", "", Retry),
        ("serialization", "40001", "", Retry),
        ("deadlock", "40P01", "", Retry),
        ("lock timeout", "55P03", "", Retry),
        ("statement timeout", "57014", "", StatementTimedOut),
        ("terminated", "57P01", "", Retry),
        ("crash shutdown", "57P02", "", Retry),
        ("starting up", "57P03", "", Retry),
        ("out of connections", "53300", "", Retry),
        ("disk full", "53100", "", Retry),
        ("no longer the primary", "25006", "", Retry),
        ("the function is missing", "42883", "", Retry),
        ("corruption", "XX001", "", Retry),
    ];

    #[test]
    fn every_error_has_its_documented_remedy() {
        for (what, code, constraint, expected) in TABLE {
            let result = result_of_code(code, constraint, "message");
            let matches = match expected {
                Fenced => result == WriteResult::Fenced,
                AlreadyDecided => result == WriteResult::AlreadyDecided,
                Retry => result == WriteResult::Retry,
                StatementTimedOut => result == WriteResult::StatementTimedOut,
                Mismatch => matches!(result, WriteResult::Mismatch(_)),
                DataRejected => matches!(result, WriteResult::DataRejected(_)),
            };
            assert!(matches, "{what}: {code} {constraint} gave {result:?}");
        }
    }

    #[test]
    fn a_lost_connection_makes_the_result_unknown() {
        let lost = sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        assert_eq!(result_of(&lost), WriteResult::Unknown);
        assert_eq!(result_of(&sqlx::Error::Protocol("truncated".to_owned())), WriteResult::Unknown);
        assert!(!connection_survives(&lost));
    }
}
