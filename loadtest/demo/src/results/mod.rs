//! The results of a sale: [`snapshot`] (the coupon's rows in Postgres), [`ownership`] (who held which code, and when),
//! [`figures`] (counting), [`table`] (the figures for people), [`summary`] (how to go on with the stack).

pub mod figures;
pub mod ownership;
pub mod snapshot;
pub mod summary;
pub mod table;
