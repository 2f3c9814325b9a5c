-- Why a load was sealed with fewer codes than requested; null: it was not. Loads without codes are not stock: release
-- 0.1.0 could apply one, at the number at which the next load begins.
set search_path = stampede;
alter table loads add column reason text;
update loads set state = 'sealed', base = null where state = 'applied' and count = 0;
