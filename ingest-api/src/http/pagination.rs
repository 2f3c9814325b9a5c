//! Keyset pagination of lists, newest first: a limit, and a cursor at which the previous page ended.
//!
//! Guarantees: a page is bounded; a client that follows the cursors sees every entry that existed at the start exactly
//! once, whatever is added in between. A cursor is opaque and holds nothing secret: a time and a request id.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::http::parameters::Parameters;
use crate::http::problem::Problem;

const MAX_LIMIT: usize = 100;
const DEFAULT_LIMIT: usize = 20;

/// A position in a list, newest first: a time, and a request id that orders entries of the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) ms: i64,
    pub(crate) identity: Uuid,
    pub(crate) body: i64,
}

impl Cursor {
    /// Before every entry.
    const START: Self = Self { ms: i64::MAX, identity: Uuid::max(), body: i64::MAX };

    fn encode(self) -> String {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.ms.to_be_bytes());
        bytes[8..24].copy_from_slice(self.identity.as_bytes());
        bytes[24..].copy_from_slice(&self.body.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn decode(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()? != bytes.len() {
            return None;
        }
        let [ms, high, low, body] = [0, 8, 16, 24].map(|at| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&bytes[at..at + 8]);
            u64::from_be_bytes(eight)
        });
        let identity = Uuid::from_u64_pair(high, low);
        Some(Self { ms: ms.cast_signed(), identity, body: body.cast_signed() })
    }
}

/// The requested page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// Maximum number of entries.
    pub(crate) limit: usize,
    /// Entries after this position.
    pub(crate) after: Cursor,
}

impl Page {
    /// Reads `limit` and `cursor`.
    ///
    /// # Errors
    /// 422, naming the parameter.
    pub(crate) fn of(parameters: &Parameters) -> Result<Self, Problem> {
        let limit = parameters.get("limit")?.map_or(Some(DEFAULT_LIMIT), |text| text.parse().ok());
        let limit = limit.filter(|limit| (1..=MAX_LIMIT).contains(limit));
        let limit =
            limit.ok_or_else(|| Problem::invalid_field("limit", "must be a whole number from 1 to 100"))?;
        let after = parameters.get("cursor")?.map_or(Some(Cursor::START), Cursor::decode);
        let after = after.ok_or_else(|| {
            Problem::invalid_field("cursor", "invalid cursor; send the next_cursor of a page unchanged")
        })?;
        Ok(Self { limit, after })
    }

    /// Rows to read: one more than is returned shows whether a next page exists.
    pub(crate) fn rows(&self) -> i64 {
        i64::try_from(self.limit + 1).unwrap_or(i64::MAX)
    }

    /// Removes the extra row; returns the cursor of the next page, if there is one.
    pub(crate) fn cut<T>(&self, rows: &mut Vec<T>, cursor: impl Fn(&T) -> Cursor) -> Option<String> {
        if rows.len() <= self.limit {
            return None;
        }
        rows.truncate(self.limit);
        rows.last().map(|last| cursor(last).encode())
    }
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PageView<T> {
    /// Newest first.
    pub(crate) items: Vec<T>,
    /// The cursor of the next page; null on the last page.
    pub(crate) next_cursor: Option<String>,
}

/// Parameters of every list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters in the OpenAPI document; Page reads them")]
pub(crate) struct PageParameters {
    /// Maximum number of entries; 20 if absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// `next_cursor` of the previous page.
    cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(uri: &'static str) -> Result<Page, u16> {
        let parameters = Parameters::of(&axum::http::Uri::from_static(uri)).expect("a valid query");
        Page::of(&parameters).map_err(|problem| problem.status().as_u16())
    }

    #[test]
    fn a_cursor_decodes_to_its_position_and_any_other_text_is_invalid() {
        let cursor = Cursor { ms: -5, identity: Uuid::from_u128(7), body: i64::MAX };
        for cursor in [cursor, Cursor::START] {
            assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        }
        let (text, long) = (cursor.encode(), "A".repeat(10_000));
        for wrong in ["", "x", "!", &text[1..], &format!("{text}A"), &long, "\0"] {
            assert_eq!(Cursor::decode(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_page_is_bounded() {
        assert_eq!(page("/x"), Ok(Page { limit: 20, after: Cursor::START }));
        assert_eq!(page("/x?limit=100").map(|page| page.limit), Ok(100));
        for wrong in
            ["/x?limit=0", "/x?limit=101", "/x?limit=-1", "/x?limit=", "/x?limit=1&limit=2", "/x?cursor=x"]
        {
            assert_eq!(page(wrong), Err(422), "{wrong}");
        }
    }

    #[test]
    fn an_extra_row_means_that_a_next_page_exists() {
        let page = Page { limit: 2, after: Cursor::START };
        let cursor = |n: &i64| Cursor { ms: *n, ..Cursor::START };
        let (mut two, mut three) = (vec![9, 8], vec![9, 8, 7]);
        assert_eq!(page.cut(&mut two, cursor), None);
        assert_eq!(page.cut(&mut three, cursor).as_deref().and_then(Cursor::decode), Some(cursor(&8)));
        assert_eq!((two, three), (vec![9, 8], vec![9, 8]));
    }
}
