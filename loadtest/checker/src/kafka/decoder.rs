//! Decodes records with the schemas that are registered in Postgres.

use schemas::{Decoder, Message, SchemaId};

use crate::postgres::RegisteredSchema;

/// A decoder that has every registered schema.
pub(crate) fn decoder<T: Message>(registered: &[RegisteredSchema]) -> Decoder<T> {
    let newest = T::SUBJECT.newest();
    let own = registered.iter().find(|schema| schema.fingerprint == newest.fingerprint);
    let decoder = Decoder::new(SchemaId(own.map_or(-1, |schema| schema.id)));
    for schema in registered {
        // A schema of another subject is rejected. No record of this topic is written with it.
        decoder.add_schema(SchemaId(schema.id), &schema.definition).ok();
    }
    decoder
}
