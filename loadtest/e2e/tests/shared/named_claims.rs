//! Claims of a code by its name, wherever that code lies at the moment.

use futures::future::join_all;
use redis::AsyncCommands as _;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

use crate::support::life::{count, word};
use crate::support::sale::rules;
use crate::support::{Act, Deed, Field, Kind, Sale};

/// Everybody who is left claims any code: all that are left are given, each once, and none of these.
async fn give_the_rest(sale: &Sale<'_>, taken: &[&str], left: u64) {
    let users: Vec<String> = (0..left).map(|n| format!("rest-{n}")).collect();
    let given = join_all(users.iter().map(|user| sale.claim(user))).await;
    let distinct: BTreeSet<&str> = given.iter().map(String::as_str).collect();
    assert_eq!(distinct.len() as u64, left, "{given:?}");
    assert!(taken.iter().all(|code| !distinct.contains(code)), "{taken:?} among {given:?}");
    let one_more = sale.field.see_through(Act::of("late", Deed::Claim(sale.coupon))).await;
    assert_eq!(word(&one_more), "sold_out", "{one_more}");
}

#[tokio::test]
async fn a_named_code_far_above_the_cursor_is_had_before_anybody_claimed_anything() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(40, rules(&json!({}))).await;
    let sale = Sale::of(&field, &coupon);
    let (last, second) = (sale.code(40).await, sale.code(2).await);
    for code in [&last, &second] {
        let claimed = field.accepted("ann", Deed::ClaimNamed(&coupon, code)).await;
        assert_eq!(claimed["code"], **code);
        assert_eq!(field.rejected("bob", Deed::ClaimNamed(&coupon, code)).await, "code_taken");
    }
    give_the_rest(&sale, &[&last, &second], 38).await;
    field.leave().await;
}

#[tokio::test]
async fn a_named_code_in_the_redis_window_is_given_to_nobody_who_claims_any() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(120, rules(&json!({}))).await;
    let sale = Sale::of(&field, &coupon);
    // Enough claims for the window to be filled; what follows lies in it.
    let users: Vec<String> = (0..30).map(|n| format!("user-{n}")).collect();
    join_all(users.iter().map(|user| sale.claim(user))).await;
    let mut redis = field.redis().await;
    let mut window = Vec::new();
    for list in sale.lists(&mut redis).await {
        window.extend(redis.lrange::<_, Vec<String>>(list, 0, -1).await.unwrap());
    }
    let listed = |at: usize| window[at].split('|').nth(1).map(str::to_owned).unwrap();
    let wanted = [listed(0), listed(1), listed(window.len() / 2), listed(window.len() - 1)];
    for code in &wanted {
        let claimed = field.accepted("ann", Deed::ClaimNamed(&coupon, code)).await;
        assert_eq!(claimed["code"], **code);
    }
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    give_the_rest(&sale, &wanted, 86).await;
    field.leave().await;
}

#[tokio::test]
async fn a_named_code_in_the_owners_hand_is_given_once() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(60, json!({"limits": {"claims_per_user": 1}})).await;
    let sale = Sale::of(&field, &coupon);
    // The owner takes more than one in hand, and for each of these there is one, and none is given.
    sale.claim("ann").await;
    let greedy =
        join_all((0..20).map(|n| field.see_through(Act::of("ann", Deed::Claim(&coupon)).at(n % 2)))).await;
    assert_eq!(count(&greedy, "user_limit_reached"), 20, "{greedy:?}");
    let (next, third) = (sale.code(2).await, sale.code(4).await);
    for (user, code) in [("bob", &next), ("carl", &third)] {
        let claimed = field.accepted(user, Deed::ClaimNamed(&coupon, code)).await;
        assert_eq!(claimed["code"], **code);
    }
    give_the_rest(&sale, &[&next, &third], 57).await;
    field.leave().await;
}

#[tokio::test]
async fn a_named_code_that_was_given_back_is_had_by_name_and_by_nobody_else() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(6, rules(&json!({}))).await;
    let sale = Sale::of(&field, &coupon);
    let mut codes = Vec::new();
    for _ in 0..4 {
        codes.push(sale.claim("ann").await);
    }
    for code in [&codes[0], &codes[2]] {
        field.accepted("ann", Deed::Return(code)).await;
    }
    let claimed = field.accepted("bob", Deed::ClaimNamed(&coupon, &codes[2])).await;
    assert_eq!(claimed["code"], codes[2]);
    // What came back is given first.
    assert_eq!(sale.claim("carl").await, codes[0]);
    give_the_rest(&sale, &codes.iter().map(String::as_str).collect::<Vec<_>>(), 2).await;
    field.leave().await;
}

#[tokio::test]
async fn code_unknown_is_told_of_a_code_of_another_coupon_and_it_stays_where_it_is() {
    let field = Field::enter(Kind::Calm).await;
    let (one, other) = (field.stocked(1, rules(&json!({}))).await, field.stocked(1, rules(&json!({}))).await);
    let (own, foreign) = (Sale::of(&field, &one).code(1).await, Sale::of(&field, &other).code(1).await);
    assert_eq!(field.rejected("ann", Deed::ClaimNamed(&one, &foreign)).await, "code_unknown");
    assert_eq!(field.rejected("ann", Deed::ClaimNamed(&other, &own)).await, "code_unknown");
    field.accepted("ann", Deed::ClaimNamed(&other, &foreign)).await;
    assert_eq!(
        field.rejected("bob", Deed::ClaimNamed(&one, &foreign)).await,
        "code_unknown",
        "not even that it is taken"
    );
    assert_eq!(Sale::of(&field, &one).counts().await, [1, 0, 0, 0, 0]);
    field.leave().await;
}

#[tokio::test]
async fn code_unknown_is_told_of_a_code_of_a_load_that_is_not_applied_until_it_is() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(2, rules(&json!({}))).await;
    let sale = Sale::of(&field, &coupon);
    // A load as its maker leaves it while it is filling it.
    let mut postgres = field.postgres().await;
    let code = format!("EARTHY{:08}", std::process::id());
    let load: i64 = sqlx::query_scalar(
        "insert into stampede.loads (job_id, coupon_no, state, wanted, count, maker, lease_until)
         select gen_random_uuid(), coupon_no, 'open', 1, 1, gen_random_uuid(), now() + interval '1 hour'
           from stampede.coupons where coupon_id = $1 returning load_id",
    )
    .bind(&coupon)
    .fetch_one(&mut postgres)
    .await
    .unwrap();
    let insert = "insert into stampede.codes (load_id, idx, code, code_key) values ($1, 1, $2, $2)";
    sqlx::query(insert).bind(load).bind(&code).execute(&mut postgres).await.unwrap();
    for deed in [Deed::ClaimNamed(&coupon, &code), Deed::Lock(&code), Deed::Redeem(&code, "order-1")] {
        assert_eq!(field.rejected("ann", deed).await, "code_unknown", "{deed:?}");
    }
    assert_eq!(sale.validation("ann", &code).await, "code_unknown");
    // Its maker dies: what is there is sealed, announced, and becomes stock.
    let seal = "update stampede.loads set lease_until = now() - interval '1 second' where load_id = $1";
    sqlx::query(seal).bind(load).execute(&mut postgres).await.unwrap();
    sale.until([3, 0, 0, 0, 0]).await;
    let claimed = field.accepted("ann", Deed::ClaimNamed(&coupon, &code)).await;
    assert_eq!(claimed["code"], code);
    // At the instance that was asked too early: it remembers of no code that it is unknown.
    field.accepted("ann", Deed::Redeem(&code, "order-1")).await;
    field.leave().await;
}

#[tokio::test]
async fn code_taken_is_told_to_everybody_while_somebody_has_it_the_owner_included() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(2, rules(&json!({}))).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.claim("ann").await;
    let expect_taken = async || {
        for user in ["ann", "bob"] {
            assert_eq!(field.rejected(user, Deed::ClaimNamed(&coupon, &code)).await, "code_taken", "{user}");
        }
    };
    expect_taken().await;
    field.accepted("ann", Deed::Lock(&code)).await;
    expect_taken().await;
    field.accepted("ann", Deed::Redeem(&code, "order-1")).await;
    expect_taken().await;
    assert_eq!(sale.counts().await, [1, 0, 0, 1, 0]);
    field.leave().await;
}

#[tokio::test]
async fn user_limit_reached_is_told_of_a_named_claim_after_everything_else() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(3, json!({"limits": {"claims_per_user": 1}})).await;
    let sale = Sale::of(&field, &coupon);
    let (free, taken) = (sale.code(3).await, sale.claim("bob").await);
    sale.claim("ann").await;
    assert_eq!(field.rejected("ann", Deed::ClaimNamed(&coupon, &taken)).await, "code_taken");
    assert_eq!(field.rejected("ann", Deed::ClaimNamed(&coupon, "NEVERMADE")).await, "code_unknown");
    assert_eq!(field.rejected("ann", Deed::ClaimNamed(&coupon, &free)).await, "user_limit_reached");
    field.accepted("carl", Deed::ClaimNamed(&coupon, &free)).await;
    field.leave().await;
}

#[tokio::test]
async fn a_hundred_users_who_name_one_code_at_once_are_one_winner_and_ninety_nine_losers() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(3, rules(&json!({}))).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.code(2).await;
    let users: Vec<String> = (0..100).map(|n| format!("user-{n}")).collect();
    let asks = users.iter().enumerate();
    let asks =
        asks.map(|(n, user)| field.see_through(Act::of(user, Deed::ClaimNamed(&coupon, &code)).at(n % 2)));
    let told = join_all(asks).await;
    assert_eq!((count(&told, "accepted"), count(&told, "code_taken")), (1, 99), "{told:?}");
    assert_eq!(sale.counts().await, [2, 1, 0, 0, 0]);
    field.leave().await;
}

#[tokio::test]
async fn named_claims_any_claims_and_returns_at_once_give_every_code_to_one_user() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(60, rules(&json!({}))).await;
    let sale = Sale::of(&field, &coupon);
    let mut codes = Vec::new();
    for number in 1..=60 {
        codes.push(sale.code(number).await);
    }
    let users: Vec<String> = (0..120).map(|n| format!("user-{n}")).collect();
    let each = async |n: usize, user: &str| -> Option<Value> {
        let deed = if n.is_multiple_of(3) {
            Deed::Claim(&coupon)
        } else {
            Deed::ClaimNamed(&coupon, &codes[n % 60])
        };
        let outcome = field.see_through(Act::of(user, deed).at(n % 2)).await;
        let won = word(&outcome) == "accepted";
        if won && n.is_multiple_of(5) {
            let code = outcome["code"].as_str().unwrap_or_default().to_owned();
            let returned = field.see_through(Act::of(user, Deed::Return(&code)).at((n + 1) % 2)).await;
            assert_eq!(word(&returned), "accepted", "{returned}");
            return None;
        }
        won.then_some(outcome)
    };
    let won: Vec<Value> = join_all(users.iter().enumerate().map(|(n, user)| each(n, user)))
        .await
        .into_iter()
        .flatten()
        .collect();
    let mut holders: BTreeMap<&str, usize> = BTreeMap::new();
    for outcome in &won {
        *holders.entry(outcome["code"].as_str().unwrap_or_default()).or_default() += 1;
    }
    assert!(holders.values().all(|count| *count == 1), "{holders:?}");
    let [available, claimed, ..] = sale.counts().await;
    assert_eq!((available + claimed, claimed), (60, won.len() as u64));
    field.leave().await;
}
