# Runs beside a launcher and outlives it. When the launcher ends, for whatever reason, the other end of standard input
# closes. The script then ends the remaining children and removes a temporary data directory.
# Arguments: the data directory; `remove` or `keep`.
trap '' HUP INT QUIT TERM
cat >/dev/null

# Whether the process runs. Pids are reused; a pid together with its start time is not.
runs() {
    [ -n "$2" ] && [ "$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20)" = "$2" ] &&
        [ "$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 1)" != Z ]
}

# Signals every running child; succeeds if there was one. `end` shuts Postgres down immediately, so that it ends its
# backends and removes its shared memory, and kills the others; `kill` kills all; `check` sends no signal.
send() {
    found=1
    for file in "$1"/run/*.pid; do
        [ -f "$file" ] && read -r pid started <"$file" && runs "$pid" "$started" || continue
        found=0
        case "$2 $file" in
        "end "*/postgres.pid) kill -QUIT "$pid" && kill -CONT "$pid" ;;
        end\ * | kill\ *) kill -KILL "$pid" ;;
        esac
    done 2>/dev/null
    return $found
}

send "$1" end
tries=0
while send "$1" check && [ "$tries" -lt 80 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
send "$1" kill

# Shared memory of a postmaster that was killed; nothing else would remove it.
sed -n 7p "$1/postgres/postmaster.pid" 2>/dev/null | while read -r key id; do
    awk -v key="$key" -v id="$id" '$1 == key && $2 == id && $7 == 0 { print $2 }' /proc/sysvipc/shm
done | xargs -r -n 1 ipcrm -m 2>/dev/null

# The small disk of Postgres' tables (see disk.rs).
umount -l "$1/disk" 2>/dev/null

[ "$2" = remove ] || exit 0
tries=0
while rm -rf -- "$1" 2>/dev/null; [ -e "$1" ] && [ "$tries" -lt 50 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
