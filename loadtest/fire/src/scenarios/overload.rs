//! More than there is room for, or all of it in one place.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::sleep;

use super::kafka::freeze_for;
use super::worker::any_api;
use crate::client::{Pursuit, Way};
use crate::dice::Dice;
use crate::field::{Field, Trouble};
use crate::shop::Kind;
use stampede_client::deed::Deed;

/// Users of a crowd.
const CROWD: usize = 300;

/// Users who all claim any code of one coupon at once, every second one with a key.
pub(super) async fn crowd(field: &Field, coupon: &str, users: usize, dice: &mut Dice) {
    let tag = dice.any();
    let all = (0..users).map(|n| {
        let (user, mut dice) = (format!("crowd-{tag:x}-{n}"), dice.fork());
        let key = n.is_multiple_of(2).then(|| "k".to_owned());
        async move {
            Pursuit::of(field, &user, Deed::Claim(coupon), key, Way::quick(&mut dice))
                .to_the_end(&mut dice)
                .await
        }
    });
    join_all(all.collect::<Vec<_>>()).await;
}

/// Nobody decides anything for a while, and a crowd comes; holds and locks end in the middle of what piles up.
pub(super) async fn backlog(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let coupon = field.shop.any(Kind::Brief, dice).ok_or("there is no coupon")?;
    let workers = field.workers();
    for worker in &workers {
        field.stack.freeze(*worker).ok();
    }
    let coming = crowd(field, &coupon, CROWD, dice);
    let waking = async {
        sleep(Duration::from_millis(3_000)).await;
        workers.iter().for_each(|worker| field.stack.resume(*worker).unwrap_or(()));
    };
    tokio::join!(coming, waking);
    Ok(())
}

/// Everybody wants what is sold out.
pub(super) async fn sold_out_crowd(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let coupon = field.shop.any(Kind::Scarce, dice).ok_or("there is no coupon")?;
    crowd(field, &coupon, CROWD, dice).await;
    Ok(())
}

/// Everybody wants the same, while others go on: the probes that follow are those others.
pub(super) async fn hot_coupon(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let coupon = field.shop.any(Kind::Hot, dice).ok_or("there is no coupon")?;
    crowd(field, &coupon, CROWD, dice).await;
    Ok(())
}

/// An API that has room for a handful of undecided requests, and a broker that acknowledges nothing for a moment: the
/// rest is refused at once, and comes again.
pub(super) async fn no_room(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let api = any_api(field, dice);
    let small = [("STAMPEDE_MAX_PENDING", "20"), ("STAMPEDE_MAX_PENDING_PER_PARTITION", "5")];
    field.restart_once_with(api, &small).await?;
    field.stack.wait_healthy(api).await?;
    freeze_for(field, Duration::from_millis(dice.between(500, 1_500))).await?;
    sleep(Duration::from_millis(1_000)).await;
    field.stack.stop_child(api).await.ok();
    field.revive(&[api]).await?;
    Ok(())
}
