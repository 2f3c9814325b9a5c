-- Claim transitions: named claims, holds, locks, redemptions, returns, revocations.
--
-- A claim without hold and lock costs no more than before: its new columns are null, and it is in no new index.
-- `first_hold_ms` belongs to the outcome and never changes; the other new columns of `claims` are its status, and do.

set search_path = stampede;

alter table claims
    add column first_hold_ms bigint,    -- outcome: the end of the hold as published to the claimer
    add column hold_until_ms bigint,    -- end of the hold
    add column lock_until_ms bigint,    -- end of the lock; kept after a lapse, null after a release
    add column order_id      text constraint claim_order_length check (length(order_id) between 1 and 128),
                                        -- locked: the order of the lock; redeemed: the order of the redemption
    add column lapsed_ms     bigint,    -- returned by a lapse: when the hold lapsed; otherwise null
    add column deadline_ms   bigint,    -- next deadline: of the lock if locked, else of the hold
    add column partition     int,       -- partition of its coupon; set where deadline_ms is
    add constraint claim_deadline check (
        deadline_ms is not distinct from case state when 1 then hold_until_ms when 2 then lock_until_ms end
        and (deadline_ms is null or partition is not null));
create index claims_due on claims (partition, deadline_ms, coupon_no, number) where deadline_ms is not null;

-- Number of redemptions that were not rolled back, for the coupon's limit.
alter table stock add column redemptions bigint not null default 0
    constraint stock_redemptions check (redemptions >= 0);

-- A redemption and its outcome in one row, identified by the request that made it. Only rolled_back_ms changes.
create table redemptions (
    identity       uuid primary key,
    body           bigint not null,
    coupon_no      bigint not null,
    number         bigint not null,
    "offset"       bigint not null,
    redeemed_ms    bigint not null,
    claimed_ms     bigint,              -- null: a shared code
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

-- Flags of a code besides its claim. No row: no uses of a shared code, and not revoked.
create table code_marks (
    coupon_no bigint not null,
    number    bigint not null,
    uses      bigint not null default 0 constraint mark_uses check (uses >= 0),
    revoked   boolean not null default false,
    primary key (coupon_no, number)
);

-- Accepted requests other than claims and redemptions have no reason, but the status in which they left the code.
alter table outcomes
    alter column reason drop not null,
    alter column user_id type text collate "C",
    add column number          bigint,
    add column claim_state     smallint,
    add column claimed_ms      bigint,
    add column hold_until_ms   bigint,
    add column lock_until_ms   bigint,
    add column order_id        text constraint outcome_order_length check (length(order_id) between 1 and 128),
    add column redemption      uuid,    -- rollback: of this redemption
    add column redemption_body bigint;
-- A hash index, because every sold_out rejection pays for it: a B-tree over user and time more than doubles the cost of
-- a rejection, a hash index adds half. A user has few outcomes, which a query can sort.
create index outcomes_by_user on outcomes using hash (user_id);

-- As before, and also returns the next deadline of the partition. A statement of its own selects it after the fence has
-- moved, so that it sees every write of the previous owner.
drop function take_over(int, text, uuid);
create function take_over(
    p_partition int, p_owner text, p_nonce uuid, out taken partitions, out next_deadline_ms bigint
) language plpgsql set search_path = stampede as $$
begin
    insert into partitions (partition) values (p_partition) on conflict do nothing;
    update partitions
       set epoch = epoch + 1, nonce = p_nonce, owner = p_owner, attempt = null, taken_over_at = now()
     where partition = p_partition
    returning * into taken;
    select deadline_ms into next_deadline_ms
      from claims
     where partition = p_partition and deadline_ms is not null
     order by deadline_ms limit 1;
end $$;

-- Writes one batch, or nothing. Arrays named c_ are claims without a hold, o_ rejections, s_ stock rows (absolute
-- values, compare-and-set on the old ones except `claimed`, which the row's constraint determines; s_passed is the count
-- of numbers ahead that the cursor has passed), l_ loads that become stock, r_ returned numbers that are claimed again,
-- x_ identities whose outcomes are stored elsewhere (decided before and published again, or written by write_life in the
-- same statement), m_ messages other than responses. Joins go from the arrays to the tables: `ctid = any (array(…
-- lateral … offset 0))` leaves a cached plan no alternative.
-- Errors: SP001 fence does not match, SP002 a count does not match, 23505 a live claim or an identity exists.
drop function write_batch;
create function write_batch(
    p_partition int, p_epoch bigint, p_nonce uuid, p_write_no bigint, p_attempt uuid,
    p_next_offset bigint, p_last_offset bigint, p_last_digest bigint, p_time_ms bigint,
    p_suspect_until_ms bigint, p_emitted_seq bigint, p_day date,
    c_identity uuid[], c_body bigint[], c_coupon bigint[], c_number bigint[], c_offset bigint[], c_ms bigint[],
    c_user text[],
    o_identity uuid[], o_body bigint[], o_coupon bigint[], o_offset bigint[], o_ms bigint[], o_kind text[],
    o_reason text[], o_user text[], o_target text[],
    s_coupon bigint[], s_was_top bigint[], s_was_cursor bigint[], s_was_ahead bigint[], s_was_returned bigint[],
    s_was_locked bigint[], s_was_redeemed bigint[], s_was_revoked bigint[], s_was_redemptions bigint[],
    s_top bigint[], s_cursor bigint[], s_ahead bigint[], s_returned bigint[], s_claimed bigint[],
    s_locked bigint[], s_redeemed bigint[], s_revoked bigint[], s_redemptions bigint[], s_passed bigint[],
    l_load bigint[], l_base bigint[],
    r_coupon bigint[], r_number bigint[],
    x_identity uuid[], x_body bigint[],
    m_topic text[], m_key bytea[], m_value bytea[], m_headers text[]
) returns void
language plpgsql set search_path = stampede as $$
declare
    v_was_emitted bigint;
    v_seq bigint;
    v_rows bigint;
    v_bodies bigint[];
    v_emits boolean := cardinality(c_identity) + cardinality(o_identity) + cardinality(x_identity)
                       + cardinality(m_topic) > 0;
begin
    select emitted_seq, next_emit_seq into v_was_emitted, v_seq
      from partitions
     where partition = p_partition and epoch = p_epoch and nonce = p_nonce and write_no = p_write_no - 1
       for update;
    if not found then
        raise exception 'partition %: write % of epoch % is fenced off', p_partition, p_write_no, p_epoch
            using errcode = 'SP001';
    end if;
    update partitions
       set write_no = p_write_no, attempt = p_attempt, next_offset = p_next_offset,
           last_offset = p_last_offset, last_digest = p_last_digest, time_ms = p_time_ms,
           suspect_until_ms = p_suspect_until_ms, emitted_seq = p_emitted_seq,
           next_emit_seq = next_emit_seq + v_emits::int
     where partition = p_partition and next_offset <= p_next_offset
       and emitted_seq <= p_emitted_seq and p_emitted_seq < next_emit_seq;
    if not found then
        raise exception 'partition %: write % would move the offset or the watermark backwards', p_partition,
            p_write_no using errcode = 'SP002';
    end if;

    if cardinality(c_identity) > 0 then
        insert into claims (identity, body, coupon_no, number, "offset", claimed_ms, user_id)
        select * from unnest(c_identity, c_body, c_coupon, c_number, c_offset, c_ms, c_user);
    end if;
    if cardinality(o_identity) > 0 then
        insert into outcomes (identity, body, coupon_no, "offset", decided_ms, kind, reason, user_id, target,
                              partition, day)
        select u.*, p_partition, p_day
          from unnest(o_identity, o_body, o_coupon, o_offset, o_ms, o_kind, o_reason, o_user, o_target) u;
    end if;

    if cardinality(s_coupon) > 0 then
        if cardinality(s_coupon) = 1 then
            update stock
               set top = s_top[1], cursor = s_cursor[1], ahead = s_ahead[1], returned = s_returned[1],
                   claimed = s_claimed[1], locked = s_locked[1], redeemed = s_redeemed[1], revoked = s_revoked[1],
                   redemptions = s_redemptions[1]
             where coupon_no = s_coupon[1] and top = s_was_top[1] and cursor = s_was_cursor[1]
               and ahead = s_was_ahead[1] and returned = s_was_returned[1] and locked = s_was_locked[1]
               and redeemed = s_was_redeemed[1] and revoked = s_was_revoked[1]
               and redemptions = s_was_redemptions[1];
        else
            -- Planned at each call: a plan made while the table is small is a sequential scan, and would be kept.
            execute 'update stock s
                set top = n.top, cursor = n.cursor, ahead = n.ahead, returned = n.returned, claimed = n.claimed,
                    locked = n.locked, redeemed = n.redeemed, revoked = n.revoked, redemptions = n.redemptions
               from unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
                    n (coupon_no, was_top, was_cursor, was_ahead, was_returned, was_locked, was_redeemed, was_revoked,
                       was_redemptions, top, cursor, ahead, returned, claimed, locked, redeemed, revoked, redemptions)
              where s.coupon_no = n.coupon_no and s.top = n.was_top and s.cursor = n.was_cursor
                and s.ahead = n.was_ahead and s.returned = n.was_returned and s.locked = n.was_locked
                and s.redeemed = n.was_redeemed and s.revoked = n.was_revoked and s.redemptions = n.was_redemptions'
            using s_coupon, s_was_top, s_was_cursor, s_was_ahead, s_was_returned,
                  s_was_locked, s_was_redeemed, s_was_revoked, s_was_redemptions,
                  s_top, s_cursor, s_ahead, s_returned, s_claimed, s_locked, s_redeemed, s_revoked, s_redemptions;
        end if;
        get diagnostics v_rows = row_count;
        if v_rows <> cardinality(s_coupon) then
            raise exception 'partition %: % of % stock rows are as the owner knew them', p_partition, v_rows,
                cardinality(s_coupon) using errcode = 'SP002';
        end if;
        if 0 <> any (s_passed) then                 -- the cursor has passed numbers that were ahead of it
            delete from stock_ahead where ctid = any (array(
                select a.ctid
                  from unnest(s_coupon, s_cursor, s_passed) n (coupon_no, cursor, passed)
                 cross join lateral (select ctid from stock_ahead a
                                      where a.coupon_no = n.coupon_no and a.number <= n.cursor offset 0) a
                 where n.passed <> 0));
            get diagnostics v_rows = row_count;
            if v_rows <> (select sum(passed) from unnest(s_passed) passed) then
                raise exception 'partition %: the cursor has passed % numbers ahead of it, not %', p_partition, v_rows,
                    (select sum(passed) from unnest(s_passed) passed) using errcode = 'SP002';
            end if;
        end if;
    end if;
    for i in 1 .. cardinality(l_load) loop
        update loads set state = 'applied', base = l_base[i] where load_id = l_load[i] and state = 'sealed';
        if not found then
            raise exception 'partition %: load % is not sealed', p_partition, l_load[i] using errcode = 'SP002';
        end if;
    end loop;
    if cardinality(r_coupon) > 0 then
        delete from stock_returned where ctid = any (array(
            select s.ctid
              from unnest(r_coupon, r_number) n (coupon_no, number)
             cross join lateral (select ctid from stock_returned s
                                  where s.coupon_no = n.coupon_no and s.number = n.number offset 0) s));
        get diagnostics v_rows = row_count;
        if v_rows <> cardinality(r_coupon) then
            raise exception 'partition %: % of % returned numbers are free', p_partition, v_rows,
                cardinality(r_coupon) using errcode = 'SP002';
        end if;
    end if;

    if p_emitted_seq > v_was_emitted then
        delete from outbox where partition = p_partition and seq > v_was_emitted and seq <= p_emitted_seq;
        delete from outbox_messages where partition = p_partition and seq > v_was_emitted and seq <= p_emitted_seq;
    end if;
    if v_emits then
        v_bodies := c_body || o_body || x_body;
        insert into outbox (partition, seq, next_offset, ids, bodies)
        values (p_partition, v_seq, p_next_offset, c_identity || o_identity || x_identity,
                case when 0 = all (v_bodies) then null else v_bodies end);
        insert into outbox_messages (partition, seq, n, topic, key, value, headers)
        select p_partition, v_seq, u.n, u.topic, u.key, u.value, u.headers::jsonb
          from unnest(m_topic, m_key, m_value, m_headers) with ordinality u (topic, key, value, headers, n);
    end if;
end $$;

-- Writes the claim transitions of a batch, after write_batch and in the same statement:
-- `select write_batch(…), write_life(…)`, one round trip and one commit. Arrays named u_ are claims that change
-- (compare-and-set on state and deadline), c_ claims made by the batch, in their final state, b_ redemptions that are
-- rolled back, d_ redemptions, a_ all other accepted requests, k_ code flags (compare-and-set), f_ numbers above the
-- cursor that are free again, t_ numbers above it that are taken, r_ numbers at or below it that are free again.
--
-- Rows that end come before rows that begin: a code is claimed again only after its live claim has ended, an order is
-- used again only after its redemption was rolled back. Errors as of write_batch.
create function write_life(
    p_partition int, p_epoch bigint, p_nonce uuid, p_write_no bigint, p_day date,
    u_identity uuid[], u_was_state smallint[], u_was_deadline bigint[], u_state smallint[], u_hold_until bigint[],
    u_lock_until bigint[], u_order text[], u_lapsed bigint[],
    c_identity uuid[], c_body bigint[], c_coupon bigint[], c_number bigint[], c_offset bigint[], c_ms bigint[],
    c_user text[], c_first_hold bigint[], c_state smallint[], c_hold_until bigint[], c_lock_until bigint[],
    c_order text[], c_lapsed bigint[],
    b_identity uuid[], b_body bigint[], b_ms bigint[],
    d_identity uuid[], d_body bigint[], d_coupon bigint[], d_number bigint[], d_offset bigint[], d_ms bigint[],
    d_claimed bigint[], d_user text[], d_order text[], d_amount text[], d_discount text[], d_price text[],
    d_currency text[], d_rolled_back bigint[],
    a_identity uuid[], a_body bigint[], a_coupon bigint[], a_offset bigint[], a_ms bigint[], a_kind text[],
    a_user text[], a_number bigint[], a_state smallint[], a_claimed bigint[], a_hold_until bigint[],
    a_lock_until bigint[], a_order text[], a_redemption uuid[], a_redemption_body bigint[],
    k_coupon bigint[], k_number bigint[], k_was_uses bigint[], k_was_revoked boolean[], k_uses bigint[],
    k_revoked boolean[],
    f_coupon bigint[], f_number bigint[],
    t_coupon bigint[], t_number bigint[],
    r_coupon bigint[], r_number bigint[]
) returns void
language plpgsql set search_path = stampede as $$
declare
    v_rows bigint;
    v_new bigint;
begin
    -- A call without write_batch must not bypass the fence.
    perform from partitions
      where partition = p_partition and epoch = p_epoch and nonce = p_nonce and write_no = p_write_no;
    if not found then
        raise exception 'partition %: write % of epoch % is fenced off', p_partition, p_write_no, p_epoch
            using errcode = 'SP001';
    end if;

    if cardinality(u_identity) > 0 then
        execute 'update claims c
            set state = n.state, hold_until_ms = n.hold_until, lock_until_ms = n.lock_until, order_id = n.order_id,
                lapsed_ms = n.lapsed, partition = $1,
                deadline_ms = case n.state when 1 then n.hold_until when 2 then n.lock_until end
           from unnest($2, $3, $4, $5, $6, $7, $8, $9)
                n (identity, was_state, was_deadline, state, hold_until, lock_until, order_id, lapsed)
          where c.identity = n.identity and c.state = n.was_state
            and c.deadline_ms is not distinct from n.was_deadline'
        using p_partition, u_identity, u_was_state, u_was_deadline, u_state, u_hold_until, u_lock_until, u_order,
              u_lapsed;
        get diagnostics v_rows = row_count;
        if v_rows <> cardinality(u_identity) then
            raise exception 'partition %: % of % claims are as the owner knew them', p_partition, v_rows,
                cardinality(u_identity) using errcode = 'SP002';
        end if;
    end if;
    if cardinality(c_identity) > 0 then
        insert into claims (identity, body, coupon_no, number, "offset", claimed_ms, user_id, first_hold_ms, state,
                            hold_until_ms, lock_until_ms, order_id, lapsed_ms, deadline_ms, partition)
        select u.*, d.deadline, case when d.deadline is not null then p_partition end
          from unnest(c_identity, c_body, c_coupon, c_number, c_offset, c_ms, c_user, c_first_hold, c_state,
                      c_hold_until, c_lock_until, c_order, c_lapsed)
               u (identity, body, coupon_no, number, "offset", claimed, user_id, first_hold, state, hold_until,
                  lock_until, order_id, lapsed)
         cross join lateral (select case u.state when 1 then u.hold_until when 2 then u.lock_until end) d (deadline);
    end if;

    if cardinality(b_identity) > 0 then
        execute 'update redemptions r set rolled_back_ms = n.ms
           from unnest($1, $2, $3) n (identity, body, ms)
          where r.identity = n.identity and r.body = n.body and r.rolled_back_ms is null'
        using b_identity, b_body, b_ms;
        get diagnostics v_rows = row_count;
        if v_rows <> cardinality(b_identity) then
            raise exception 'partition %: % of % redemptions can be rolled back', p_partition, v_rows,
                cardinality(b_identity) using errcode = 'SP002';
        end if;
    end if;
    if cardinality(d_identity) > 0 then
        insert into redemptions (identity, body, coupon_no, number, "offset", redeemed_ms, claimed_ms, user_id,
                                 order_id, order_amount, discount, final_price, currency, rolled_back_ms)
        select u.identity, u.body, u.coupon_no, u.number, u."offset", u.ms, u.claimed, u.user_id, u.order_id,
               u.amount::numeric, u.discount::numeric, u.price::numeric, u.currency, u.rolled_back
          from unnest(d_identity, d_body, d_coupon, d_number, d_offset, d_ms, d_claimed, d_user, d_order, d_amount,
                      d_discount, d_price, d_currency, d_rolled_back)
               u (identity, body, coupon_no, number, "offset", ms, claimed, user_id, order_id, amount, discount,
                  price, currency, rolled_back);
    end if;
    if cardinality(a_identity) > 0 then
        insert into outcomes (identity, body, coupon_no, "offset", decided_ms, kind, user_id, number, claim_state,
                              claimed_ms, hold_until_ms, lock_until_ms, order_id, redemption, redemption_body,
                              partition, day)
        select u.*, p_partition, p_day
          from unnest(a_identity, a_body, a_coupon, a_offset, a_ms, a_kind, a_user, a_number, a_state, a_claimed,
                      a_hold_until, a_lock_until, a_order, a_redemption, a_redemption_body) u;
    end if;

    if cardinality(k_coupon) > 0 then
        -- A missing row is equal to a row with no uses that is not revoked.
        insert into code_marks as m (coupon_no, number, uses, revoked)
        select n.coupon_no, n.number, n.uses, n.revoked
          from unnest(k_coupon, k_number, k_was_uses, k_was_revoked, k_uses, k_revoked)
               n (coupon_no, number, was_uses, was_revoked, uses, revoked)
         where n.was_uses = 0 and not n.was_revoked
            on conflict (coupon_no, number) do update set uses = excluded.uses, revoked = excluded.revoked
         where m.uses = 0 and not m.revoked;
        get diagnostics v_new = row_count;
        v_rows := 0;
        if v_new < cardinality(k_coupon) then
            execute 'update code_marks m set uses = n.uses, revoked = n.revoked
               from unnest($1, $2, $3, $4, $5, $6) n (coupon_no, number, was_uses, was_revoked, uses, revoked)
              where (n.was_uses <> 0 or n.was_revoked) and m.coupon_no = n.coupon_no and m.number = n.number
                and m.uses = n.was_uses and m.revoked = n.was_revoked'
            using k_coupon, k_number, k_was_uses, k_was_revoked, k_uses, k_revoked;
            get diagnostics v_rows = row_count;
        end if;
        if v_new + v_rows <> cardinality(k_coupon) then
            raise exception 'partition %: % of % codes are marked as the owner knew them', p_partition, v_new + v_rows,
                cardinality(k_coupon) using errcode = 'SP002';
        end if;
    end if;

    if cardinality(f_coupon) > 0 then
        delete from stock_ahead where ctid = any (array(
            select a.ctid
              from unnest(f_coupon, f_number) n (coupon_no, number)
             cross join lateral (select ctid from stock_ahead a
                                  where a.coupon_no = n.coupon_no and a.number = n.number offset 0) a));
        get diagnostics v_rows = row_count;
        if v_rows <> cardinality(f_coupon) then
            raise exception 'partition %: % of % numbers are ahead of the cursor', p_partition, v_rows,
                cardinality(f_coupon) using errcode = 'SP002';
        end if;
    end if;
    if cardinality(t_coupon) > 0 then
        insert into stock_ahead (coupon_no, number) select * from unnest(t_coupon, t_number);
    end if;
    if cardinality(r_coupon) > 0 then
        insert into stock_returned (coupon_no, number) select * from unnest(r_coupon, r_number);
    end if;
end $$;
