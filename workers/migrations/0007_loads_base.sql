-- no-transaction
-- Two loads of a coupon never begin at the same number. A worker of release 0.1.0 may still apply a load without codes.
create unique index concurrently if not exists loads_base on stampede.loads (coupon_no, base) where count > 0;
