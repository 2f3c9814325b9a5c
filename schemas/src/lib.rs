//! The contract of Stampede's topics: what is in a record, how it is written, and where it goes. No I/O.
//!
//! Guarantees:
//! - a value that [`Encoder`] wrote, every [`Decoder`] of this or another version of the contract reads;
//! - no input, however hostile, makes [`Decoder::decode`] panic or allocate more than the input is long;
//! - the same key goes to the same partition as with Java's clients.
//!
//! Reading order:
//! 1. [`topics`] and `topics.yaml`: the topics, their keys, retention, who writes and who reads.
//! 2. `avro/*.avsc`, one file a version, and [`message`]: the records themselves. [`kinds`], [`status`]: their words.
//! 3. [`registry`]: subjects, versions, fingerprints; what a program registers before it writes.
//! 4. [`codec`]: framing and the way between bytes and messages. [`flat`]: the datum inside.
//! 5. [`partition`]: which partition a key belongs to.

pub mod codec;
pub mod flat;
pub mod message;
pub mod partition;
pub mod registry;
pub mod topics;
pub mod words;

pub use codec::{DecodeError, Decoder, EncodeError, Encoder, MAX_VALUE_BYTES, SchemaId};
pub use message::{CouponEvent, CouponRequest, CouponResponse, Message};
pub use partition::{murmur2, partition_for, partition_of_responses};
pub use registry::{OwnSchema, SchemaError, Subject, fingerprint, own, versions};
pub use words::{kinds, status};
