-- Upgrades while workers run. An owner's level is the newest kind of record, rule or state that it can read and decide.
-- What an older owner would read or decide wrongly stays off until `workers migrate --finish` raises the required level,
-- which fences the owners below it and keeps them from taking over again.

set search_path = stampede;

-- The lowest level that an owner may have. One row.
create table required_level (
    only_row boolean primary key default true constraint required_level_one_row check (only_row),
    level    int not null
);
insert into required_level (level) values (1);

-- The level of each partition's owner; no row: 1. Separate from `partitions`, whose rows are updated with every batch.
create table owner_levels (
    partition int primary key,
    level     int not null
);

-- Makes p_owner the owner of a partition: waits for a write in flight, and fences every later write of the previous
-- owner. A statement of its own selects the next deadline after the fence has moved, so that it sees every write of the
-- previous owner. The level is locked first: a takeover either precedes finish_upgrade, which then fences it, or sees
-- the raised level. Error: SP003 the owner's level is too low.
create function take_over_2(
    p_partition int, p_owner text, p_nonce uuid, p_level int, out taken partitions, out next_deadline_ms bigint
) language plpgsql set search_path = stampede as $$
declare
    v_required int;
begin
    select level into strict v_required from required_level for share;
    if p_level < v_required then
        raise exception 'partition %: the upgrade to level % is finished, and this worker has level %', p_partition,
            v_required, p_level using errcode = 'SP003', hint = 'Upgrade this worker.';
    end if;
    insert into partitions (partition) values (p_partition) on conflict do nothing;
    update partitions
       set epoch = epoch + 1, nonce = p_nonce, owner = p_owner, attempt = null, taken_over_at = now()
     where partition = p_partition
    returning * into taken;
    insert into owner_levels as o (partition, level) values (p_partition, p_level)
        on conflict (partition) do update set level = excluded.level where o.level <> excluded.level;
    select deadline_ms into next_deadline_ms
      from claims
     where partition = p_partition and deadline_ms is not null
     order by deadline_ms limit 1;
end $$;

-- The call of release 0.1.0, whose workers have level 1.
create or replace function take_over(
    p_partition int, p_owner text, p_nonce uuid, out taken partitions, out next_deadline_ms bigint
) language sql set search_path = stampede as $$
    select t.taken, t.next_deadline_ms from take_over_2(p_partition, p_owner, p_nonce, 1) t
$$;

-- Requires p_level of every owner from now on, and fences those below it. Never lowers the level. Returns the partitions
-- whose owners were fenced.
create function finish_upgrade(p_level int) returns setof int
language plpgsql set search_path = stampede as $$
begin
    update required_level set level = greatest(level, p_level);
    return query
        update partitions p
           set epoch = epoch + 1, nonce = gen_random_uuid(), owner = null, attempt = null
         where p.owner is not null
           and coalesce((select o.level from owner_levels o where o.partition = p.partition), 1) < p_level
        returning p.partition;
end $$;
