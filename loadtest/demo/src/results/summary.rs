//! How to go on with a stack that stays up: addresses, tokens, and commands to paste.

use std::fmt::Write as _;

use load_support::tokens::Tokens;
use local_stack::Stack;

use crate::error::SaleError;

/// The coupons that the commands name.
pub struct Coupons<'a> {
    /// The coupon of the sale.
    pub sold: &'a str,
    /// A coupon with codes in stock, for trying by hand.
    pub open: &'a str,
    /// An id for a new coupon.
    pub new: &'a str,
}

/// URLs, tokens and curl commands.
///
/// # Errors
/// When a token cannot be signed.
pub fn write(stack: &Stack, tokens: &Tokens, coupons: &Coupons<'_>) -> Result<String, SaleError> {
    let endpoints = stack.endpoints();
    let api = endpoints.apis.first().cloned().unwrap_or_default();
    let (admin, user) = (tokens.issue("admin", "admin")?, tokens.issue("ann", "user")?);
    let shop = tokens.issue("shop", "service")?;
    let mut out = String::new();
    let mut line = |text: &str| _ = writeln!(out, "{text}");
    let mut address = |name: &str, url: &str| line(&format!("  {name:<11} {url}"));
    address("API", &api);
    address("OpenAPI", &format!("{api}/openapi.json"));
    for (n, url) in endpoints.api_probes.iter().enumerate() {
        address(&format!("api-{n}"), &format!("{url}/metrics  /readyz  /healthz"));
    }
    for (n, url) in endpoints.worker_probes.iter().enumerate() {
        address(&format!("worker-{n}"), &format!("{url}/metrics  /readyz  /healthz"));
    }
    address("Kafka", &endpoints.kafka);
    address("Postgres", &endpoints.postgres_url);
    address("Redis", &endpoints.redis_url);
    address("data, logs", &stack.data_dir().display().to_string());
    line(&format!(
        "\nCheck every invariant, at any time:\n  {} verify --data-dir '{}'",
        std::env::current_exe().unwrap_or_else(|_| "demo".into()).display(),
        stack.data_dir().display()
    ));
    line(
        "\nPaste this first: the API, and tokens of an admin, of the user ann, and of a shop, valid for a day.\n",
    );
    line(&format!("API={api}\nADMIN='Authorization: Bearer {admin}'"));
    line(&format!("ANN='Authorization: Bearer {user}'\nSHOP='Authorization: Bearer {shop}'"));
    line("JSON='Content-Type: application/json'");
    line(&commands(coupons));
    line("The stack stays up until Ctrl-C.");
    Ok(out)
}

fn commands(Coupons { sold, open, new }: &Coupons<'_>) -> String {
    format!(
        r#"
# ann claims a code and waits for the outcome; sent again, it is the same request with the same outcome
claim() {{ curl -sw '\n' "$API/v1/coupons/{open}/claims?wait=5" -H "$ANN" -H "$JSON" -H 'Idempotency-Key: one' -d '{{}}'; }}
claim; CODE=$(claim | sed 's/.*"code":"\([^"]*\)".*/\1/')

# the discount; then ann locks the code for a checkout, and pays
curl -sw '\n' "$API/v1/codes/$CODE/validation?order_amount=59.90&currency=EUR" -H "$ANN"
curl -sw '\n' "$API/v1/codes/$CODE/lock?wait=5" -H "$ANN" -H "$JSON" -d '{{"order_id": "o-1"}}'
pay() {{ curl -sw '\n' "$API/v1/codes/$CODE/redemptions?wait=5" -H "$ANN" -H "$JSON" -H 'Idempotency-Key: pay-1' \
  -d '{{"order_id": "o-1", "order_amount": "59.90", "currency": "EUR"}}'; }}
pay; REDEMPTION=$(pay | sed 's/.*"redemption_id":"\([^"]*\)".*/\1/')

# the order is cancelled: the shop rolls it back, ann has the code again, and returns it
curl -sw '\n' -X DELETE "$API/v1/redemptions/$REDEMPTION?wait=5" -H "$SHOP"
curl -sw '\n' -X DELETE "$API/v1/codes/$CODE/claim?wait=5" -H "$ANN"

# ann's codes, and ann's requests with their outcomes
curl -sw '\n' $API/v1/users/me/codes -H "$ANN"
curl -sw '\n' $API/v1/users/me/requests -H "$ANN"

# counters of the sale, and of the coupon above
curl -sw '\n' $API/v1/coupons/{sold} -H "$ADMIN"
curl -sw '\n' $API/v1/coupons/{open} -H "$ADMIN"

# a coupon of your own with ten codes; deploy/docs/tutorial.md shows more
curl -sw '\n' $API/v1/coupons -H "$ADMIN" -H "$JSON" \
  -d '{{"id": "{new}", "name": "My own", "discount": {{"type": "PERCENTAGE", "value": "10.00"}}}}'
curl -sw '\n' $API/v1/coupons/{new}/codes/generate -H "$ADMIN" -H "$JSON" -d '{{"count": 10}}'
"#
    )
}
