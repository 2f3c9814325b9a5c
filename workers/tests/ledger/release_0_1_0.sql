select max(version) from stampede._sqlx_migrations where success;

select name, partitions, cluster_id from stampede.topics;

insert into stampede.topics (name, partitions, cluster_id) values ($1, $2, $3) on conflict do nothing;

select schema_id from stampede.schemas where fingerprint = $1;

insert into stampede.schemas (subject, fingerprint, definition) values ($1, $2, $3) on conflict (fingerprint) do
update set subject = stampede.schemas.subject returning schema_id;

update loads set state = 'sealed', lease_until = now() where state = 'open' and lease_until < now() returning
load_id, count, wanted;

update loads set lease_until = now() + interval '5 seconds' from coupons where coupons.coupon_no = loads.coupon_no
and state = 'sealed' and count > 0 and lease_until < now() returning load_id, coupon_id;

select pg_backend_pid(), set_config('application_name', $1, false);

select epoch, nonce, write_no, attempt, next_offset, last_offset, last_digest, time_ms, suspect_until_ms,
next_emit_seq, emitted_seq, next_deadline_ms from (select (t.taken).*, t.next_deadline_ms from
stampede.take_over($1, $2, $3) t) t;

select topic_id from stampede.partition_topics where partition = $1;

insert into stampede.partition_topics (partition, topic_id) values ($1, $2) on conflict do nothing;

with inserted as ( insert into coupons (coupon_id, partition, definition, starts_at_ms, expires_at_ms, hold_seconds,
lock_seconds, requires_lock, claims_per_user, redemptions_per_user, redemptions_per_code, redemptions_total) values
($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) on conflict (coupon_id) do nothing returning coupon_no) insert
into stock (coupon_no) select coupon_no from inserted;

select c.coupon_id, c.definition, c.status, c.starts_at_ms, c.expires_at_ms, c.hold_seconds, c.lock_seconds,
c.requires_lock, c.claims_per_user, c.redemptions_per_user, c.redemptions_per_code, c.redemptions_total,
(extract(epoch from c.created_at) * 1000)::bigint as created_ms, coalesce(c.expires_at_ms <= extract(epoch from
now()) * 1000, false) as is_over, s.top, s.top - s.cursor - s.ahead + s.returned as available, s.claimed, s.locked,
s.redeemed, s.revoked from coupons c join stock s on s.coupon_no = c.coupon_no where c.coupon_id = $1;

select coalesce(sum(wanted), 0)::bigint from loads where pattern = $1;

insert into loads (job_id, coupon_no, wanted, maker, lease_until, pattern) select $1, coupon_no, $2, $3, now() +
interval '30 seconds', $4 from coupons where coupon_id = $5 returning load_id;

copy codes (load_id, idx, code, code_key) from stdin;

select job_id, state, count, wanted from loads where job_id = $1;

update loads set count = count + $4, lease_until = now() + interval '30 seconds' where load_id = $1 and maker = $2
and state = 'open' and count = $3;

update loads set state = 'sealed', lease_until = now() + interval '5 seconds' where load_id = $1 and maker = $2 and
state = 'open';

select load_id, coupon_no, count, state = 'sealed' from stampede.loads where load_id = any ($1);

select c.coupon_id, c.coupon_no, c.status, c.starts_at_ms, c.expires_at_ms, c.claims_per_user,
c.redemptions_per_user, c.redemptions_per_code, c.redemptions_total, c.hold_seconds, c.lock_seconds,
c.requires_lock, d.discount ->> 'type', d.discount ->> 'value', d.discount ->> 'currency', d.discount ->>
'minimum_order', d.discount ->> 'maximum_discount', s.top, s.cursor, s.ahead, s.returned, s.claimed, s.locked,
s.redeemed, s.revoked, s.redemptions, case when s.ahead > 0 then array(select a.number from stampede.stock_ahead a
where a.coupon_no = c.coupon_no order by a.number) end from stampede.coupons c cross join lateral (select
c.definition -> 'discount' as discount offset 0) d cross join lateral (select * from stampede.stock s where
s.coupon_no = c.coupon_no offset 0) s where c.coupon_id = any ($1);

select stampede.write_batch(p_partition => $1::int, p_epoch => $2::bigint, p_nonce => $3::uuid, p_write_no =>
$4::bigint, p_attempt => $5::uuid, p_next_offset => $6::bigint, p_last_offset => $7::bigint, p_last_digest =>
$8::bigint, p_time_ms => $9::bigint, p_suspect_until_ms => $10::bigint, p_emitted_seq => $11::bigint, p_day => date
'1970-01-01' + $12::int, c_identity => $13::uuid[], c_body => $14::bigint[], c_coupon => $15::bigint[], c_number =>
$16::bigint[], c_offset => $17::bigint[], c_ms => $18::bigint[], c_user => $19::text[], o_identity => $20::uuid[],
o_body => $21::bigint[], o_coupon => $22::bigint[], o_offset => $23::bigint[], o_ms => $24::bigint[], o_kind =>
$25::text[], o_reason => $26::text[], o_user => $27::text[], o_target => $28::text[], s_coupon => $29::bigint[],
s_was_top => $30::bigint[], s_was_cursor => $31::bigint[], s_was_ahead => $32::bigint[], s_was_returned =>
$33::bigint[], s_was_locked => $34::bigint[], s_was_redeemed => $35::bigint[], s_was_revoked => $36::bigint[],
s_was_redemptions => $37::bigint[], s_top => $38::bigint[], s_cursor => $39::bigint[], s_ahead => $40::bigint[],
s_returned => $41::bigint[], s_claimed => $42::bigint[], s_locked => $43::bigint[], s_redeemed => $44::bigint[],
s_revoked => $45::bigint[], s_redemptions => $46::bigint[], s_passed => $47::bigint[], l_load => $48::bigint[],
l_base => $49::bigint[], r_coupon => $50::bigint[], r_number => $51::bigint[], x_identity => $52::uuid[], x_body =>
$53::bigint[], m_topic => $54::text[], m_key => $55::bytea[], m_value => $56::bytea[], m_headers => $57::text[]);

select f.identity, f.body, f.kind, coalesce(p.coupon_id, f.target, '') as coupon_id, f.reason, f.decided_ms,
f."offset", k.code, f.state, f.claimed_ms, f.hold_until_ms, f.lock_until_ms, m.identity as redemption, m.body as
redemption_body, m.order_id, m.order_amount::text as order_amount, m.discount::text as discount, m.final_price::text
as final_price, m.currency, m.redeemed_ms from (select identity, body, 'claim' as kind, coupon_no, null as target,
null as reason, claimed_ms as decided_ms, "offset", number, 1::smallint as state, claimed_ms, first_hold_ms as
hold_until_ms, null::bigint as lock_until_ms, null::uuid as redemption from claims where identity = any ($1) union
all select identity, body, 'redeem', coupon_no, null, null, redeemed_ms, "offset", number, case when claimed_ms is
not null then 3::smallint end, claimed_ms, null, null, identity from redemptions where identity = any ($1) union all
select identity, body, kind, coupon_no, target, reason, decided_ms, "offset", number, claim_state, claimed_ms,
hold_until_ms, lock_until_ms, redemption from outcomes where identity = any ($1)) f left join lateral (select
coupon_id from coupons p where p.coupon_no = f.coupon_no offset 0) p on true left join lateral (select load_id, base
from loads l where l.coupon_no = f.coupon_no and l.base < f.number order by l.base desc limit 1) l on true left join
lateral (select code from codes k where k.load_id = l.load_id and k.idx = f.number - l.base offset 0) k on true left
join lateral (select * from redemptions m where m.identity = f.redemption offset 0) m on true;

select o.identity, o.body, coalesce(k.coupon_id, o.target, ''), o.coupon_no, o.user_id, o."offset", o.decided_ms,
o.kind, o.reason, o.number, x.code, o.claim_state, o.claimed_ms, o.hold_until_ms, o.lock_until_ms, o.order_id,
o.redemption, o.redemption_body, r.order_id, r.amount, r.discount, r.price, r.currency, r.redeemed_ms from
stampede.outcomes o left join lateral (select coupon_id from stampede.coupons k where k.coupon_no = o.coupon_no
offset 0) k on true left join lateral (select load_id, base from stampede.loads l where l.coupon_no = o.coupon_no
and l.base < o.number order by l.base desc limit 1) l on true left join lateral (select code from stampede.codes x
where x.load_id = l.load_id and x.idx = o.number - l.base offset 0) x on true left join lateral (select r.order_id,
r.order_amount::text as amount, r.discount::text as discount, r.final_price::text as price, r.currency,
r.redeemed_ms from stampede.redemptions r where r.identity = o.redemption offset 0) r on true where o.identity = any
($1);

select r.identity, r.body, k.coupon_id, r.coupon_no, r.user_id, r."offset", r.ms, r.number, x.code, r.hold_until,
r.claimed, r.order_id, r.amount, r.discount, r.price, r.currency, r.ms from (select c.identity, c.body, c.coupon_no,
c.user_id, c."offset", c.claimed_ms as ms, c.number, c.first_hold_ms as hold_until, null::bigint as claimed,
null::text as order_id, null::text as amount, null::text as discount, null::text as price, null::text as currency
from stampede.claims c where c.identity = any ($1) union all select d.identity, d.body, d.coupon_no, d.user_id,
d."offset", d.redeemed_ms, d.number, null, d.claimed_ms, d.order_id, d.order_amount::text, d.discount::text,
d.final_price::text, d.currency from stampede.redemptions d where d.identity = any ($1)) r cross join lateral
(select coupon_id from stampede.coupons k where k.coupon_no = r.coupon_no offset 0) k cross join lateral (select
load_id, base from stampede.loads l where l.coupon_no = r.coupon_no and l.base < r.number order by l.base desc limit
1) l cross join lateral (select code from stampede.codes x where x.load_id = l.load_id and x.idx = r.number - l.base
offset 0) x;

select w.n, l.base + x.idx, x.code from unnest($1::bigint[], $2::bigint[], $3::bigint[]) with ordinality w
(coupon_no, after, count, n) cross join lateral (select w.after + w.count + count(*) as until from
stampede.stock_ahead a where a.coupon_no = w.coupon_no and a.number > w.after) r cross join lateral (select load_id,
base from stampede.loads l where l.coupon_no = w.coupon_no and l.base < r.until and l.base >= (select max(f.base)
from stampede.loads f where f.coupon_no = w.coupon_no and f.base <= w.after) offset 0) l cross join lateral (select
idx, code from stampede.codes x where x.load_id = l.load_id and x.idx > w.after - l.base and x.idx <= r.until -
l.base offset 0) x where not exists (select from stampede.stock_ahead a where a.coupon_no = w.coupon_no and a.number
= l.base + x.idx offset 0);

select stampede.write_batch(p_partition => $1::int, p_epoch => $2::bigint, p_nonce => $3::uuid, p_write_no =>
$4::bigint, p_attempt => $5::uuid, p_next_offset => $6::bigint, p_last_offset => $7::bigint, p_last_digest =>
$8::bigint, p_time_ms => $9::bigint, p_suspect_until_ms => $10::bigint, p_emitted_seq => $11::bigint, p_day => date
'1970-01-01' + $12::int, c_identity => $13::uuid[], c_body => $14::bigint[], c_coupon => $15::bigint[], c_number =>
$16::bigint[], c_offset => $17::bigint[], c_ms => $18::bigint[], c_user => $19::text[], o_identity => $20::uuid[],
o_body => $21::bigint[], o_coupon => $22::bigint[], o_offset => $23::bigint[], o_ms => $24::bigint[], o_kind =>
$25::text[], o_reason => $26::text[], o_user => $27::text[], o_target => $28::text[], s_coupon => $29::bigint[],
s_was_top => $30::bigint[], s_was_cursor => $31::bigint[], s_was_ahead => $32::bigint[], s_was_returned =>
$33::bigint[], s_was_locked => $34::bigint[], s_was_redeemed => $35::bigint[], s_was_revoked => $36::bigint[],
s_was_redemptions => $37::bigint[], s_top => $38::bigint[], s_cursor => $39::bigint[], s_ahead => $40::bigint[],
s_returned => $41::bigint[], s_claimed => $42::bigint[], s_locked => $43::bigint[], s_redeemed => $44::bigint[],
s_revoked => $45::bigint[], s_redemptions => $46::bigint[], s_passed => $47::bigint[], l_load => $48::bigint[],
l_base => $49::bigint[], r_coupon => $50::bigint[], r_number => $51::bigint[], x_identity => $52::uuid[], x_body =>
$53::bigint[], m_topic => $54::text[], m_key => $55::bytea[], m_value => $56::bytea[], m_headers => $57::text[]),
stampede.write_life(p_partition => $1::int, p_epoch => $2::bigint, p_nonce => $3::uuid, p_write_no => $4::bigint,
p_day => date '1970-01-01' + $12::int, u_identity => $58::uuid[], u_was_state => $59::smallint[], u_was_deadline =>
$60::bigint[], u_state => $61::smallint[], u_hold_until => $62::bigint[], u_lock_until => $63::bigint[], u_order =>
$64::text[], u_lapsed => $65::bigint[], c_identity => $66::uuid[], c_body => $67::bigint[], c_coupon =>
$68::bigint[], c_number => $69::bigint[], c_offset => $70::bigint[], c_ms => $71::bigint[], c_user => $72::text[],
c_first_hold => $73::bigint[], c_state => $74::smallint[], c_hold_until => $75::bigint[], c_lock_until =>
$76::bigint[], c_order => $77::text[], c_lapsed => $78::bigint[], b_identity => $79::uuid[], b_body =>
$80::bigint[], b_ms => $81::bigint[], d_identity => $82::uuid[], d_body => $83::bigint[], d_coupon => $84::bigint[],
d_number => $85::bigint[], d_offset => $86::bigint[], d_ms => $87::bigint[], d_claimed => $88::bigint[], d_user =>
$89::text[], d_order => $90::text[], d_amount => $91::text[], d_discount => $92::text[], d_price => $93::text[],
d_currency => $94::text[], d_rolled_back => $95::bigint[], a_identity => $96::uuid[], a_body => $97::bigint[],
a_coupon => $98::bigint[], a_offset => $99::bigint[], a_ms => $100::bigint[], a_kind => $101::text[], a_user =>
$102::text[], a_number => $103::bigint[], a_state => $104::smallint[], a_claimed => $105::bigint[], a_hold_until =>
$106::bigint[], a_lock_until => $107::bigint[], a_order => $108::text[], a_redemption => $109::uuid[],
a_redemption_body => $110::bigint[], k_coupon => $111::bigint[], k_number => $112::bigint[], k_was_uses =>
$113::bigint[], k_was_revoked => $114::boolean[], k_uses => $115::bigint[], k_revoked => $116::boolean[], f_coupon
=> $117::bigint[], f_number => $118::bigint[], t_coupon => $119::bigint[], t_number => $120::bigint[], r_coupon =>
$121::bigint[], r_number => $122::bigint[]);

select stampede.ensure_outcome_days(date '1970-01-01' + $1::int, $2);

select p.coupon_id from codes k join loads l on l.load_id = k.load_id and l.state = 'applied' join coupons p on
p.coupon_no = l.coupon_no where k.code_key = $1;

select x.code_key, x.code, l.coupon_no, x.load_id, x.idx, l.base, coalesce(m.uses, 0), coalesce(m.revoked, false),
c.identity, c.body, c.user_id, c.claimed_ms, c.state, c.hold_until_ms, c.lock_until_ms, c.order_id, c.lapsed_ms,
w.user_id, v.lapsed is not null from (select key, user_id from unnest($1::text[], $2::text[]) w (key, user_id) union
all select x.code_key, null from unnest($3::uuid[], $4::bigint[]) d (identity, body) cross join lateral (select
coupon_no, number from stampede.redemptions r where r.identity = d.identity and r.body = d.body offset 0) r cross
join lateral (select load_id, base from stampede.loads l where l.coupon_no = r.coupon_no and l.base < r.number order
by l.base desc limit 1) l cross join lateral (select code_key from stampede.codes x where x.load_id = l.load_id and
x.idx = r.number - l.base offset 0) x) w cross join lateral (select * from stampede.codes x where x.code_key = w.key
offset 0) x cross join lateral (select coupon_no, base from stampede.loads l where l.load_id = x.load_id offset 0) l
left join lateral (select * from stampede.claims c where c.coupon_no = l.coupon_no and c.number >= l.base + x.idx
and c.state <> 4 order by c.number limit 1) c on c.number = l.base + x.idx left join lateral (select uses, revoked
from stampede.code_marks m where m.coupon_no = l.coupon_no and m.number = l.base + x.idx offset 0) m on true left
join lateral (select true as lapsed from stampede.claims v where hashtextextended(v.user_id, 0) =
hashtextextended(w.user_id, 0) and v.user_id = w.user_id and v.coupon_no = l.coupon_no and v.number = l.base + x.idx
and v.state = 4 and v.lapsed_ms is not null limit 1) v on true;

select ms, identity, body from ((select claimed_ms as ms, identity, body from claims where hashtextextended(user_id,
0) = hashtextextended($1, 0) and user_id = $1 and (claimed_ms, identity, body) < ($2, $3, $4) order by claimed_ms
desc, identity desc, body desc limit $5) union all (select redeemed_ms, identity, body from redemptions where
hashtextextended(user_id, 0) = hashtextextended($1, 0) and user_id = $1 and (redeemed_ms, identity, body) < ($2, $3,
$4) order by redeemed_ms desc, identity desc, body desc limit $5) union all (select decided_ms, identity, body from
outcomes where user_id = $1 and (decided_ms, identity, body) < ($2, $3, $4) order by decided_ms desc, identity desc,
body desc limit $5)) r order by ms desc, identity desc, body desc limit $5;

select (select n.deadline_ms from stampede.claims n where n.partition = $1 and n.deadline_ms is not null and
n.deadline_ms > $2 order by n.deadline_ms limit 1), k.coupon_id, x.code, c.coupon_no, c.number, c.identity, c.body,
c.user_id, c.claimed_ms, c.state, c.hold_until_ms, c.lock_until_ms, c.order_id, c.lapsed_ms from (select) one left
join lateral (select * from stampede.claims c where c.partition = $1 and c.deadline_ms is not null and c.deadline_ms
<= $2 order by c.deadline_ms, c.coupon_no, c.number limit $3) c on true left join lateral (select coupon_id from
stampede.coupons k where k.coupon_no = c.coupon_no offset 0) k on true left join lateral (select load_id, base from
stampede.loads l where l.coupon_no = c.coupon_no and l.base < c.number order by l.base desc limit 1) l on true left
join lateral (select code from stampede.codes x where x.load_id = l.load_id and x.idx = c.number - l.base offset 0)
x on true order by c.deadline_ms, c.coupon_no, c.number;

select c.claimed_ms, c.identity, p.coupon_id, k.code, case when c.state = 3 then 'REDEEMED' when c.state = 5 then
'REVOKED' when p.expires_at_ms <= c.now_ms then 'EXPIRED' when c.is_locked then 'LOCKED' else 'CLAIMED' end as
state, case when c.state in (1, 2) then c.hold_until_ms end as hold_until_ms, case when c.is_locked then
c.lock_until_ms end as lock_until_ms, case when c.is_locked or c.state = 3 then c.order_id end as order_id from
(select c.*, n.now_ms, c.state = 2 and c.lock_until_ms > n.now_ms as is_locked from (select (extract(epoch from
now()) * 1000)::bigint as now_ms) n, claims c where hashtextextended(c.user_id, 0) = hashtextextended($1, 0) and
c.user_id = $1 and (c.claimed_ms, c.identity) < ($2, $3) and c.state + 0 <> 4 and not coalesce(c.hold_until_ms <=
n.now_ms and (c.state = 1 or c.state = 2 and c.lock_until_ms <= n.now_ms), false) order by c.claimed_ms desc,
c.identity desc limit $4) c cross join lateral (select coupon_id, expires_at_ms from coupons p where p.coupon_no =
c.coupon_no offset 0) p cross join lateral (select load_id, base from loads l where l.coupon_no = c.coupon_no and
l.base < c.number order by l.base desc limit 1) l cross join lateral (select code from codes k where k.load_id =
l.load_id and k.idx = c.number - l.base offset 0) k order by c.claimed_ms desc, c.identity desc;

select x.code, p.coupon_id, p.definition, p.status, p.starts_at_ms, p.expires_at_ms, p.requires_lock,
p.redemptions_per_code, p.redemptions_per_user, p.redemptions_total, (extract(epoch from now()) * 1000)::bigint as
now_ms, coalesce(m.uses, 0) as uses, coalesce(m.revoked, false) as revoked, s.redemptions, c.user_id = $2 as is_own,
c.state, c.hold_until_ms, c.lock_until_ms, exists (select from claims g where hashtextextended(g.user_id, 0) =
hashtextextended($2, 0) and g.user_id = $2 and g.coupon_no = x.coupon_no and g.number = x.number and g.state + 0 = 4
and g.lapsed_ms is not null) as has_lapsed, case when p.redemptions_per_user is null then 0 else (select count(*)
from (select from redemptions r where hashtextextended(r.user_id, 0) = hashtextextended($2, 0) and r.user_id = $2
and r.coupon_no = x.coupon_no and r.rolled_back_ms is null limit p.redemptions_per_user) r) end as own_redemptions
from (select k.code, l.coupon_no, l.base + k.idx as number from codes k join loads l on l.load_id = k.load_id and
l.state = 'applied' where k.code_key = $1) x join coupons p on p.coupon_no = x.coupon_no join stock s on s.coupon_no
= x.coupon_no left join lateral (select * from code_marks m where m.coupon_no = x.coupon_no and m.number = x.number
offset 0) m on true left join lateral (select * from claims c where c.coupon_no = x.coupon_no and c.number >=
x.number and c.state <> 4 order by c.number limit 1) c on c.number = x.number;

select p.coupon_id from redemptions r join coupons p on p.coupon_no = r.coupon_no where r.identity = $1 and r.body =
$2;

select r.identity, r.body, r.order_id, r.order_amount::text, r.discount::text, r.final_price::text, r.currency,
r.redeemed_ms, r.coupon_no, r.number, r.user_id, r.rolled_back_ms is not null from unnest($1::uuid[], $2::bigint[])
w (identity, body) cross join lateral (select * from stampede.redemptions r where r.identity = w.identity and r.body
= w.body offset 0) r;

select epoch, nonce, write_no, attempt, next_offset, last_offset, last_digest, time_ms, suspect_until_ms,
next_emit_seq, emitted_seq, null::bigint from stampede.partitions where partition = $1 for update;

select seq, next_offset, ids, bodies from stampede.outbox where partition = $1 and seq between $2 and $3 order by
seq;

select seq, topic, key, value, headers from stampede.outbox_messages where partition = $1 and seq between $2 and $3
order by seq, n;

select w.coupon_no, w.user_id, n.count, r.count from (select *, hashtextextended(user_id, 0) as hash from
unnest($1::bigint[], $2::text[], $3::boolean[]) w (coupon_no, user_id, redemptions)) w cross join lateral (select
count(*) from stampede.claims c where hashtextextended(c.user_id, 0) = w.hash and c.user_id = w.user_id and
c.coupon_no = w.coupon_no and c.state + 0 <> 4) n cross join lateral (select count(*) filter (where r.rolled_back_ms
is null) from stampede.redemptions r where w.redemptions and hashtextextended(r.user_id, 0) = w.hash and r.user_id =
w.user_id and r.coupon_no = w.coupon_no) r where n.count > 0 or r.count > 0;

select true from coupons where coupon_id = $1;

select w.coupon_no, w.number, w.order_id from unnest($1::bigint[], $2::bigint[], $3::text[]) w (coupon_no, number,
order_id) cross join lateral (select order_id from stampede.redemptions r where r.coupon_no = w.coupon_no and
r.number = w.number and r.order_id >= w.order_id and r.rolled_back_ms is null order by r.order_id limit 1) r where
r.order_id = w.order_id;

select definition from stampede.schemas where schema_id = $1;

insert into stampede.schemas (subject, fingerprint, definition) values ($1, $2, $3) returning schema_id;
