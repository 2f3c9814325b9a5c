-- Partitions and their owners, coupons, codes, stock, outcomes, and the outbox.
--
-- Each table has one writer. The API writes `coupons` (new rows), `loads` and `codes`; the owner of a partition writes
-- all others, through `write_batch` only. A claim only inserts into the hot tables: `claims` (a claim and its outcome in
-- one row), `outcomes` (all outcomes other than accepted claims) and `outbox` (one row per batch). Columns named `_ms`
-- are Unix milliseconds of the partition's time, which is the broker's. Indexed text is collated "C": comparing bytes is
-- several times faster than comparing by the rules of a language.

create schema if not exists stampede;
set search_path = stampede;

-- Partition counts and cluster id, recorded at the first start. Partitions that are added later are not used.
create table topics (
    name        text primary key,
    partitions  int not null check (partitions > 0),
    cluster_id  text not null,
    recorded_at timestamptz not null default now()
);

-- Writer schemas: stored before the first record is produced with them, so that readers can fetch them.
create table schemas (
    schema_id   int generated always as identity primary key,
    subject     text not null,
    fingerprint bytea not null unique,
    definition  text not null,
    created_at  timestamptz not null default now()
);

-- One row per partition: the fence (epoch, nonce, write_no), the position in the log, and the outbox watermark.
create table partitions (
    partition         int primary key,
    epoch             bigint not null default 0,
    nonce             uuid,
    owner             text,
    write_no          bigint not null default 0,
    attempt           uuid,
    next_offset       bigint not null default 0,
    last_offset       bigint not null default -1,   -- the last consumed record, and its digest
    last_digest       bigint not null default 0,
    time_ms           bigint not null default 0,    -- the partition's time: largest append time consumed
    suspect_until_ms  bigint not null default 0,    -- ids minted until then may be duplicates that are not cached
    next_emit_seq     bigint not null default 1,
    emitted_seq       bigint not null default 0,    -- watermark: all entries up to it are acknowledged
    taken_over_at     timestamptz not null default now()
) with (fillfactor = 40);

create table coupons (
    coupon_no            bigint generated always as identity primary key,
    coupon_id            text collate "C" not null unique constraint coupon_id_length check (length(coupon_id) between 1 and 64),
    partition            int not null,
    definition           jsonb not null,            -- as submitted: name, description, category, discount
    status               text not null default 'active' constraint coupon_status check (status in ('active', 'paused', 'ended')),
    starts_at_ms         bigint,
    expires_at_ms        bigint,
    hold_seconds         int,
    lock_seconds         int not null default 300,
    requires_lock        boolean not null default false,
    claims_per_user      int,                       -- null: no limit
    redemptions_per_user int,
    redemptions_per_code int,
    redemptions_total    bigint,
    created_at           timestamptz not null default now()
);

-- One row per coupon, inserted together with it; after that only its owner writes it.
-- available = top - cursor - ahead + returned; generated = top.
create table stock (
    coupon_no bigint primary key references coupons,
    top       bigint not null default 0,            -- highest code number that became stock
    cursor    bigint not null default 0,            -- highest number taken in sequence
    ahead     bigint not null default 0,            -- numbers above the cursor that are taken
    returned  bigint not null default 0,            -- numbers at or below the cursor that are free again
    claimed   bigint not null default 0,
    locked    bigint not null default 0,
    redeemed  bigint not null default 0,
    revoked   bigint not null default 0,
    constraint stock_never_negative check (
        cursor <= top and ahead >= 0 and returned >= 0 and claimed >= 0 and locked >= 0 and redeemed >= 0
        and revoked >= 0 and top - cursor - ahead + returned >= 0),
    constraint stock_adds_up check (
        top - cursor - ahead + returned + claimed + locked + redeemed + revoked = top)
) with (fillfactor = 40);

create table stock_ahead    (coupon_no bigint, number bigint, primary key (coupon_no, number));
create table stock_returned (coupon_no bigint, number bigint, primary key (coupon_no, number));

-- Codes are loaded in bulk, not through the owner, and become stock when the owner applies the sealed load.
-- From then on the load has a base, and its code `idx` (1-based, no gaps) has the number base + idx.
create table loads (
    load_id     bigint generated always as identity primary key,
    job_id      uuid not null unique,
    coupon_no   bigint not null references coupons,
    state       text not null default 'open' constraint load_state check (state in ('open', 'sealed', 'applied')),
    wanted      bigint not null,                    -- codes requested
    count       bigint not null default 0,          -- codes loaded
    maker       uuid not null,                      -- the process that loads it, as a random id of its run
    lease_until timestamptz not null,
    base        bigint,                             -- set when applied
    pattern     jsonb,
    created_at  timestamptz not null default now(),
    constraint load_base check ((state = 'applied') = (base is not null))
);
create index loads_by_number on loads (coupon_no, base);
create index loads_unapplied on loads (state, lease_until) where state <> 'applied';

create table codes (
    load_id  bigint not null,
    idx      bigint not null,
    code     text not null,                         -- in the spelling of its load
    code_key text collate "C" not null unique,      -- normalised, unique in the whole system
    primary key (load_id, idx)
);

-- A claim and its outcome in one row. The columns of the outcome never change; `state` does.
-- `body` is the digest of the request body, 0 for a request without an Idempotency-Key.
create table claims (
    identity   uuid primary key,
    body       bigint not null,
    coupon_no  bigint not null,
    number     bigint not null,
    "offset"   bigint not null,
    claimed_ms bigint not null,
    state      smallint not null default 1,         -- 1 claimed, 2 locked, 3 redeemed, 4 returned, 5 revoked
    user_id    text collate "C" not null constraint claim_user_length check (length(user_id) between 1 and 256)
);
create unique index claims_live on claims (coupon_no, number) where state <> 4;
create index claims_by_user on claims (user_id, coupon_no);

-- All other outcomes, partitioned by day so that retention drops whole tables.
create table outcomes (
    day        date not null,
    identity   uuid not null,
    body       bigint not null,
    coupon_no  bigint,                              -- null: unknown coupon
    partition  int not null,
    "offset"   bigint not null,
    decided_ms bigint not null,
    kind       text not null,
    reason     text not null,
    user_id    text not null constraint outcome_user_length check (length(user_id) between 1 and 256),
    target     text,                                -- the requested coupon id, where coupon_no is null
    primary key (identity, body, day)
) partition by range (day);

-- One row per batch with messages to publish. Responses are not stored: they are rebuilt from claims and outcomes, so a
-- takeover republishes what is stored there. Messages that no other row contains are in outbox_messages.
create table outbox (
    partition   int not null,
    seq         bigint not null,
    next_offset bigint not null,
    ids         uuid[] not null,
    bodies      bigint[],                           -- null: all 0
    primary key (partition, seq)
);
create table outbox_messages (
    partition int not null,
    seq       bigint not null,
    n         int not null,
    topic     text not null,
    key       bytea,
    value     bytea,
    headers   jsonb not null,                       -- {name: value}
    primary key (partition, seq, n)
);

-- Creates the daily tables from `first_day` on. Safe to call from several workers concurrently. A table is created
-- separately and then attached: creating it as a partition would wait for, and block, all reads and writes of any day.
create function ensure_outcome_days(first_day date, days int) returns void
language plpgsql set search_path = stampede as $$
declare
    d date;
    t text;
begin
    for d in select first_day + n from generate_series(0, days - 1) n loop
        t := 'outcomes_' || to_char(d, 'YYYYMMDD');
        if to_regclass(t) is null then
            perform pg_advisory_xact_lock(hashtext('stampede.ensure_outcome_days'));
            if to_regclass(t) is null then
                execute format('create table %I (like outcomes including all)', t);
                execute format('alter table outcomes attach partition %I for values from (%L) to (%L)', t, d, d + 1);
            end if;
        end if;
    end loop;
end $$;

-- Makes p_owner the owner of a partition: waits for a write in flight, and fences every later write of the previous
-- owner.
create function take_over(p_partition int, p_owner text, p_nonce uuid) returns partitions
language plpgsql set search_path = stampede as $$
declare
    taken partitions;
begin
    insert into partitions (partition) values (p_partition) on conflict do nothing;
    update partitions
       set epoch = epoch + 1, nonce = p_nonce, owner = p_owner, attempt = null, taken_over_at = now()
     where partition = p_partition
    returning * into taken;
    return taken;
end $$;

-- Writes one batch, or nothing. Arrays named c_ are claims, o_ other outcomes, s_ stock rows (absolute values,
-- compare-and-set on the old ones), l_ loads that become stock, r_ returned numbers that are claimed again,
-- x_ identities decided before whose outcome is published again, m_ messages other than responses. Joins go from the
-- arrays to the tables: `ctid = any (array(… lateral … offset 0))` leaves a cached plan no alternative.
-- Errors: SP001 fence does not match, SP002 a count does not match, 23505 a live claim or an identity exists.
create function write_batch(
    p_partition int, p_epoch bigint, p_nonce uuid, p_write_no bigint, p_attempt uuid,
    p_next_offset bigint, p_last_offset bigint, p_last_digest bigint, p_time_ms bigint,
    p_suspect_until_ms bigint, p_emitted_seq bigint, p_day date,
    c_identity uuid[], c_body bigint[], c_coupon bigint[], c_number bigint[], c_offset bigint[], c_ms bigint[],
    c_user text[],
    o_identity uuid[], o_body bigint[], o_coupon bigint[], o_offset bigint[], o_ms bigint[], o_kind text[],
    o_reason text[], o_user text[], o_target text[],
    s_coupon bigint[], s_was_top bigint[], s_was_cursor bigint[], s_was_ahead bigint[], s_was_returned bigint[],
    s_top bigint[], s_cursor bigint[], s_ahead bigint[], s_returned bigint[], s_claimed bigint[],
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
                   claimed = s_claimed[1]
             where coupon_no = s_coupon[1] and top = s_was_top[1] and cursor = s_was_cursor[1]
               and ahead = s_was_ahead[1] and returned = s_was_returned[1];
        else
            -- Planned at each call: a plan made while the table is small is a sequential scan, and would be kept.
            execute 'update stock s
                set top = n.top, cursor = n.cursor, ahead = n.ahead, returned = n.returned, claimed = n.claimed
               from unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
                    n (coupon_no, was_top, was_cursor, was_ahead, was_returned, top, cursor, ahead, returned, claimed)
              where s.coupon_no = n.coupon_no and s.top = n.was_top and s.cursor = n.was_cursor
                and s.ahead = n.was_ahead and s.returned = n.was_returned'
            using s_coupon, s_was_top, s_was_cursor, s_was_ahead, s_was_returned,
                  s_top, s_cursor, s_ahead, s_returned, s_claimed;
        end if;
        get diagnostics v_rows = row_count;
        if v_rows <> cardinality(s_coupon) then
            raise exception 'partition %: % of % stock rows are as the owner knew them', p_partition, v_rows,
                cardinality(s_coupon) using errcode = 'SP002';
        end if;
        if s_ahead <> s_was_ahead then              -- the cursor has passed numbers that were ahead of it
            delete from stock_ahead where ctid = any (array(
                select a.ctid
                  from unnest(s_coupon, s_cursor) n (coupon_no, cursor)
                 cross join lateral (select ctid from stock_ahead a
                                      where a.coupon_no = n.coupon_no and a.number <= n.cursor offset 0) a));
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
