//! Pages of a list, newest first: a limit, and a cursor that says where the last page ended.
//!
//! Guarantees: a page is bounded; whoever follows the cursors sees every entry once that was there at the start,
//! whatever is added meanwhile. A cursor is opaque and holds nothing secret: a place in time, and a request's id.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::extract::Parameters;
use crate::problem::Problem;

const MOST: usize = 100;
const USUAL: usize = 20;

/// A place in a list, newest first: a time, and what tells entries of the same time apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Place {
    pub(crate) ms: i64,
    pub(crate) identity: Uuid,
    pub(crate) body: i64,
}

impl Place {
    /// Before everything.
    const START: Self = Self { ms: i64::MAX, identity: Uuid::max(), body: i64::MAX };

    fn cursor(self) -> String {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.ms.to_be_bytes());
        bytes[8..24].copy_from_slice(self.identity.as_bytes());
        bytes[24..].copy_from_slice(&self.body.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn parse(cursor: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if URL_SAFE_NO_PAD.decode_slice(cursor, &mut bytes).ok()? != bytes.len() {
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

/// Which page is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// Entries at most.
    pub(crate) limit: usize,
    /// Entries behind this one.
    pub(crate) after: Place,
}

impl Page {
    /// From `limit` and `cursor`.
    ///
    /// # Errors
    /// 422, naming the parameter.
    pub(crate) fn of(parameters: &Parameters) -> Result<Self, Problem> {
        let limit = parameters.get("limit")?.map_or(Some(USUAL), |text| text.parse().ok());
        let limit = limit.filter(|limit| (1..=MOST).contains(limit));
        let limit =
            limit.ok_or_else(|| Problem::invalid_field("limit", "must be a whole number from 1 to 100"))?;
        let after = parameters.get("cursor")?.map_or(Some(Place::START), Place::parse);
        let after = after.ok_or_else(|| Problem::invalid_field("cursor", "is none that was given out"))?;
        Ok(Self { limit, after })
    }

    /// What to ask Postgres for: one more than is shown tells whether there are more.
    pub(crate) fn rows(&self) -> i64 {
        i64::try_from(self.limit + 1).unwrap_or(i64::MAX)
    }

    /// Cuts the entry too many off; answers the cursor of the next page, if there is one.
    pub(crate) fn cut<T>(&self, rows: &mut Vec<T>, place: impl Fn(&T) -> Place) -> Option<String> {
        if rows.len() <= self.limit {
            return None;
        }
        rows.truncate(self.limit);
        rows.last().map(|last| place(last).cursor())
    }
}

/// A page, as it is answered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PageView<T> {
    /// Newest first.
    pub(crate) items: Vec<T>,
    /// Where the next page begins; null: this was the last one.
    pub(crate) next_cursor: Option<String>,
}

/// Parameters of every list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters in the OpenAPI document; Page is what is read")]
pub(crate) struct PageParameters {
    /// Entries at most; 20 if absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(uri: &'static str) -> Result<Page, u16> {
        let parameters = Parameters::of(&axum::http::Uri::from_static(uri)).expect("it can be read");
        Page::of(&parameters).map_err(|problem| problem.status().as_u16())
    }

    #[test]
    fn a_cursor_leads_back_to_its_place_and_nothing_else_is_one() {
        let place = Place { ms: -5, identity: Uuid::from_u128(7), body: i64::MAX };
        for place in [place, Place::START] {
            assert_eq!(Place::parse(&place.cursor()), Some(place));
        }
        let (cursor, long) = (place.cursor(), "A".repeat(10_000));
        for wrong in ["", "x", "!", &cursor[1..], &format!("{cursor}A"), &long, "\0"] {
            assert_eq!(Place::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_page_is_bounded() {
        assert_eq!(page("/x"), Ok(Page { limit: 20, after: Place::START }));
        assert_eq!(page("/x?limit=100").map(|page| page.limit), Ok(100));
        for wrong in
            ["/x?limit=0", "/x?limit=101", "/x?limit=-1", "/x?limit=", "/x?limit=1&limit=2", "/x?cursor=x"]
        {
            assert_eq!(page(wrong), Err(422), "{wrong}");
        }
    }

    #[test]
    fn the_entry_too_many_tells_that_there_are_more() {
        let page = Page { limit: 2, after: Place::START };
        let place = |n: &i64| Place { ms: *n, ..Place::START };
        let (mut two, mut three) = (vec![9, 8], vec![9, 8, 7]);
        assert_eq!(page.cut(&mut two, place), None);
        assert_eq!(page.cut(&mut three, place).as_deref().and_then(Place::parse), Some(place(&8)));
        assert_eq!((two, three), (vec![9, 8], vec![9, 8]));
    }
}
