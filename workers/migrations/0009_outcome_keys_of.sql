-- A page of a user's outcomes, newest first: reads the tables of the days from the page's position down, until the page
-- is full. A batch decides the records of one day, so no outcome of an earlier day is newer. (Release 0.1.0 let a batch
-- begin before midnight, hence one day more.)
set search_path = stampede;

create function outcome_keys_of(p_user text, p_ms bigint, p_identity uuid, p_body bigint, p_rows int)
returns table (ms bigint, identity uuid, body bigint, day int)
language plpgsql stable rows 100 set search_path = stampede as $$
declare
    v_day int;
    v_table text;
    v_left int := p_rows;
    v_rows int;
begin
    for v_day, v_table in
        select to_date(right(c.relname, 8), 'YYYYMMDD') - date '1970-01-01', c.relname
          from pg_inherits i join pg_class c on c.oid = i.inhrelid
         where i.inhparent = 'outcomes'::regclass
         order by 1 desc
    loop
        continue when v_day > p_ms / 86400000 + 1;
        exit when v_left <= 0;
        begin
            return query execute format('select decided_ms, identity, body, $6
                   from %I
                  where user_id = $1 and (decided_ms, identity, body) < ($2, $3, $4)
                  order by decided_ms desc, identity desc, body desc limit $5', v_table)
                using p_user, p_ms, p_identity, p_body, p_rows, v_day;
            get diagnostics v_rows = row_count;
            v_left := v_left - v_rows;
        exception when undefined_table then         -- dropped meanwhile
            null;
        end;
    end loop;
end $$;
