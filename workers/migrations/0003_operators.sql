-- What operators need: to which topic the offsets of a partition belong, and what was ever done by hand.

set search_path = stampede;

-- The identity that Kafka gave `coupon.requests` when it was made, as each partition's first owner found it. A topic
-- that was recreated has the same name and another identity. Beside `partitions`, whose row is written all the time.
create table partition_topics (
    partition   int primary key,
    topic_id    uuid not null,
    recorded_at timestamptz not null default now()
);

-- Every repair: nothing is ever skipped or decided again without a row here that says who wanted it, and why.
create table repairs (
    repair_id    bigint generated always as identity primary key,
    partition    int not null,
    repaired_at  timestamptz not null default now(),
    who          text not null,
    reason       text not null,
    finding      text not null,         -- why the partition had stopped
    from_offset  bigint not null,       -- would have been decided next …
    to_offset    bigint not null,       -- … and is decided next: larger, and what lies between is skipped
    log_start    bigint not null,
    log_end      bigint not null,
    was_write_no bigint not null,
    write_no     bigint not null,
    was_topic_id uuid,
    topic_id     uuid
);
create index repairs_by_partition on repairs (partition, repair_id);

-- Moves a partition that has stopped to where an operator wants it to go on, and records that. Whoever owns it is shut
-- out (epoch and nonce), and takes over again. The write number grows past everything that Kafka has heard of.
-- Compare-and-set on what the operator saw; answers the repair's number, or null if the row has changed meanwhile.
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
