-- What is dropped when it is old: days of outcomes, what is left of the outbox, jobs without codes.
set search_path = stampede;

-- When a partition had decided every record of its log. The time of a partition without traffic stands still; this
-- moves, so that the partition does not keep old days for ever.
create table caught_up (
    partition int primary key,
    at_ms     bigint not null           -- by Postgres' clock
);

-- Records that these partitions have decided every record below these offsets, which were the ends of their logs. Of a
-- partition that was repaired or restored meanwhile, nothing is recorded.
create function record_caught_up(p_partitions int[], p_ends bigint[]) returns void
language sql set search_path = stampede as $$
    insert into caught_up as c (partition, at_ms)
    select p.partition, (extract(epoch from now()) * 1000)::bigint
      from unnest(p_partitions, p_ends) e (partition, log_end)
      join partitions p on p.partition = e.partition and p.next_offset = e.log_end
        on conflict (partition) do update set at_ms = greatest(c.at_ms, excluded.at_ms)
$$;

-- The tables of days that are older than the retention and needed by no partition, oldest first. A partition needs a day
-- until it can no longer look a duplicate up on it, and while an entry of its outbox refers to it.
create function droppable_days(p_retention_days int, p_window_ms bigint) returns setof text
language plpgsql stable set search_path = stampede as $$
declare
    v_end_ms bigint;
    v_table text;
    v_needed boolean;
begin
    for v_table, v_end_ms in
        select c.relname, (extract(epoch from to_date(right(c.relname, 8), 'YYYYMMDD') + 1) * 1000)::bigint
          from pg_inherits i join pg_class c on c.oid = i.inhrelid
         where i.inhparent = 'outcomes'::regclass and not i.inhdetachpending
           and to_date(right(c.relname, 8), 'YYYYMMDD') < (now() at time zone 'UTC')::date - p_retention_days
         order by 1
    loop
        continue when exists (
            select from partitions p left join caught_up u using (partition)
             where greatest(p.time_ms, coalesce(u.at_ms, 0)) < v_end_ms + p_window_ms);
        execute format('select exists (
                select from partitions p
                  join outbox o on o.partition = p.partition and o.seq > p.emitted_seq
                 where exists (select from %I x where x.identity = any (o.ids)))', v_table)
            into v_needed;
        if not v_needed then
            return next v_table;
        end if;
    end loop;
end $$;

-- Deletes what nothing refers to any more: outbox entries at or below the watermark, and jobs that ended without a code
-- before the retention. Returns the number of rows.
create function delete_leftovers(p_retention_days int) returns bigint
language plpgsql set search_path = stampede as $$
declare
    v_rows bigint;
    v_total bigint := 0;
begin
    delete from outbox_messages m using partitions p where p.partition = m.partition and m.seq <= p.emitted_seq;
    get diagnostics v_rows = row_count;
    v_total := v_total + v_rows;
    delete from outbox o using partitions p where p.partition = o.partition and o.seq <= p.emitted_seq;
    get diagnostics v_rows = row_count;
    v_total := v_total + v_rows;
    delete from loads
     where state = 'sealed' and count = 0 and created_at < now() - make_interval(days => p_retention_days);
    get diagnostics v_rows = row_count;
    return v_total + v_rows;
end $$;
