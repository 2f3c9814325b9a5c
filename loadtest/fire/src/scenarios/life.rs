//! Users who try what they may not do to a code: the outcome says why.

use std::time::Duration;

use tokio::time::sleep;

use crate::client::{Outcome, Pursuit, Way};
use crate::dice::Dice;
use crate::field::{Field, Trouble};
use crate::shop::Kind;
use stampede_client::deed::Deed;

/// One user who does one thing after another.
struct Actor<'f> {
    field: &'f Field,
    user: String,
    deeds: u32,
}

impl<'f> Actor<'f> {
    fn new(field: &'f Field, role: &str, dice: &mut Dice) -> Self {
        Self { field, user: format!("{role}-{:x}", dice.any()), deeds: 0 }
    }

    async fn ask(&mut self, deed: Deed<'_>, dice: &mut Dice) -> Option<Outcome> {
        self.deeds += 1;
        let key = Some(format!("deed-{}", self.deeds));
        Pursuit::of(self.field, &self.user, deed, key, Way::quick(dice)).to_the_end(dice).await
    }

    /// Complains if the outcome is another one.
    async fn expect(&mut self, deed: Deed<'_>, wanted: &[&str], dice: &mut Dice) -> Option<Outcome> {
        let outcome = self.ask(deed, dice).await?;
        if !wanted.contains(&outcome.word()) {
            let (user, body) = (&self.user, &outcome.body);
            self.field.score.complain(format!("{deed:?} of {user} should be {wanted:?}: {body}"));
        }
        Some(outcome)
    }

    async fn claim(&mut self, kind: Kind, dice: &mut Dice) -> Result<String, Trouble> {
        let coupon = self.field.shop.any(kind, dice).ok_or("there is no coupon")?;
        let claimed = self.ask(Deed::Claim(&coupon), dice).await.ok_or("the claim has no outcome")?;
        Ok(claimed.code().ok_or("there is no code to claim")?.to_owned())
    }
}

/// To whom a code does not belong, it is unknown.
pub(super) async fn somebody_elses_code(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let (mut owner, mut thief) = (Actor::new(field, "owner", dice), Actor::new(field, "thief", dice));
    let code = owner.claim(Kind::Cool, dice).await?;
    for deed in [Deed::Lock(&code), Deed::Unlock(&code), Deed::Return(&code), Deed::Redeem(&code, "stolen")] {
        thief.expect(deed, &["code_unknown"], dice).await;
    }
    owner.expect(Deed::Redeem(&code, "own"), &["accepted"], dice).await;
    thief.expect(Deed::Redeem(&code, "stolen"), &["code_unknown"], dice).await;
    Ok(())
}

/// Before claiming, without the lock that is required, twice, and after the lapse.
pub(super) async fn redeem_out_of_turn(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let mut early = Actor::new(field, "early", dice);
    early.expect(Deed::Redeem("NOSUCHCODE", "order"), &["code_unknown"], dice).await;
    let code = early.claim(Kind::Strict, dice).await?;
    early.expect(Deed::Redeem(&code, "order"), &["not_locked"], dice).await;
    let mut twice = Actor::new(field, "twice", dice);
    let code = twice.claim(Kind::Cool, dice).await?;
    twice.expect(Deed::Redeem(&code, "order-1"), &["accepted"], dice).await;
    twice.expect(Deed::Redeem(&code, "order-1"), &["already_redeemed", "order_already_used"], dice).await;
    twice.expect(Deed::Redeem(&code, "order-2"), &["already_redeemed"], dice).await;
    let mut late = Actor::new(field, "late", dice);
    let code = late.claim(Kind::Brief, dice).await?;
    // Twice as long as it is held.
    sleep(Duration::from_secs(4)).await;
    late.expect(Deed::Redeem(&code, "order"), &["hold_lapsed"], dice).await;
    Ok(())
}
