//! Idempotency-Keys used wrongly, and used hard.

use futures::future::{join, join_all};

use crate::client::{Outcome, Pursuit, Way};
use crate::dice::Dice;
use crate::field::{Field, Trouble};
use crate::shop::Kind;
use stampede_client::deed::Deed;

const AT_ONCE: usize = 100;

fn two_coupons(field: &Field, dice: &mut Dice) -> Result<[String; 2], Trouble> {
    let mut all = field.shop.all(Kind::Cool);
    dice.shuffle(&mut all);
    match <[String; 2]>::try_from(all.into_iter().take(2).collect::<Vec<_>>()) {
        Ok(two) => Ok(two),
        Err(_) => Err("there are not two coupons".into()),
    }
}

fn somebody(dice: &mut Dice) -> String {
    format!("keyed-{:x}", dice.any())
}

/// One body, then another under the same key, then the first again: the first keeps its outcome.
pub(super) async fn with_another_body(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let [coupon, _] = two_coupons(field, dice)?;
    let user = somebody(dice);
    let key = || Some("one and the same".to_owned());
    let mut first = Pursuit::of(field, &user, Deed::Claim(&coupon), key(), Way::quick(dice));
    let Some(told) = first.to_the_end(dice).await else { return Err("the first body has no outcome".into()) };
    let named = Deed::ClaimNamed(&coupon, "NOSUCHCODE");
    const REUSED: &str = "idempotency_key_reused";
    let mut other = Pursuit::of(field, &user, named, key(), Way::quick(dice)).may_be_refused_as(REUSED);
    if let Some(other) = other.to_the_end(dice).await.filter(|other| other.word() != REUSED) {
        field.score.complain(format!("another body under the same key of {user} was told {}", other.body));
    }
    let again = first.again(Way::Wait(2)).to_the_end(dice).await;
    if let Some(again) = again.filter(|again| again.body["decided_at"] != told.body["decided_at"]) {
        field.score.complain(format!("the first body was told {}, and then {}", told.body, again.body));
    }
    Ok(())
}

/// A hundred times the same request, on all instances at once: one outcome.
pub(super) async fn a_hundred_times(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let [coupon, _] = two_coupons(field, dice)?;
    let first = Pursuit::of(field, &somebody(dice), Deed::Claim(&coupon), Some("k".to_owned()), Way::Wait(2));
    let all = (0..AT_ONCE).map(|_| {
        let (mut same, mut dice) = (first.again(Way::quick(dice)), dice.fork());
        async move { same.to_the_end(&mut dice).await }
    });
    let told = join_all(all.collect::<Vec<_>>()).await;
    let mut codes: Vec<&str> = told.iter().flatten().filter_map(Outcome::code).collect();
    codes.dedup();
    if codes.len() > 1 {
        field.score.complain(format!("one request a hundred times was given {codes:?}"));
    }
    Ok(())
}

/// The same key for two coupons at once: two requests.
pub(super) async fn on_two_coupons(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let coupons = two_coupons(field, dice)?;
    let user = somebody(dice);
    let [mut one, mut other] = coupons.each_ref().map(|coupon| {
        Pursuit::of(field, &user, Deed::Claim(coupon), Some("the same".to_owned()), Way::quick(dice))
    });
    let (mut dice, mut others) = (dice.fork(), dice.fork());
    let (one, other) = join(one.to_the_end(&mut dice), other.to_the_end(&mut others)).await;
    for (told, coupon) in [one, other].iter().zip(&coupons) {
        if let Some(told) = told.as_ref().filter(|told| told.body["coupon_id"] != **coupon) {
            field.score.complain(format!("a claim of {coupon} was told {}", told.body));
        }
    }
    Ok(())
}
