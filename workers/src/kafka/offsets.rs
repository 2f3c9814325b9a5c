//! Offsets of `coupon.requests`: the bounds of its partitions, and the write number that is committed beside the
//! group's offset.

use std::collections::BTreeMap;
use std::time::Duration;

use coupon_core::ids::{Offset, Partition, WriteNo};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use schemas::topics::REQUESTS;

/// The prefix of the committed metadata; the write number follows.
const METADATA_PREFIX: &str = "write_no=";

/// The metadata to commit beside an offset.
#[must_use]
pub(crate) fn metadata_of(write_no: WriteNo) -> String {
    format!("{METADATA_PREFIX}{write_no}")
}

/// The write number in committed metadata; `None` for metadata of another program.
#[must_use]
pub(crate) fn write_no_of(metadata: &str) -> Option<WriteNo> {
    metadata.strip_prefix(METADATA_PREFIX)?.parse().ok().map(WriteNo)
}

/// The first or the next offset of partitions: one request to each leader. A partition for which its leader returns
/// none is missing from the result.
pub(crate) fn bounds<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    partitions: &[Partition],
    which: KafkaOffset,
    timeout: Duration,
) -> KafkaResult<BTreeMap<Partition, Offset>> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition_offset(REQUESTS, partition.0, which)?;
    }
    let list = client.offsets_for_times(list, timeout)?;
    let bounds =
        list.elements().into_iter().filter_map(|element| match (element.error(), element.offset()) {
            (Ok(()), KafkaOffset::Offset(offset)) => Some((Partition(element.partition()), Offset(offset))),
            _ => None,
        });
    Ok(bounds.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_write_number_survives_as_metadata_and_foreign_metadata_is_ignored() {
        assert_eq!(write_no_of(&metadata_of(WriteNo(77))), Some(WriteNo(77)));
        for foreign in ["", "write_no=", "write_no=x", "77"] {
            assert_eq!(write_no_of(foreign), None);
        }
    }
}
