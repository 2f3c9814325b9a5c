//! Reads. They change nothing and are repeated until the deadline.

use std::time::Duration;

use hyper::StatusCode;
use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::client::exchange::{Exchange, Safety};
use crate::error::Error;
use crate::model::{Outcome, OwnedCode, Page, PageQuery, Validation};
use crate::observer::Step;
use crate::transport::{HttpRequest, path_segment};

impl Client {
    /// Whether a code could be redeemed now, and with which discount on an order of `(amount, currency)`.
    ///
    /// # Errors
    /// [`Error::Problem`], or no response by the deadline.
    pub async fn validate(&self, code: &str, order: Option<(&str, &str)>) -> Result<Validation, Error> {
        let mut path = format!("/v1/codes/{}/validation", path_segment(code));
        if let Some((amount, currency)) = order {
            let (amount, currency) = (path_segment(amount), path_segment(currency));
            path.push_str(&format!("?order_amount={amount}&currency={currency}"));
        }
        self.get(&path).await
    }

    /// The codes of a user (the wallet); `me` is the caller.
    ///
    /// # Errors
    /// [`Error::Problem`], or no response by the deadline.
    pub async fn wallet(&self, user_id: &str, page: PageQuery<'_>) -> Result<Page<OwnedCode>, Error> {
        self.get(&paged(format!("/v1/users/{}/codes", path_segment(user_id)), &[], page)).await
    }

    /// The recent requests of a user with their outcomes, of one coupon or of all; `me` is the caller.
    ///
    /// # Errors
    /// [`Error::Problem`], or no response by the deadline.
    pub async fn requests(
        &self,
        user_id: &str,
        coupon_id: Option<&str>,
        page: PageQuery<'_>,
    ) -> Result<Page<Outcome>, Error> {
        let coupon = coupon_id.map(|coupon_id| ("coupon", coupon_id));
        self.get(&paged(format!("/v1/users/{}/requests", path_segment(user_id)), coupon.as_slice(), page))
            .await
    }

    /// Reads any JSON resource of the API. `path` includes the query, percent-encoded.
    ///
    /// # Errors
    /// [`Error::Problem`], [`Error::UnexpectedResponse`], or no response by the deadline.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let request = HttpRequest { token: self.token.as_deref(), ..HttpRequest::get(path) };
        let mut exchange = Exchange::new(self, self.policy, None, None);
        let response = exchange.repeat(Step::Query, &request, Duration::ZERO, Safety::Idempotent).await?;
        match response.status {
            StatusCode::OK => response.json().map_err(|_| Error::unexpected(&response)),
            _ => Err(Error::of_response(&response)),
        }
    }
}

fn paged(mut path: String, parameters: &[(&str, &str)], page: PageQuery<'_>) -> String {
    let limit = page.limit.map(|limit| limit.to_string());
    let limit = limit.as_deref().map(|limit| ("limit", limit));
    let cursor = page.cursor.map(|cursor| ("cursor", cursor));
    for (n, (name, value)) in parameters.iter().copied().chain(limit).chain(cursor).enumerate() {
        path.push_str(&format!("{}{name}={}", if n == 0 { '?' } else { '&' }, path_segment(value)));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_named_by_its_parameters() {
        let page = PageQuery { limit: Some(10), cursor: Some("a+b") };
        assert_eq!(paged("/x".to_owned(), &[("coupon", "c")], page), "/x?coupon=c&limit=10&cursor=a%2Bb");
        assert_eq!(paged("/x".to_owned(), &[], PageQuery::default()), "/x");
    }
}
