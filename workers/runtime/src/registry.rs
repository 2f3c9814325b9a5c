//! The schema registry, kept in Postgres: a program stores the schemas it writes with before it writes with them, so
//! a reader can always fetch the schema of a record that it has.

use schemas::{OwnSchema, SchemaId, Subject};
use sqlx::PgPool;

/// The ids of the schemas that this program writes with.
#[derive(Clone, Debug)]
pub struct Registry {
    request: SchemaId,
    response: SchemaId,
    event: SchemaId,
}

impl Registry {
    /// Stores what this program writes with, unless it is stored already.
    ///
    /// # Errors
    /// Whatever Postgres reports.
    pub async fn register(pool: &PgPool) -> Result<Self, sqlx::Error> {
        Ok(Self {
            request: register(pool, Subject::Request.newest()).await?,
            response: register(pool, Subject::Response.newest()).await?,
            event: register(pool, Subject::Event.newest()).await?,
        })
    }

    /// The id of the newest schema of a subject.
    #[must_use]
    pub const fn id_of(&self, subject: Subject) -> SchemaId {
        match subject {
            Subject::Request => self.request,
            Subject::Response => self.response,
            Subject::Event => self.event,
        }
    }
}

/// A schema by its id; `None` is the proof that nobody ever registered it.
///
/// # Errors
/// Whatever Postgres reports: then nothing is known, ask again.
pub async fn definition_of(pool: &PgPool, id: SchemaId) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("select definition from stampede.schemas where schema_id = $1")
        .bind(id.0)
        .fetch_optional(pool)
        .await
}

async fn register(pool: &PgPool, schema: &OwnSchema) -> Result<SchemaId, sqlx::Error> {
    // Looked up first: an insert that conflicts would use up an id at every start.
    let known = "select schema_id from stampede.schemas where fingerprint = $1";
    let known = sqlx::query_scalar(known).bind(schema.fingerprint.as_slice());
    if let Some(id) = known.fetch_optional(pool).await? {
        return Ok(SchemaId(id));
    }
    let insert = "insert into stampede.schemas (subject, fingerprint, definition) values ($1, $2, $3)
        on conflict (fingerprint) do update set subject = stampede.schemas.subject returning schema_id";
    let id = sqlx::query_scalar(insert)
        .bind(schema.subject.name())
        .bind(schema.fingerprint.as_slice())
        .bind(schema.definition)
        .fetch_one(pool)
        .await?;
    Ok(SchemaId(id))
}
