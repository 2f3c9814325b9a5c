//! Claims of one named code, wherever the owner has it: ahead of the cursor, in the list in Redis, in its read-ahead
//! buffer, or returned.

use futures::future::join_all;
use redis::AsyncCommands as _;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

use e2e::coupon::rules;
use e2e::outcome::{count, result_of};
use e2e::{Coupon, Environment, Operation, Request, orders};

/// Claims every code that is left: each is given once, and none of them is among `taken`.
async fn claim_the_rest(env: &Environment, coupon: &Coupon<'_>, taken: &[&str], left: u64) {
    let users: Vec<String> = (0..left).map(|n| format!("rest-{n}")).collect();
    let given = join_all(users.iter().map(|user| coupon.claim(user))).await;
    let distinct: BTreeSet<&str> = given.iter().map(String::as_str).collect();
    assert_eq!(distinct.len() as u64, left, "{given:?}");
    assert!(taken.iter().all(|code| !distinct.contains(code)), "{taken:?} among {given:?}");
    let one_more = env.decide(Request::claim("late", &coupon.id)).await;
    assert_eq!(result_of(&one_more), "sold_out", "{one_more}");
}

async fn a_named_code_far_above_the_cursor_is_claimed_before_any_other_code(env: &Environment) {
    let coupon = env.stocked(40, rules(&json!({}))).await;
    let (last, second) = (coupon.code(40).await, coupon.code(2).await);
    for code in [&last, &second] {
        let claimed = env.accepted("ann", Operation::claim_code(&coupon.id, code)).await;
        assert_eq!(claimed["code"], **code);
        assert_eq!(env.rejected("bob", Operation::claim_code(&coupon.id, code)).await, "code_taken");
    }
    claim_the_rest(env, &coupon, &[&last, &second], 38).await;
}

async fn a_named_code_in_the_list_in_redis_is_not_given_to_another_claim(env: &Environment) {
    let coupon = env.stocked(120, rules(&json!({}))).await;
    // Enough claims for a list to be filled in Redis.
    let users: Vec<String> = (0..30).map(|n| format!("user-{n}")).collect();
    join_all(users.iter().map(|user| coupon.claim(user))).await;
    let mut redis = env.redis().await;
    let mut entries = Vec::new();
    for list in coupon.lists(&mut redis).await {
        entries.extend(redis.lrange::<_, Vec<String>>(list, 0, -1).await.unwrap());
    }
    let listed = |at: usize| entries[at].split('|').nth(1).map(str::to_owned).unwrap();
    let wanted = [listed(0), listed(1), listed(entries.len() / 2), listed(entries.len() - 1)];
    for code in &wanted {
        let claimed = env.accepted("ann", Operation::claim_code(&coupon.id, code)).await;
        assert_eq!(claimed["code"], **code);
    }
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    claim_the_rest(env, &coupon, &wanted, 86).await;
}

async fn a_named_code_in_the_read_ahead_buffer_of_the_owner_is_given_once(env: &Environment) {
    let coupon = env.stocked(60, json!({"limits": {"claims_per_user": 1}})).await;
    // The owner reads ahead codes for these claims, and all of them are rejected.
    coupon.claim("ann").await;
    let rejected =
        join_all((0..20).map(|n| env.decide(Request::new("ann", Operation::claim(&coupon.id)).at(n % 2))))
            .await;
    assert_eq!(count(&rejected, "user_limit_reached"), 20, "{rejected:?}");
    let (next, third) = (coupon.code(2).await, coupon.code(4).await);
    for (user, code) in [("bob", &next), ("carl", &third)] {
        let claimed = env.accepted(user, Operation::claim_code(&coupon.id, code)).await;
        assert_eq!(claimed["code"], **code);
    }
    claim_the_rest(env, &coupon, &[&next, &third], 57).await;
}

async fn a_named_code_that_was_returned_is_given_to_the_claim_that_names_it(env: &Environment) {
    let coupon = env.stocked(6, rules(&json!({}))).await;
    let mut codes = Vec::new();
    for _ in 0..4 {
        codes.push(coupon.claim("ann").await);
    }
    for code in [&codes[0], &codes[2]] {
        env.accepted("ann", Operation::return_code(code)).await;
    }
    let claimed = env.accepted("bob", Operation::claim_code(&coupon.id, &codes[2])).await;
    assert_eq!(claimed["code"], codes[2]);
    // Returned codes are given first.
    assert_eq!(coupon.claim("carl").await, codes[0]);
    claim_the_rest(env, &coupon, &codes.iter().map(String::as_str).collect::<Vec<_>>(), 2).await;
}

async fn code_unknown_rejects_a_code_of_another_coupon_which_stays_available(env: &Environment) {
    let (one, other) = (env.stocked(1, rules(&json!({}))).await, env.stocked(1, rules(&json!({}))).await);
    let (own, foreign) = (one.code(1).await, other.code(1).await);
    assert_eq!(env.rejected("ann", Operation::claim_code(&one.id, &foreign)).await, "code_unknown");
    assert_eq!(env.rejected("ann", Operation::claim_code(&other.id, &own)).await, "code_unknown");
    env.accepted("ann", Operation::claim_code(&other.id, &foreign)).await;
    assert_eq!(
        env.rejected("bob", Operation::claim_code(&one.id, &foreign)).await,
        "code_unknown",
        "not even that it is taken"
    );
    assert_eq!(one.counts().await, [1, 0, 0, 0, 0]);
}

async fn code_unknown_rejects_a_code_of_a_load_until_the_load_is_applied(env: &Environment) {
    let coupon = env.stocked(2, rules(&json!({}))).await;
    // A load that its owner is still filling.
    let mut postgres = env.postgres().await;
    let code = format!("EARTHY{:08}", std::process::id());
    let load: i64 = sqlx::query_scalar(
        "insert into stampede.loads (job_id, coupon_no, state, wanted, count, maker, lease_until)
         select gen_random_uuid(), coupon_no, 'open', 1, 1, gen_random_uuid(), now() + interval '1 hour'
           from stampede.coupons where coupon_id = $1 returning load_id",
    )
    .bind(&coupon.id)
    .fetch_one(&mut postgres)
    .await
    .unwrap();
    let insert = "insert into stampede.codes (load_id, idx, code, code_key) values ($1, 1, $2, $2)";
    sqlx::query(insert).bind(load).bind(&code).execute(&mut postgres).await.unwrap();
    for operation in
        [Operation::claim_code(&coupon.id, &code), Operation::lock(&code), orders::redeem(&code, "order-1")]
    {
        assert_eq!(env.rejected("ann", operation).await, "code_unknown", "{operation:?}");
    }
    assert_eq!(coupon.validation("ann", &code).await, "code_unknown");
    // The lease of its owner expires: the load is sealed with what it has, announced, and becomes stock.
    let seal = "update stampede.loads set lease_until = now() - interval '1 second' where load_id = $1";
    sqlx::query(seal).bind(load).execute(&mut postgres).await.unwrap();
    coupon.until_counts([3, 0, 0, 0, 0]).await;
    let claimed = env.accepted("ann", Operation::claim_code(&coupon.id, &code)).await;
    assert_eq!(claimed["code"], code);
    // At the API that looked it up too early: unknown codes are not cached.
    env.accepted("ann", orders::redeem(&code, "order-1")).await;
}

async fn code_taken_rejects_claims_of_a_code_that_is_claimed_also_by_its_holder(env: &Environment) {
    let coupon = env.stocked(2, rules(&json!({}))).await;
    let code = coupon.claim("ann").await;
    let expect_taken = async || {
        for user in ["ann", "bob"] {
            assert_eq!(
                env.rejected(user, Operation::claim_code(&coupon.id, &code)).await,
                "code_taken",
                "{user}"
            );
        }
    };
    expect_taken().await;
    env.accepted("ann", Operation::lock(&code)).await;
    expect_taken().await;
    env.accepted("ann", orders::redeem(&code, "order-1")).await;
    expect_taken().await;
    assert_eq!(coupon.counts().await, [1, 0, 0, 1, 0]);
}

async fn user_limit_reached_is_the_last_reason_of_a_named_claim(env: &Environment) {
    let coupon = env.stocked(3, json!({"limits": {"claims_per_user": 1}})).await;
    let (free, taken) = (coupon.code(3).await, coupon.claim("bob").await);
    coupon.claim("ann").await;
    assert_eq!(env.rejected("ann", Operation::claim_code(&coupon.id, &taken)).await, "code_taken");
    assert_eq!(env.rejected("ann", Operation::claim_code(&coupon.id, "NEVERMADE")).await, "code_unknown");
    assert_eq!(env.rejected("ann", Operation::claim_code(&coupon.id, &free)).await, "user_limit_reached");
    env.accepted("carl", Operation::claim_code(&coupon.id, &free)).await;
}

async fn of_a_hundred_concurrent_claims_of_one_named_code_one_is_accepted(env: &Environment) {
    let coupon = env.stocked(3, rules(&json!({}))).await;
    let code = coupon.code(2).await;
    let users: Vec<String> = (0..100).map(|n| format!("user-{n}")).collect();
    let claims = users.iter().enumerate();
    let claims = claims
        .map(|(n, user)| env.decide(Request::new(user, Operation::claim_code(&coupon.id, &code)).at(n % 2)));
    let outcomes = join_all(claims).await;
    assert_eq!((count(&outcomes, "accepted"), count(&outcomes, "code_taken")), (1, 99), "{outcomes:?}");
    assert_eq!(coupon.counts().await, [2, 1, 0, 0, 0]);
}

async fn concurrent_named_claims_other_claims_and_returns_give_every_code_to_one_user(env: &Environment) {
    let coupon = env.stocked(60, rules(&json!({}))).await;
    let mut codes = Vec::new();
    for number in 1..=60 {
        codes.push(coupon.code(number).await);
    }
    let users: Vec<String> = (0..120).map(|n| format!("user-{n}")).collect();
    let each = async |n: usize, user: &str| -> Option<Value> {
        let operation = if n.is_multiple_of(3) {
            Operation::claim(&coupon.id)
        } else {
            Operation::claim_code(&coupon.id, &codes[n % 60])
        };
        let outcome = env.decide(Request::new(user, operation).at(n % 2)).await;
        let won = result_of(&outcome) == "accepted";
        if won && n.is_multiple_of(5) {
            let code = outcome["code"].as_str().unwrap_or_default().to_owned();
            let returned =
                env.decide(Request::new(user, Operation::return_code(&code)).at((n + 1) % 2)).await;
            assert_eq!(result_of(&returned), "accepted", "{returned}");
            return None;
        }
        won.then_some(outcome)
    };
    let won: Vec<Value> = join_all(users.iter().enumerate().map(|(n, user)| each(n, user)))
        .await
        .into_iter()
        .flatten()
        .collect();
    let mut claims_of: BTreeMap<&str, usize> = BTreeMap::new();
    for outcome in &won {
        *claims_of.entry(outcome["code"].as_str().unwrap_or_default()).or_default() += 1;
    }
    assert!(claims_of.values().all(|count| *count == 1), "{claims_of:?}");
    let [available, claimed, ..] = coupon.counts().await;
    assert_eq!((available + claimed, claimed), (60, won.len() as u64));
}

e2e::tests![
    a_named_code_far_above_the_cursor_is_claimed_before_any_other_code,
    a_named_code_in_the_list_in_redis_is_not_given_to_another_claim,
    a_named_code_in_the_read_ahead_buffer_of_the_owner_is_given_once,
    a_named_code_that_was_returned_is_given_to_the_claim_that_names_it,
    code_unknown_rejects_a_code_of_another_coupon_which_stays_available,
    code_unknown_rejects_a_code_of_a_load_until_the_load_is_applied,
    code_taken_rejects_claims_of_a_code_that_is_claimed_also_by_its_holder,
    user_limit_reached_is_the_last_reason_of_a_named_claim,
    of_a_hundred_concurrent_claims_of_one_named_code_one_is_accepted,
    concurrent_named_claims_other_claims_and_returns_give_every_code_to_one_user,
];
