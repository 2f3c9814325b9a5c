//! The schema registry, stored in Postgres. A program stores its writer schemas before it produces with them, so that a
//! reader can fetch the schema of every record.

use schemas::{SchemaId, ShippedSchema, Subject};
use sqlx::PgPool;

/// The ids of the schemas that this program produces with.
#[derive(Clone, Debug)]
pub struct Registry {
    request: SchemaId,
    response: SchemaId,
    event: SchemaId,
}

impl Registry {
    /// Stores the newest schema of each subject, unless it is stored already.
    ///
    /// # Errors
    /// When Postgres fails.
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

/// The definition of a schema by its id; `None` proves that the id was never registered.
///
/// # Errors
/// When Postgres fails. The id may be registered: retry.
pub async fn schema_definition(pool: &PgPool, id: SchemaId) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("select definition from stampede.schemas where schema_id = $1")
        .bind(id.0)
        .fetch_optional(pool)
        .await
}

async fn register(pool: &PgPool, schema: &ShippedSchema) -> Result<SchemaId, sqlx::Error> {
    // Selected first: an insert with a conflict would consume an id at every start.
    let stored = "select schema_id from stampede.schemas where fingerprint = $1";
    let stored = sqlx::query_scalar(stored).bind(schema.fingerprint.as_slice());
    if let Some(id) = stored.fetch_optional(pool).await? {
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
