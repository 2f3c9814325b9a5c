//! `GET /v1/jobs/{job_id}`: the progress of a job.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::auth::{Caller, Role};
use crate::db::loads::Job;
use crate::http::parameters::PathName;
use crate::http::problem::{Problem, ProblemBody};
use crate::http::responses::json;

/// A job.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub(crate) struct JobView {
    job_id: String,
    /// `open`: codes are being generated. `sealed`: all codes are stored, and are being handed over to the owner of the
    /// coupon. `applied`: they are stock and can be claimed. `abandoned`: there are no codes.
    #[schema(example = "applied")]
    state: String,
    /// Codes stored so far; finally less than `total` if there is a `reason`.
    done: i64,
    /// Codes requested.
    total: i64,
    /// Why there are fewer codes than requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl JobView {
    pub(crate) fn of(job: &Job) -> Self {
        let abandoned = job.state == "sealed" && job.count == 0;
        let state = if abandoned { "abandoned" } else { &job.state };
        let (job_id, reason) = (job.job_id.to_string(), job.reason.clone());
        Self { job_id, state: state.to_owned(), done: job.count, total: job.wanted, reason }
    }

    fn is_finished(&self) -> bool {
        matches!(self.state.as_str(), "applied" | "abandoned")
    }
}

/// Read the progress of a job.
#[utoipa::path(
    get, path = "/v1/jobs/{job_id}", tag = "codes",
    params(("job_id" = String, Path, description = "From the response that started the job")),
    responses(
        (status = 200, description = "The job (Retry-After until it is finished)", body = JobView),
        (status = 404, description = "No such job", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn read(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathName(job_id): PathName,
) -> Result<Response, Problem> {
    caller.require(&[Role::Admin])?;
    let no_job = || Problem::not_found("no such job");
    let job_id = Uuid::try_parse(&job_id).map_err(|_| no_job())?;
    let job = app.query("reading a job", app.loads.store().job(job_id)).await?;
    let view = JobView::of(&job.ok_or_else(no_job)?);
    let mut response = json(StatusCode::OK, &view);
    if !view.is_finished() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Ok(response)
}
