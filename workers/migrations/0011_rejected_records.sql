-- Records that an operator has had rejected because their append time is too far ahead of Postgres' clock. Others in the
-- range are decided as usual.

set search_path = stampede;

create table rejected_records (
    rejection_id bigint generated always as identity,
    partition    int not null,
    from_offset  bigint not null,
    to_offset    bigint not null,
    who          text not null,
    reason       text not null,
    rejected_at  timestamptz not null default now(),
    primary key (partition, from_offset, to_offset),
    constraint rejected_range check (from_offset <= to_offset)
);
