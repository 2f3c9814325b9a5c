//! `GET /v1/jobs/{job_id}`: how far a long job is.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::accept::json;
use crate::app::App;
use crate::auth::{Caller, Role};
use crate::extract::Named;
use crate::loads::Job;
use crate::problem::{Problem, ProblemBody};

/// A long job.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub(crate) struct JobView {
    job_id: String,
    /// `open`: codes are being made. `sealed`: all that will come are stored, and its owner is told. `applied`:
    /// they are stock and can be claimed. `abandoned`: the maker died before the first code was stored.
    #[schema(example = "applied")]
    state: String,
    /// Codes stored so far; less than `total` in the end if the maker died.
    done: i64,
    /// Codes asked for.
    total: i64,
}

impl JobView {
    pub(crate) fn of(job: &Job) -> Self {
        let abandoned = job.state == "sealed" && job.count == 0;
        let state = if abandoned { "abandoned" } else { &job.state };
        Self { job_id: job.job_id.to_string(), state: state.to_owned(), done: job.count, total: job.wanted }
    }

    fn is_over(&self) -> bool {
        matches!(self.state.as_str(), "applied" | "abandoned")
    }
}

/// How far a job is.
#[utoipa::path(
    get, path = "/v1/jobs/{job_id}", tag = "codes",
    params(("job_id" = String, Path, description = "As it was given out")),
    responses(
        (status = 200, description = "The job (Retry-After while it is not over)", body = JobView),
        (status = 404, description = "There is no such job", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn read(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(job_id): Named,
) -> Result<Response, Problem> {
    caller.require(&[Role::Admin])?;
    let no_job = || Problem::not_found("there is no such job");
    let job_id = Uuid::try_parse(&job_id).map_err(|_| no_job())?;
    let job = app.ask("reading a job", app.loads.job(job_id)).await?;
    let view = JobView::of(&job.ok_or_else(no_job)?);
    let mut response = json(StatusCode::OK, &view);
    if !view.is_over() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Ok(response)
}
