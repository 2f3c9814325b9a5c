-- Looks outcomes up in the tables of named days. A query of the partitioned table plans, locks and probes the table of
-- every day that is kept; this one costs the same whatever is kept. A day without a table has no outcomes.
set search_path = stampede;

create function outcomes_of(p_identities uuid[], p_days int[]) returns setof outcomes
language plpgsql stable rows 100 set search_path = stampede as $$
declare
    v_day int;
    v_table text;
begin
    foreach v_day in array p_days loop
        v_table := 'outcomes_' || to_char(date '1970-01-01' + v_day, 'YYYYMMDD');
        if to_regclass(v_table) is not null then
            begin
                return query execute format('select day, identity, body, coupon_no, partition, "offset", decided_ms, kind,
                        reason, user_id, target, number, claim_state, claimed_ms, hold_until_ms, lock_until_ms, order_id,
                        redemption, redemption_body
                   from %I where identity = any ($1)', v_table) using p_identities;
            exception when undefined_table then     -- dropped meanwhile
                null;
            end;
        end if;
    end loop;
end $$;
