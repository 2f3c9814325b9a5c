//! What follows when a write fails: the error table of the design, as one pure function.

use coupon_core::interface::WriteResult;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// What became of a call that ended with this error.
pub(super) fn result_of(error: &sqlx::Error) -> WriteResult {
    match error {
        sqlx::Error::Database(reported) => {
            let code = reported.code().unwrap_or_default();
            result_of_code(&code, reported.constraint().unwrap_or_default(), reported.message())
        }
        // A value that cannot even be put into a call.
        sqlx::Error::Encode(_) => WriteResult::DataRejected(error.to_string()),
        // Everything else is about the connection: the call may have arrived, and may still be running.
        _ => WriteResult::Unknown,
    }
}

/// Whether the connection can be used again: after an error that the server reported and lived on.
pub(super) fn connection_survives(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(reported) = error else {
        return matches!(error, sqlx::Error::Encode(_));
    };
    // A server that has become read-only is no primary any more: connect again, and maybe to the new one.
    reported.code().as_deref() != Some("25006")
        && reported.try_downcast_ref::<PgDatabaseError>().is_some_and(|e| e.severity() == PgSeverity::Error)
}

/// The table itself: SQLSTATE, name of the constraint, message. An error that the server reports means that nothing
/// was written; should it come after the commit all the same, the fence stops the identical call.
fn result_of_code(code: &str, constraint: &str, message: &str) -> WriteResult {
    match (code, constraint) {
        ("SP001", _) => WriteResult::Fenced,
        ("SP002", _) => WriteResult::Mismatch(message.to_owned()),
        ("23505", name) if is_identity_key(name) => WriteResult::AlreadyDecided,
        ("23505", name) => WriteResult::Mismatch(format!("{name}: {message}")),
        ("23514", name) if is_about_memory(name) => WriteResult::Mismatch(format!("{name}: {message}")),
        ("23514", name) if name.ends_with("_length") => {
            WriteResult::DataRejected(format!("{name}: {message}"))
        }
        _ if code.starts_with("22") => WriteResult::DataRejected(message.to_owned()),
        _ => {
            if !is_expected(code) {
                tracing::error!(
                    code,
                    constraint,
                    message,
                    "the ledger cannot write, and not because of a request"
                );
            }
            WriteResult::Retry
        }
    }
}

/// What the owner made of what it knew cannot be: it knew something wrong.
fn is_about_memory(constraint: &str) -> bool {
    constraint.starts_with("stock_")
        || ["mark_uses", "claim_deadline", "redemption_adds_up"].contains(&constraint)
}

/// Daily tables of outcomes carry their own names: `outcomes_20260101_pkey`.
fn is_identity_key(constraint: &str) -> bool {
    ["claims_pkey", "redemptions_pkey"].contains(&constraint)
        || (constraint.starts_with("outcomes") && constraint.ends_with("_pkey"))
}

/// Troubles that pass by themselves: serialization and deadlock, lock and statement timeouts, shutdown and start,
/// out of connections, memory or disk.
fn is_expected(code: &str) -> bool {
    ["40", "53"].iter().any(|class| code.starts_with(class))
        || ["55P03", "57014", "57P01", "57P02", "57P03", "25006"].contains(&code)
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
    }
    use Expected::{AlreadyDecided, DataRejected, Fenced, Mismatch, Retry};

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
        ("a NUL or bytes that are no UTF-8", "22021", "", DataRejected),
        ("a number out of range", "22003", "", DataRejected),
        ("the day's table is missing", "23514", "", Retry),
        ("serialization", "40001", "", Retry),
        ("deadlock", "40P01", "", Retry),
        ("lock timeout", "55P03", "", Retry),
        ("statement timeout", "57014", "", Retry),
        ("terminated", "57P01", "", Retry),
        ("crash shutdown", "57P02", "", Retry),
        ("starting up", "57P03", "", Retry),
        ("out of connections", "53300", "", Retry),
        ("disk full", "53100", "", Retry),
        ("no primary any more", "25006", "", Retry),
        ("the function is missing", "42883", "", Retry),
        ("corruption", "XX001", "", Retry),
    ];

    #[test]
    fn every_error_has_the_remedy_that_the_design_names() {
        for (what, code, constraint, expected) in TABLE {
            let result = result_of_code(code, constraint, "message");
            let fits = match expected {
                Fenced => result == WriteResult::Fenced,
                AlreadyDecided => result == WriteResult::AlreadyDecided,
                Retry => result == WriteResult::Retry,
                Mismatch => matches!(result, WriteResult::Mismatch(_)),
                DataRejected => matches!(result, WriteResult::DataRejected(_)),
            };
            assert!(fits, "{what}: {code} {constraint} gave {result:?}");
        }
    }

    #[test]
    fn a_lost_connection_leaves_the_write_unknown() {
        let lost = sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        assert_eq!(result_of(&lost), WriteResult::Unknown);
        assert_eq!(result_of(&sqlx::Error::Protocol("cut".to_owned())), WriteResult::Unknown);
        assert!(!connection_survives(&lost));
    }
}
