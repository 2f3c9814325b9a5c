//! What to do with a stack that stays up: where everything is, tokens, and commands that work when pasted.

use std::fmt::Write as _;

use local_stack::Stack;

use super::SaleError;
use crate::tokens::Tokens;

/// URLs, tokens and curl commands. `tag` makes the new coupon's name unique.
///
/// # Errors
/// When a token cannot be made.
pub fn write(stack: &Stack, tokens: &Tokens, sale: &str, tag: &str) -> Result<String, SaleError> {
    let endpoints = stack.endpoints();
    let api = endpoints.apis.first().cloned().unwrap_or_default();
    let (admin, user) = (tokens.issue("admin", "admin")?, tokens.issue("ann", "user")?);
    let mut out = String::new();
    let mut line = |text: &str| _ = writeln!(out, "{text}");
    line("Everything stays up until Ctrl-C.\n");
    for (name, url) in [("API", &api), ("OpenAPI", &format!("{api}/openapi.json"))] {
        line(&format!("  {name:<10}{url}"));
    }
    let probes = endpoints.api_probes.iter().zip(0..).map(|(url, n)| (format!("api-{n}"), url));
    let workers = endpoints.worker_probes.iter().zip(0..).map(|(url, n)| (format!("worker-{n}"), url));
    for (name, url) in probes.chain(workers) {
        line(&format!("  {name:<10}{url}/metrics  /readyz  /healthz"));
    }
    for (name, url) in
        [("Kafka", &endpoints.kafka), ("Postgres", &endpoints.postgres_url), ("Redis", &endpoints.redis_url)]
    {
        line(&format!("  {name:<10}{url}"));
    }
    line(&format!("  {:<10}{}", "data, logs", stack.data_dir().display()));
    line("\nTokens (an admin's, and that of the user ann), good for a day:\n");
    line(&format!("  ADMIN={admin}"));
    line(&format!("  ANN={user}"));
    line("\nThe sale that just ended, then a claim from start to outcome (paste the tokens first):\n");
    line(&format!("  curl -s {api}/v1/coupons/{sale} -H \"Authorization: Bearer $ADMIN\""));
    line(&commands(&api, &format!("try-{tag}")));
    Ok(out)
}

fn commands(api: &str, coupon: &str) -> String {
    format!(
        r#"
  curl -s {api}/v1/coupons -H "Authorization: Bearer $ADMIN" -H 'Content-Type: application/json' \
    -d '{{"id": "{coupon}", "name": "Try it", "discount": {{"type": "PERCENTAGE", "value": "10.00"}}, "limits": {{"claims_per_user": 1}}}}'
  curl -s {api}/v1/coupons/{coupon}/codes/generate -H "Authorization: Bearer $ADMIN" -H 'Content-Type: application/json' \
    -d '{{"count": 10}}'
  curl -s '{api}/v1/coupons/{coupon}/claims?wait=5' -H "Authorization: Bearer $ANN" -H 'Content-Type: application/json' \
    -H 'Idempotency-Key: first-try' -d '{{}}'
  curl -s {api}/v1/requests/REQUEST_ID -H "Authorization: Bearer $ANN"      # the request_id of that answer
"#
    )
}
