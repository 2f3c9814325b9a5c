//! The front door with nothing behind it: the same server, the same layers, the same check of the token and reading
//! of the body as a claim has, answered at once with what a claim that was accepted is answered with.
//!
//! For the benchmark only, which holds the accepting of claims against it: what this front door can take.

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

use crate::accept::accepted;
use crate::asked::Asked;
use crate::auth::Tokens;
use crate::claims::ClaimRequest;
use crate::extract::JsonBody;
use crate::metrics::Route;
use crate::problem::Problem;
use crate::router::{at_the_door, measure, panicked};
use crate::server::listening;

/// As long as a real one.
const REQUEST_ID: &str = "0195f0a4-5b1e-7c3d-8a42-0123456789ab.AAAAAAAAAAAAAAAAAAAAAA";

/// Serves until `stop`.
///
/// # Errors
/// Whatever the listener reports.
pub async fn serve(listener: TcpListener, tokens: Tokens, stop: CancellationToken) -> io::Result<()> {
    let served = axum::serve(listening(listener)?, router(tokens));
    served.with_graceful_shutdown(async move { stop.cancelled().await }).await
}

/// Cancelled when nobody writes to this process' standard input any more: it does not outlive whoever started it.
///
/// # Errors
/// When no thread can be started.
pub fn until_input_ends() -> io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let ended = stop.clone();
    let reading = thread::Builder::new().name("input".to_owned()).spawn(move || {
        let mut some = [0_u8; 64];
        while io::stdin().read(&mut some).is_ok_and(|read| read > 0) {}
        ended.cancel();
    });
    // It ends with the input; nothing waits for it.
    drop(reading?);
    Ok(stop)
}

fn router(tokens: Tokens) -> Router {
    let claim = post(claim).layer(from_fn_with_state(Route::new("claims"), measure));
    at_the_door(Router::new().route("/v1/coupons/{coupon_id}/claims", claim))
        .with_state(Arc::new(tokens))
        .fallback(async || Problem::not_found("there is nothing here"))
        .layer(CatchPanicLayer::custom(panicked))
}

async fn claim(State(_): State<Arc<Tokens>>, asked: Asked, body: JsonBody) -> Result<Response, Problem> {
    let request = ClaimRequest::read(body)?;
    asked.caller.acts_for(request.user_id.as_deref())?;
    let _key = asked.key()?;
    Ok(accepted(REQUEST_ID))
}
