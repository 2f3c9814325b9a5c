//! The texts of all codes, packed: a million of them in a few blocks of memory, one block for each load.

use futures::TryStreamExt as _;
use sqlx::{PgConnection, Row as _};
use xxhash_rust::xxh3::xxh3_64;

use crate::collections::{Map, Set};

/// A bulk load of codes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) id: i64,
    pub(crate) coupon: i64,
    pub(crate) count: i64,
    /// The number before the number of its first code; `None` until it becomes stock.
    pub(crate) base: Option<i64>,
    pub(crate) open: bool,
}

/// The codes of all loads.
#[derive(Debug, Default)]
pub(crate) struct Codes {
    loads: Map<i64, Block>,
    /// The loads of each coupon that became stock, in the order of their bases: (base, count, load).
    applied: Map<i64, Vec<(i64, i64, i64)>>,
    /// Messages about codes whose text (as shown, or normalised) another code has.
    pub(crate) duplicates: Vec<String>,
    /// The number of codes.
    pub(crate) count: usize,
}

/// The codes of one load.
#[derive(Debug, Default)]
struct Block {
    texts: String,
    /// Start and length of the text of code `idx`, at `idx − 1`; length 0 if there is no such code.
    spans: Vec<(u32, u32)>,
    /// Digests of the normalised codes, in the same order.
    keys: Vec<u64>,
    count: i64,
    /// Codes with an `idx` outside `1..=count`, or with that of another code.
    misplaced: i64,
}

impl Codes {
    pub(super) async fn read(connection: &mut PgConnection, loads: &[Load]) -> Result<Self, sqlx::Error> {
        let mut codes = Self::default();
        for load in loads {
            let spans = vec![(0, 0); usize::try_from(load.count).unwrap_or(0)];
            let keys = vec![0; spans.len()];
            codes.loads.insert(load.id, Block { spans, keys, ..Block::default() });
            if let Some(base) = load.base {
                codes.applied.entry(load.coupon).or_default().push((base, load.count, load.id));
            }
        }
        let mut seen: [Set<u64>; 2] = Default::default();
        let mut rows =
            sqlx::query("select load_id, idx, code, code_key from stampede.codes").fetch(connection);
        while let Some(row) = rows.try_next().await? {
            let (code, key): (&str, &str) = (row.try_get(2)?, row.try_get(3)?);
            let digest = xxh3_64(key.as_bytes());
            codes.loads.entry(row.try_get(0)?).or_default().add(row.try_get(1)?, code, digest);
            codes.count += 1;
            if !seen[0].insert(xxh3_64(code.as_bytes())) || !seen[1].insert(digest) {
                codes.duplicates.push(format!("code {code} ({key}) exists more than once"));
            }
        }
        Ok(codes)
    }

    /// The text of a code of a coupon.
    pub(crate) fn text_of(&self, coupon: i64, number: i64) -> Option<&str> {
        let (block, idx) = self.find(coupon, number)?;
        block.text(idx)
    }

    /// Whether a normalised text is that of a code.
    pub(crate) fn is_key_of(&self, coupon: i64, number: i64, key: &str) -> bool {
        let found =
            self.find(coupon, number).and_then(|(block, idx)| block.keys.get(usize::try_from(idx - 1).ok()?));
        found == Some(&xxh3_64(key.as_bytes()))
    }

    fn find(&self, coupon: i64, number: i64) -> Option<(&Block, i64)> {
        let applied = self.applied.get(&coupon)?;
        let index = applied.partition_point(|(base, ..)| *base < number).checked_sub(1)?;
        let (base, count, load) = applied.get(index)?;
        let idx = number - base;
        if idx > *count { None } else { Some((self.loads.get(load)?, idx)) }
    }

    /// The numbers of a coupon's codes, by the digests of their texts.
    pub(crate) fn numbers_of(&self, coupon: i64) -> Map<u64, i64> {
        let applied = self.applied.get(&coupon).into_iter().flatten();
        let numbers =
            applied.flat_map(|(base, count, load)| (1..=*count).map(move |idx| (*load, idx, base + idx)));
        let texts =
            numbers.filter_map(|(load, idx, number)| Some((self.loads.get(&load)?.text(idx)?, number)));
        texts.map(|(text, number)| (xxh3_64(text.as_bytes()), number)).collect()
    }

    /// The numbers of a coupon's codes, by the digests of their normalised texts.
    pub(crate) fn numbers_by_key(&self, coupon: i64) -> Map<u64, i64> {
        let applied = self.applied.get(&coupon).into_iter().flatten();
        let blocks = applied.filter_map(|(base, _, load)| Some((*base, self.loads.get(load)?)));
        blocks.flat_map(|(base, block)| block.keys.iter().copied().zip(base + 1..)).collect()
    }

    /// Whether a load has the codes 1 to `count`, each once, and no other.
    pub(crate) fn is_complete(&self, load: &Load) -> bool {
        self.loads.get(&load.id).is_some_and(|block| block.misplaced == 0 && block.count == load.count)
    }
}

impl Block {
    fn add(&mut self, idx: i64, code: &str, key: u64) {
        let start = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        let at = usize::try_from(idx - 1).unwrap_or(usize::MAX);
        match (self.spans.get_mut(at), self.keys.get_mut(at)) {
            (Some(span), Some(slot)) if span.1 == 0 => {
                *slot = key;
                *span = (start, u32::try_from(code.len()).unwrap_or(0));
                self.texts.push_str(code);
                self.count += 1;
            }
            _ => self.misplaced += 1,
        }
    }

    fn text(&self, idx: i64) -> Option<&str> {
        let (start, length) = *self.spans.get(usize::try_from(idx - 1).ok()?)?;
        let start = start as usize;
        self.texts.get(start..start + length as usize).filter(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_resolved_across_loads_and_a_missing_code_has_no_text() {
        let mut codes = Codes::default();
        for (load, base, texts) in [(7, 0, ["A", "BB"]), (3, 2, ["CCC", ""])] {
            let mut block = Block { spans: vec![(0, 0); 2], keys: vec![0; 2], ..Block::default() };
            texts
                .iter()
                .zip(1..)
                .filter(|(text, _)| !text.is_empty())
                .for_each(|(text, idx)| block.add(idx, text, xxh3_64(text.as_bytes())));
            codes.loads.insert(load, block);
            codes.applied.entry(1).or_default().push((base, 2, load));
        }
        let texts: Vec<_> = (0..6).map(|number| codes.text_of(1, number)).collect();
        assert!(codes.is_key_of(1, 2, "BB") && !codes.is_key_of(1, 2, "A"));
        assert_eq!(texts, [None, Some("A"), Some("BB"), Some("CCC"), None, None]);
        let load = |id| Load { id, coupon: 1, count: 2, base: Some(0), open: false };
        assert!(codes.is_complete(&load(7)) && !codes.is_complete(&load(3)));
    }
}
