-- The life of a code: named claims, holds, locks, redemptions, revoking.
--
-- A claim that has neither hold nor lock costs what it did before: its new columns are null and no new index has it.
-- `first_hold_ms` belongs to the outcome and never changes; the other new columns of `claims` are its terms, and do.

set search_path = stampede;

alter table claims
    add column first_hold_ms bigint,    -- outcome: the hold's end as the claimer was told it
    add column hold_until_ms bigint,    -- when the hold ends
    add column lock_until_ms bigint,    -- when the lock ends; kept once it has lapsed, null once it was released
    add column order_id      text constraint claim_order_length check (length(order_id) between 1 and 128),
                                        -- locked: the order that the lock named; redeemed: the order that it paid for
    add column lapsed_ms     bigint,    -- returned: when its hold lapsed; null where the code was given back
    add column deadline_ms   bigint,    -- when it lapses next: the lock if it is locked, else the hold
    add column partition     int,       -- of its coupon; set where deadline_ms is
    add constraint claim_deadline check (
        deadline_ms is not distinct from case state when 1 then hold_until_ms when 2 then lock_until_ms end
        and (deadline_ms is null or partition is not null));
create index claims_due on claims (partition, deadline_ms, coupon_no, number) where deadline_ms is not null;

-- Redemptions that were not rolled back, for the limit of the whole coupon.
alter table stock add column redemptions bigint not null default 0
    constraint stock_redemptions check (redemptions >= 0);

-- A redemption and its outcome in one row: it is known by the request that made it. Only rolled_back_ms changes.
create table redemptions (
    identity       uuid primary key,
    body           bigint not null,
    coupon_no      bigint not null,
    number         bigint not null,
    "offset"       bigint not null,
    redeemed_ms    bigint not null,
    claimed_ms     bigint,              -- null: a code that is shared by many
    user_id        text collate "C" not null constraint redemption_user_length check (length(user_id) between 1 and 256),
    order_id       text collate "C" not null constraint redemption_order_length check (length(order_id) between 1 and 128),
    order_amount   numeric not null,
    discount       numeric not null,
    final_price    numeric not null,
    currency       text not null,
    rolled_back_ms bigint,
    constraint redemption_adds_up check (discount >= 0 and final_price >= 0 and discount + final_price = order_amount)
);
create unique index redemptions_live on redemptions (coupon_no, number, order_id) where rolled_back_ms is null;
create index redemptions_by_user on redemptions (user_id, coupon_no);

-- What is known of a code beyond its claim. No row: neither shared and used, nor withdrawn.
create table code_marks (
    coupon_no bigint not null,
    number    bigint not null,
    uses      bigint not null default 0 constraint mark_uses check (uses >= 0),
    revoked   boolean not null default false,
    primary key (coupon_no, number)
);

-- Accepted requests that are neither claims nor redemptions have no reason, but say how they left the code.
alter table outcomes
    alter column reason drop not null,
    alter column user_id type text collate "C",
    add column number          bigint,
    add column claim_state     smallint,
    add column claimed_ms      bigint,
    add column hold_until_ms   bigint,
    add column lock_until_ms   bigint,
    add column order_id        text constraint outcome_order_length check (length(order_id) between 1 and 128),
    add column redemption      uuid,    -- rollback: which one
    add column redemption_body bigint;
create index outcomes_by_user on outcomes (user_id, decided_ms);
