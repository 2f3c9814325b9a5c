-- A row for each code, which is free or names its user. One index finds a free row, another keeps users from having
-- two. Vacuum runs often, because every row is updated once.

create schema bench;

create table bench.codes (
    coupon_no  bigint not null,
    code       text not null,
    user_id    text,
    request_id uuid,
    claimed_at timestamptz
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
create index codes_free on bench.codes (coupon_no) where user_id is null;
create unique index codes_of_user on bench.codes (coupon_no, user_id) where user_id is not null;
