//! The contract of Stampede's topics: the records, their encoding, and their partitions. No I/O.
//!
//! Guarantees:
//! - every [`Decoder`] of this or another version of the contract reads what [`Encoder`] has written;
//! - [`Decoder::decode`] never panics, and allocates no more than the length of its input;
//! - a key has the same partition as with the Java client.
//!
//! Reading order:
//! 1. [`topics`] and `topics.yaml`: the topics, their keys, retention, producers and consumers.
//! 2. `avro/*.avsc`, one file per version, and [`message`]: the records. [`kinds`], [`status`]: values of their fields.
//! 3. [`subject`], [`registry`]: subjects, versions, fingerprints; what a program registers before it produces.
//! 4. [`codec`]: encodes and decodes framed messages. [`flat`]: the datum inside the frame.
//! 5. [`partition`]: the partition of a key.

pub mod codec;
pub mod constants;
pub mod flat;
pub mod message;
pub mod partition;
pub mod registry;
pub mod subject;
pub mod topics;

pub use codec::{DecodeError, Decoder, EncodeError, Encoder, MAX_VALUE_BYTES, SchemaId};
pub use constants::{kinds, status};
pub use message::{CouponEvent, CouponRequest, CouponResponse, Message};
pub use partition::{murmur2, partition_for, response_partition};
pub use registry::{SchemaError, ShippedSchema, fingerprint, newest_schemas, versions};
pub use subject::Subject;
