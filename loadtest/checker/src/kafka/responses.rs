//! `coupon.responses`.

use coupon_core::ids::RequestId;
use rdkafka::message::Message as _;
use schemas::topics::RESPONSES;
use schemas::{CouponResponse, Decoder};

use super::topics::{Kafka, OffsetRanges, TopicReadError};
use crate::outcome::describe_response;

/// One response event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResponseEvent<'a> {
    /// Its request; `None` if the event cannot be decoded.
    pub(crate) id: Option<RequestId>,
    pub(crate) digest: u64,
    /// Its outcome, or why it cannot be decoded.
    pub(crate) text: &'a str,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// Whether its key is its user.
    pub(crate) keyed_by_user: bool,
}

/// Passes every response event to `each`.
pub(crate) fn read_responses(
    kafka: &Kafka,
    ranges: &OffsetRanges,
    decoder: &Decoder<CouponResponse>,
    mut each: impl FnMut(ResponseEvent<'_>),
) -> Result<(), TopicReadError> {
    let mut text = String::new();
    kafka.read(RESPONSES, ranges, |record| {
        let (partition, offset) = (record.partition(), record.offset());
        let (id, digest, keyed_by_user) = match decoder.decode(record.payload().unwrap_or_default()) {
            Ok(response) => {
                let is_keyed = record.key() == Some(response.user_id.as_bytes());
                let id = RequestId::parse(&response.request_id).ok();
                (id, describe_response(&response, &mut text), is_keyed)
            }
            Err(error) => {
                text = error.to_string();
                (None, 0, false)
            }
        };
        each(ResponseEvent { id, digest, text: &text, partition, offset, keyed_by_user });
    })
}
