# Runs beside a launcher and outlives it. When the launcher is gone, however it went, the other end of standard input
# closes; then what is left of its children is ended, and a temporary data directory removed.
# Arguments: the data directory; `remove` or `keep`.
trap '' HUP INT QUIT TERM
cat >/dev/null

# A pid alone may be somebody else's by now; with its start time it is not.
lives() {
    [ -n "$2" ] && [ "$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20)" = "$2" ] &&
        [ "$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 1)" != Z ]
}

# Sends the signal to each child that lives; answers whether there was one. Postgres gets its immediate shutdown
# instead, in which it ends its backends and gives back its shared memory, unless it is to be killed for good.
send() {
    found=1
    for file in "$1"/run/*.pid; do
        [ -f "$file" ] && read -r pid started <"$file" && lives "$pid" "$started" || continue
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
while send "$1" look && [ "$tries" -lt 80 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
send "$1" kill

# Shared memory of a postmaster that was killed: nobody else would ever give it back.
sed -n 7p "$1/postgres/postmaster.pid" 2>/dev/null | while read -r key id; do
    awk -v key="$key" -v id="$id" '$1 == key && $2 == id && $7 == 0 { print $2 }' /proc/sysvipc/shm
done | xargs -r -n 1 ipcrm -m 2>/dev/null

# A small disk of Postgres' tables.
umount -l "$1/disk" 2>/dev/null

[ "$2" = remove ] || exit 0
tries=0
while rm -rf -- "$1" 2>/dev/null; [ -e "$1" ] && [ "$tries" -lt 50 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
