//! The HTTP server without a backend: the same server and layers, the same verification of the token and reading of the
//! body as for a claim, with the response of an accepted claim.
//!
//! For the benchmark only: it is the upper bound of what accepting claims over HTTP can reach.

use std::io::{self, Read as _};
use std::sync::Arc;
use std::thread;

use axum::Router;
use axum::extract::State;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::post;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use super::middleware::{measure, panic_response, with_common_layers};
use super::with_nodelay;
use crate::api::claims::ClaimRequest;
use crate::auth::Tokens;
use crate::http::body::JsonBody;
use crate::http::problem::Problem;
use crate::requests::context::RequestContext;
use crate::requests::responses::accepted;
use crate::telemetry::metrics::RouteMetrics;

/// As long as a real id.
const REQUEST_ID: &str = "0195f0a4-5b1e-7c3d-8a42-0123456789ab.AAAAAAAAAAAAAAAAAAAAAA";

/// Serves until `stop` is cancelled.
///
/// # Errors
/// Those of the listener.
pub async fn serve(listener: TcpListener, tokens: Tokens, stop: CancellationToken) -> io::Result<()> {
    let served = axum::serve(with_nodelay(listener)?, router(tokens));
    served.with_graceful_shutdown(async move { stop.cancelled().await }).await
}

/// A token that is cancelled when standard input ends: the process does not outlive the one that started it.
///
/// # Errors
/// The thread cannot be started.
pub fn until_input_ends() -> io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let ended = stop.clone();
    let reading = thread::Builder::new().name("input".to_owned()).spawn(move || {
        let mut buffer = [0_u8; 64];
        while io::stdin().read(&mut buffer).is_ok_and(|read| read > 0) {}
        ended.cancel();
    });
    // The thread ends with the input and is never joined.
    drop(reading?);
    Ok(stop)
}

fn router(tokens: Tokens) -> Router {
    let claim = post(claim).layer(from_fn_with_state(RouteMetrics::new("claims"), measure));
    with_common_layers(Router::new().route("/v1/coupons/{coupon_id}/claims", claim))
        .with_state(Arc::new(tokens))
        .fallback(async || Problem::not_found("no such route"))
        .layer(CatchPanicLayer::custom(panic_response))
}

async fn claim(
    State(_): State<Arc<Tokens>>,
    context: RequestContext,
    body: JsonBody,
) -> Result<Response, Problem> {
    let request = ClaimRequest::read(body)?;
    context.caller.acts_for(request.user_id.as_deref())?;
    Ok(accepted(REQUEST_ID))
}
