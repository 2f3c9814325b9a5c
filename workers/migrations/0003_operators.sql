-- For operators: the topic that a partition's offsets belong to, and all manual repairs.

set search_path = stampede;

-- The topic id of `coupon.requests`, recorded by the first owner of each partition. A recreated topic has the same name
-- and another id. Separate from `partitions`, whose rows are updated with every batch.
create table partition_topics (
    partition   int primary key,
    topic_id    uuid not null,
    recorded_at timestamptz not null default now()
);

-- All repairs. Offsets are skipped or decided again only with a row here that has the person and the reason.
create table repairs (
    repair_id    bigint generated always as identity primary key,
    partition    int not null,
    repaired_at  timestamptz not null default now(),
    who          text not null,
    reason       text not null,
    finding      text not null,         -- why the partition had stopped
    from_offset  bigint not null,       -- the next offset before the repair …
    to_offset    bigint not null,       -- … and after it; if larger, the offsets in between are skipped
    log_start    bigint not null,
    log_end      bigint not null,
    was_write_no bigint not null,
    write_no     bigint not null,
    was_topic_id uuid,
    topic_id     uuid
);
create index repairs_by_partition on repairs (partition, repair_id);

-- Sets the next offset of a stopped partition as chosen by an operator, and records the repair. The present owner is
-- fenced (epoch and nonce) and takes over again. The new write number is above every write number committed to Kafka.
-- Compare-and-set on the row that the operator saw; returns the repair's id, or null if the row has changed since.
create function repair_partition(
    p_partition int, p_was_write_no bigint, p_from_offset bigint,
    p_write_no bigint, p_to_offset bigint, p_last_offset bigint, p_last_digest bigint, p_topic_id uuid,
    p_who text, p_reason text, p_finding text, p_log_start bigint, p_log_end bigint
) returns bigint
language plpgsql set search_path = stampede as $$
declare
    v_was_topic_id uuid;
    v_repair_id bigint;
begin
    update partitions
       set epoch = epoch + 1, nonce = gen_random_uuid(), owner = null, attempt = null, write_no = p_write_no,
           next_offset = p_to_offset, last_offset = p_last_offset, last_digest = p_last_digest
     where partition = p_partition and write_no = p_was_write_no and next_offset = p_from_offset
       and write_no < p_write_no;
    if not found then
        return null;
    end if;
    select topic_id into v_was_topic_id from partition_topics where partition = p_partition;
    if p_topic_id is not null then
        insert into partition_topics (partition, topic_id) values (p_partition, p_topic_id)
            on conflict (partition) do update set topic_id = excluded.topic_id, recorded_at = now();
    end if;
    insert into repairs (partition, who, reason, finding, from_offset, to_offset, log_start, log_end,
                         was_write_no, write_no, was_topic_id, topic_id)
    values (p_partition, p_who, p_reason, p_finding, p_from_offset, p_to_offset, p_log_start, p_log_end,
            p_was_write_no, p_write_no, v_was_topic_id, coalesce(p_topic_id, v_was_topic_id))
    returning repair_id into v_repair_id;
    return v_repair_id;
end $$;
