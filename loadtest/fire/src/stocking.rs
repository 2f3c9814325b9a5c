//! Creates the coupons of a run through the API, and refills their stock while the run lasts.

use std::time::Duration;

use stampede_client::model::GenerateCodes;
use tokio::time::{Instant, sleep};

use super::environment::{Environment, FaultError};
use super::fixtures::{Coupon, Kind};

/// Bound on the time until the first coupons have their codes.
const STOCKED_WITHIN: Duration = Duration::from_secs(120);
const REFILL_INTERVAL: Duration = Duration::from_secs(1);
/// A new coupon is created every so many intervals.
const INTERVALS_PER_COUPON: usize = 15;

impl Environment {
    /// Creates the first coupons and waits until each has its codes.
    ///
    /// # Errors
    /// When the API rejects a request, or codes do not become stock.
    pub async fn create_fixtures(&self) -> Result<(), FaultError> {
        let kinds = [
            [Kind::Hot].as_slice(),
            &[Kind::Cool; 10],
            &[Kind::Brief; 2],
            &[Kind::Strict; 3],
            &[Kind::Scarce; 2],
            &[Kind::Shared; 2],
        ];
        let plain = kinds.concat().into_iter().map(|kind| (kind, None));
        let probes = (0..self.partitions).map(|partition| (Kind::Probe, Some(partition)));
        for (kind, partition) in plain.chain(probes) {
            self.make_coupon(kind, partition).await?;
        }
        let until = Instant::now() + STOCKED_WITHIN;
        for Coupon { id, kind } in self.fixtures.coupons() {
            while self.available(&id).await? < kind.stock().0 {
                if Instant::now() > until {
                    return Err(format!(
                        "the codes of {id} do not become stock: see the logs of the workers"
                    )
                    .into());
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        self.read_shared_codes().await
    }

    /// Refills the stock and creates coupons until it is dropped. A failure is retried in the next round.
    pub async fn maintain_fixtures(&self) {
        for round in 1_usize.. {
            sleep(REFILL_INTERVAL).await;
            for Coupon { id, kind } in self.fixtures.coupons() {
                if self.available(&id).await.is_ok_and(|available| available < kind.stock().1) {
                    self.load(&id, kind.stock().0).await.ok();
                }
            }
            self.read_shared_codes().await.ok();
            if round.is_multiple_of(INTERVALS_PER_COUPON) {
                self.make_coupon(Kind::Cool, None).await.ok();
            }
        }
    }

    /// Creates a coupon, with codes that become stock once its owner has applied them.
    ///
    /// # Errors
    /// When the API rejects a request.
    pub async fn make_coupon(&self, kind: Kind, partition: Option<i32>) -> Result<String, FaultError> {
        let id = self.fixtures.new_id(kind, partition, self.partitions);
        self.admin().create_coupon(&kind.definition(&id)).await?;
        self.load(&id, kind.stock().0).await?;
        self.fixtures.add(Coupon { id: id.clone(), kind });
        Ok(id)
    }

    /// Generates codes. They may be generated although the response was lost.
    ///
    /// # Errors
    /// When the API rejects the request.
    pub async fn load(&self, coupon: &str, codes: u64) -> Result<(), FaultError> {
        let codes = GenerateCodes { count: codes, pattern: None };
        self.admin().generate_codes(coupon, &codes).await?;
        Ok(())
    }

    /// The available codes of a coupon.
    ///
    /// # Errors
    /// When the API rejects the request.
    pub async fn available(&self, coupon: &str) -> Result<u64, FaultError> {
        Ok(self.admin().coupon(coupon).await?.counts.available)
    }

    /// Reads the shared codes from Postgres, where users of a real sale would get them from an advertisement.
    async fn read_shared_codes(&self) -> Result<(), FaultError> {
        let sql = "select k.code from stampede.codes k join stampede.loads l using (load_id)
                     join stampede.coupons c using (coupon_no)
                    where c.coupon_id = any ($1) and l.base is not null order by k.load_id, k.idx";
        let codes: Vec<String> = sqlx::query_scalar(sql)
            .bind(self.fixtures.all(Kind::Shared))
            .fetch_all(&mut self.postgres().await?)
            .await?;
        self.fixtures.set_shared_codes(codes);
        Ok(())
    }
}
