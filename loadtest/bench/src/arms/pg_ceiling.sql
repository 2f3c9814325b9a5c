-- The leanest durable claim: one row with three indexes, inserted by one
-- fenced call for a thousand of them, with one row of counters and one outbox row a call.

create schema bench;
set search_path = bench;

create table fence (
    partition   int primary key,
    epoch       bigint not null,
    write_no    bigint not null,
    next_offset bigint not null,
    claimed     bigint not null
) with (fillfactor = 40);
insert into fence values (0, 1, 0, 0, 0);

create table claims (
    request_id uuid primary key,
    coupon_no  bigint not null,
    number     bigint not null,
    claimed_ms bigint not null,
    user_id    text not null
);
create unique index on claims (coupon_no, number);
create index on claims (user_id, coupon_no);

create table outbox (
    seq         bigint primary key,
    next_offset bigint not null,
    ids         uuid[] not null
);

create function write_claims(
    p_epoch bigint, p_write_no bigint, p_coupon bigint, p_first bigint, p_ms bigint, p_ids uuid[], p_users text[]
) returns void
language plpgsql set search_path = bench as $$
begin
    update fence
       set write_no = p_write_no, next_offset = next_offset + cardinality(p_ids),
           claimed = claimed + cardinality(p_ids)
     where partition = 0 and epoch = p_epoch and write_no = p_write_no - 1;
    if not found then
        raise exception 'write % of epoch % is fenced off', p_write_no, p_epoch;
    end if;
    insert into claims (request_id, coupon_no, number, claimed_ms, user_id)
    select u.id, p_coupon, p_first + u.n, p_ms, u.user_id
      from unnest(p_ids, p_users) with ordinality u (id, user_id, n);
    delete from outbox where seq = p_write_no - 1;
    insert into outbox values (p_write_no, p_first + cardinality(p_ids), p_ids);
end $$;
