//! Calls of the functions that write. Every parameter of a function is declared in one line: its name, its SQL type and
//! its value. The declaration gives the text of the call (named notation, with casts, so the order of a function's
//! parameters does not matter) and the bindings, in the same order.
//!
//! Arrays are encoded from the rows directly into the call's buffer. All arrays of a block iterate over the same rows, so
//! they have the same length.

use std::fmt::Write as _;

use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;

/// A statement with its bindings.
pub(super) type Call<'q> = Query<'q, Postgres, PgArguments>;

/// A function in schema `stampede`.
pub(super) struct Function {
    pub(super) name: &'static str,
    /// Parameters that are bound for an earlier function of the same statement.
    pub(super) shared: &'static [Parameter],
    /// Parameters that are bound for this function, in the order of the bindings.
    pub(super) parameters: &'static [Parameter],
}

/// A parameter of a function.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    /// Its SQL type, or an expression in which `$` stands for the bound value.
    pub(super) sql_type: &'static str,
}

/// The statement that calls functions, in this order.
pub(super) fn select(functions: &[&Function]) -> String {
    let mut sql = "select".to_owned();
    let mut bound: Vec<&str> = Vec::new();
    for (n, function) in functions.iter().enumerate() {
        let name = function.name;
        let separator = if n == 0 { "" } else { "," };
        write!(sql, "{separator} stampede.{name}(").unwrap_or_default();
        let shared = function.shared.iter().map(|shared| {
            let position = bound.iter().position(|name| *name == shared.name);
            (shared, position.map_or(0, |position| position + 1))
        });
        let own = function.parameters.iter().zip(bound.len() + 1..);
        let arguments: Vec<String> =
            shared.chain(own).map(|(parameter, at)| parameter.argument(at)).collect();
        bound.extend(function.parameters.iter().map(|parameter| parameter.name));
        write!(sql, "{})", arguments.join(", ")).unwrap_or_default();
    }
    sql
}

impl Parameter {
    /// `name => $at::type`.
    fn argument(&self, at: usize) -> String {
        let Self { name, sql_type } = self;
        match sql_type.split_once('$') {
            Some((before, after)) => format!("{name} => {before}${at}{after}"),
            None => format!("{name} => ${at}::{sql_type}"),
        }
    }
}

/// Declares a function for a type that has its rows: the constant `FUNCTION` and the method `bind`. A block `one` binds
/// each value as it is; a block `each` binds one array per line, over all rows.
macro_rules! sql_function {
    (
        $name:ident($input:ident: $type:ident) $(sharing ($($shared:ident: $shared_type:literal;)+))? {
            $($kind:ident $row:ident in $rows:expr => { $($parameter:ident: $sql_type:literal = $value:expr;)+ })+
        }
    ) => {
        impl $type<'_> {
            pub(super) const FUNCTION: Function = Function {
                name: stringify!($name),
                shared: &[$($(sql_function!(@parameter one $shared $shared_type)),+)?],
                parameters: &[$($(sql_function!(@parameter $kind $parameter $sql_type),)+)+],
            };

            pub(super) fn bind<'q>(&'q self, call: Call<'q>) -> Call<'q> {
                let $input = self;
                $($(let call = sql_function!(@bind $kind call, $row, $rows, $value);)+)+
                call
            }
        }
    };
    (@parameter one $parameter:ident $sql_type:literal) => {
        Parameter { name: stringify!($parameter), sql_type: $sql_type }
    };
    (@parameter each $parameter:ident $sql_type:literal) => {
        Parameter { name: stringify!($parameter), sql_type: concat!($sql_type, "[]") }
    };
    (@bind one $call:ident, $row:ident, $rows:expr, $value:expr) => {{
        let $row = $rows;
        $call.bind($value)
    }};
    (@bind each $call:ident, $row:ident, $rows:expr, $value:expr) => {
        $call.bind($rows.map(|$row| $value).bind_iter())
    };
}
pub(super) use sql_function;

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Parameter = Parameter { name: "id", sql_type: "int" };
    const DAY: Parameter = Parameter { name: "day", sql_type: "date '1970-01-01' + $::int" };
    const IDS: Parameter = Parameter { name: "ids", sql_type: "uuid[]" };

    #[test]
    fn a_later_function_uses_the_parameters_that_it_shares_with_an_earlier_one() {
        let first = Function { name: "first", shared: &[], parameters: &[ID, DAY] };
        let second = Function { name: "second", shared: &[DAY], parameters: &[IDS] };
        assert_eq!(
            select(&[&first, &second]),
            "select stampede.first(id => $1::int, day => date '1970-01-01' + $2::int), \
             stampede.second(day => date '1970-01-01' + $2::int, ids => $3::uuid[])"
        );
    }
}
