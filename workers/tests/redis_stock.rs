//! Cache lists in a real Redis.

use std::time::Duration;

use coupon_core::ids::{CodeNumber, CouponNo, Epoch, Nonce};
use coupon_core::interface::{CacheListName, CodeEntry, Pop, Popped, RefillResult};
use runtime::config::RedisArgs;
use runtime::redis::connect_lazily;
use workers::ports::Stock as _;
use workers::redis::RedisStock;

fn codes(numbers: std::ops::RangeInclusive<i64>) -> Vec<CodeEntry> {
    numbers.map(|n| CodeEntry { number: CodeNumber(n), code: format!("CODE-{n}").into() }).collect()
}

fn refilled(count: usize, last: i64) -> RefillResult {
    RefillResult::Refilled { count, last: CodeNumber(last) }
}

#[tokio::test]
async fn a_list_is_refilled_while_its_owner_pops_from_it() {
    let stack = local_stack::testing::shared_servers().await.unwrap();
    let args = RedisArgs { redis_url: stack.endpoints().redis_url.into() };
    let stock = RedisStock::new(connect_lazily(&args).unwrap());
    let list =
        CacheListName { coupon: CouponNo(1), epoch: Epoch(1), nonce: Nonce(rand::random()), generation: 0 };
    assert_eq!(stock.append(list, codes(1..=5_000)).await, refilled(5_000, 5_000));

    let mut popped = Vec::new();
    let popping = async {
        loop {
            match stock.pop(vec![Pop { list, count: 10 }]).await.remove(0) {
                Popped::Codes(entries) => popped.extend(entries),
                Popped::Unknown => panic!("a pop failed after {}", popped.len()),
            }
        }
    };
    let result = tokio::select! {
        result = stock.append(list, codes(5_001..=25_000)) => result,
        () = popping => unreachable!("it runs until the list is refilled"),
    };
    assert_eq!(result, refilled(20_000, 25_000));
    assert!(!popped.is_empty(), "nothing was popped during the refill");
    assert_eq!(popped, codes(1..=i64::try_from(popped.len()).unwrap()), "each code once, in order");
}

#[tokio::test]
async fn the_result_is_unknown_when_a_list_is_flushed_during_a_refill() {
    let stack = local_stack::testing::shared_servers().await.unwrap();
    let url = stack.endpoints().redis_url;
    let client = redis::Client::open(url.clone()).unwrap();
    let mut other = client.get_multiplexed_async_connection().await.unwrap();
    let stock = RedisStock::new(connect_lazily(&RedisArgs { redis_url: url.into() }).unwrap());
    let nonce = Nonce(rand::random());
    let list = CacheListName { coupon: CouponNo(2), epoch: Epoch(1), nonce, generation: 0 };
    let name = format!("stampede:stock:2:1:{:032x}:0", nonce.0);
    let flushing = async {
        loop {
            redis::cmd("DEL").arg(&name).exec_async(&mut other).await.unwrap();
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
    };
    let result = tokio::select! {
        result = stock.append(list, codes(1..=50_000)) => result,
        () = flushing => unreachable!("it runs until the list is refilled"),
    };
    assert_eq!(result, RefillResult::Unknown);
    let left: i64 = redis::cmd("EXISTS").arg(&name).query_async(&mut other).await.unwrap();
    assert_eq!(left, 0, "a list without expiry");
}
