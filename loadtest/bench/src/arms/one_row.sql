-- A coupon that counts its claims, and the claims: one per user.

create schema bench;

create table bench.coupon (
    coupon_no bigint primary key,
    total     bigint not null,
    claimed   bigint not null
) with (fillfactor = 40);                           -- updates stay on their page and touch no index

create table bench.codes (
    coupon_no bigint not null,
    number    bigint not null,
    code      text not null,
    primary key (coupon_no, number)
);

create table bench.claims (
    request_id uuid primary key,
    coupon_no  bigint not null,
    user_id    text not null,
    code       text not null,
    unique (coupon_no, user_id)
);
