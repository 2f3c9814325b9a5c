//! What to do with a stack that stays up: where everything is, tokens, and commands that work when pasted.

use std::fmt::Write as _;

use local_stack::Stack;

use super::SaleError;
use load_support::tokens::Tokens;

/// The coupons that the commands name.
pub struct Coupons<'a> {
    /// The one that was just sold.
    pub sold: &'a str,
    /// One that has codes left for trying by hand.
    pub open: &'a str,
    /// A name for a new one.
    pub new: &'a str,
}

/// URLs, tokens and curl commands.
///
/// # Errors
/// When a token cannot be made.
pub fn write(stack: &Stack, tokens: &Tokens, coupons: &Coupons<'_>) -> Result<String, SaleError> {
    let endpoints = stack.endpoints();
    let api = endpoints.apis.first().cloned().unwrap_or_default();
    let (admin, user) = (tokens.issue("admin", "admin")?, tokens.issue("ann", "user")?);
    let shop = tokens.issue("shop", "service")?;
    let mut out = String::new();
    let mut line = |text: &str| _ = writeln!(out, "{text}");
    let mut place = |name: &str, url: &str| line(&format!("  {name:<11} {url}"));
    place("API", &api);
    place("OpenAPI", &format!("{api}/openapi.json"));
    for (n, url) in endpoints.api_probes.iter().enumerate() {
        place(&format!("api-{n}"), &format!("{url}/metrics  /readyz  /healthz"));
    }
    for (n, url) in endpoints.worker_probes.iter().enumerate() {
        place(&format!("worker-{n}"), &format!("{url}/metrics  /readyz  /healthz"));
    }
    place("Kafka", &endpoints.kafka);
    place("Postgres", &endpoints.postgres_url);
    place("Redis", &endpoints.redis_url);
    place("data, logs", &stack.data_dir().display().to_string());
    line(&format!(
        "\nEvery invariant, checked from outside, now or in mid-sale:\n  {} verify --data-dir '{}'",
        std::env::current_exe().unwrap_or_else(|_| "loadtest".into()).display(),
        stack.data_dir().display()
    ));
    line(
        "\nPaste this first: the API, and tokens of an admin, of the user ann, and of a shop, good for a day.\n",
    );
    line(&format!("API={api}\nADMIN='Authorization: Bearer {admin}'"));
    line(&format!("ANN='Authorization: Bearer {user}'\nSHOP='Authorization: Bearer {shop}'"));
    line("JSON='Content-Type: application/json'");
    line(&commands(coupons));
    line("Everything stays up until Ctrl-C.");
    Ok(out)
}

fn commands(Coupons { sold, open, new }: &Coupons<'_>) -> String {
    format!(
        r#"
# ann claims a code and waits for the outcome; sent again, it is the same request and the same code
claim() {{ curl -sw '\n' "$API/v1/coupons/{open}/claims?wait=5" -H "$ANN" -H "$JSON" -H 'Idempotency-Key: one' -d '{{}}'; }}
claim; CODE=$(claim | sed 's/.*"code":"\([^"]*\)".*/\1/')

# what it would take off; then ann locks it for a checkout, and pays
curl -sw '\n' "$API/v1/codes/$CODE/validation?order_amount=59.90&currency=EUR" -H "$ANN"
curl -sw '\n' "$API/v1/codes/$CODE/lock?wait=5" -H "$ANN" -H "$JSON" -d '{{"order_id": "o-1"}}'
pay() {{ curl -sw '\n' "$API/v1/codes/$CODE/redemptions?wait=5" -H "$ANN" -H "$JSON" -H 'Idempotency-Key: pay-1' \
  -d '{{"order_id": "o-1", "order_amount": "59.90", "currency": "EUR"}}'; }}
pay; REDEMPTION=$(pay | sed 's/.*"redemption_id":"\([^"]*\)".*/\1/')

# the order is cancelled: the shop rolls it back, ann has the code again, and gives it back
curl -sw '\n' -X DELETE "$API/v1/redemptions/$REDEMPTION?wait=5" -H "$SHOP"
curl -sw '\n' -X DELETE "$API/v1/codes/$CODE/claim?wait=5" -H "$ANN"

# what ann has, and everything that ann has asked for
curl -sw '\n' $API/v1/users/me/codes -H "$ANN"
curl -sw '\n' $API/v1/users/me/requests -H "$ANN"

# counters of the sale that just ended, and of the coupon above
curl -sw '\n' $API/v1/coupons/{sold} -H "$ADMIN"
curl -sw '\n' $API/v1/coupons/{open} -H "$ADMIN"

# a coupon of your own, with ten codes; README.md tells what else can be done with them
curl -sw '\n' $API/v1/coupons -H "$ADMIN" -H "$JSON" \
  -d '{{"id": "{new}", "name": "My own", "discount": {{"type": "PERCENTAGE", "value": "10.00"}}}}'
curl -sw '\n' $API/v1/coupons/{new}/codes/generate -H "$ADMIN" -H "$JSON" -d '{{"count": 10}}'
"#
    )
}
