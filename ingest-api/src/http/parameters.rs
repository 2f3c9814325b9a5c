//! Path and query parameters, decoded.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::Uri;
use axum::http::request::Parts;

use crate::http::problem::Problem;

/// The one variable segment of a path, percent-decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathName(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for PathName {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(name)| Self(name)).map_err(|_| Problem::unreadable("the path is not valid UTF-8"))
    }
}

/// The query parameters, percent-decoded, in the order of the URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads the query of a URL.
    ///
    /// # Errors
    /// 400 for a query that cannot be decoded.
    pub(crate) fn of(uri: &Uri) -> Result<Self, Problem> {
        let query = Query::try_from_uri(uri)
            .map_err(|_| Problem::unreadable("the query is not valid percent-encoded UTF-8"))?;
        Ok(Self(query.0))
    }

    /// The value of one parameter.
    ///
    /// # Errors
    /// 422 for a repeated parameter: two readers could use different values.
    pub(crate) fn get(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(Problem::invalid_field(name, "must be given once")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_a_repeated_one_is_rejected() {
        let of = |uri: &'static str| Parameters::of(&Uri::from_static(uri)).expect("a valid query");
        let parameters = of("/x?user_id=a%20b%2Bc+d&user_id2=&a=1&a=2");
        assert_eq!(parameters.get("user_id").ok(), Some(Some("a b+c d")));
        assert_eq!(parameters.get("user_id2").ok(), Some(Some("")));
        assert_eq!(parameters.get("b").ok(), Some(None));
        assert_eq!(parameters.get("a").map_err(|problem| problem.status().as_u16()), Err(422));
        assert_eq!(of("/x"), Parameters::default());
    }
}
