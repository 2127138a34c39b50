#!/usr/bin/env bash
# Where the time of a request goes: instructions by room of httpsrv.h, each with those of the C library that the room
# calls; how often memory is taken; and the system calls.
#
#     make bench-rooms        needs callgrind (Debian package valgrind); wrk and strace for the system calls
#
# Instructions and allocations are of build/check, which serves itself: the same in every run, but for those of the pool,
# whose worker may sleep or not. System calls are those of build/showcase under wrk with 64 connections.

name=bench-rooms
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=bench/callgrind.sh
. "$bench/callgrind.sh"

ways=(keep-alive varied keep-alive-x16 pool file)

# profile WAY REQUESTS: instructions by room into $temp/WAY.REQUESTS
profile() {
    callgrind --fair-sched=yes --dump-line=yes --compress-strings=no --compress-pos=no \
        "$temp/check" "$1" "$2" || die "$1: $(tail -n 3 "$temp/valgrind")"
    awk -v program="$temp/check" -f "$bench/rooms.awk" "$bench/../httpsrv.h" "$temp/callgrind" >"$temp/$1.$2"
}

# Lines of way, room, own instructions, those of the C library, for each request: what the second half has cost.
profile_all() {
    local way
    for way in "${ways[@]}"; do
        profile "$way" "$COUNT"
        profile "$way" $((2 * COUNT))
        awk -v way="$way" -v count="$COUNT" '
            { sign = FILENAME == ARGV[1] ? -1 : 1; own[$1] += sign * $2; library[$1] += sign * $3 }
            END { for (room in own) print way, room, own[room] / count, library[room] / count }
        ' "$temp/$way.$COUNT" "$temp/$way.$((2 * COUNT))"
    done
}

# Rooms in the order of the header.
show_profile() {
    awk -v ways="${ways[*]}" '
        BEGIN { n = split(ways, way, " ") }
        FILENAME == ARGV[1] { if (/^\/\/ >>/) order[++rooms] = substr($2, 3); next }
        { own[$1, $2] = $3; library[$1, $2] = $4; sum[$1] += $3; library_sum[$1] += $4; most[$2] += $3 + $4 }
        function whole(count) { return count > -0.5 && count < 0.5 ? 0 : count } # not "-0"
        function cells(own, library) { return sprintf(" %14.0f %6.0f", whole(own), whole(library)) }
        END {
            printf "%-12s", "room"
            for (k = 1; k <= n; k++) printf " %14s %6s", way[k], "libc"
            print ""
            for (i = 1; i <= rooms; i++) {
                if (most[order[i]] < 0.5) continue
                line = sprintf("%-12s", order[i])
                for (k = 1; k <= n; k++) line = line cells(own[way[k], order[i]], library[way[k], order[i]])
                print line
            }
            line = sprintf("%-12s", "sum")
            for (k = 1; k <= n; k++) line = line cells(sum[way[k]], library_sum[way[k]])
            print line
        }
    ' "$bench/../httpsrv.h" -
}

# count_calls NAME PATH WRK-FLAGS COMMAND...: system calls per request, under strace
count_calls() {
    local what=$1 path=$2 flags=$3 tracee requests
    shift 3
    start_ours strace -c -f -o "$temp/strace" "$@"
    # shellcheck disable=SC2086
    run_wrk 0-$(($(nproc) - 1)) 1 64 "http://127.0.0.1:$port$path" $flags
    read -r requests _ < <(parse_wrk)
    tracee=$(cat "/proc/$pid/task/$pid/children")
    # shellcheck disable=SC2086
    kill -TERM $tracee
    wait "$pid"
    awk -v what="$what" -v requests="$requests" '
        $1 ~ /^[0-9.]+$/ && $NF != "total" && requests > 0 && $4 / requests >= 0.005 {
            list = list sprintf("  %s %.2f", $NF, $4 / requests)
        }
        END { printf "%-16s%s\n", what, list }
    ' "$temp/strace"
}

count_all_calls() {
    local showcase=("$BUILD/showcase" --host 127.0.0.1 --quiet --pool-threads 1 --root "$temp/root")
    mkdir "$temp/root"
    printf 'Hello, World!' >"$temp/root/hello.txt"
    write_x16_script "$temp/x16.lua"
    count_calls keep-alive /plaintext '' "${showcase[@]}"
    write_varied_script "$temp/varied.lua"
    count_calls varied /plaintext "-s $temp/varied.lua" "${showcase[@]}"
    count_calls keep-alive-x16 /plaintext "-s $temp/x16.lua" "${showcase[@]}"
    count_calls pool /pool/plaintext '' "${showcase[@]}"
    count_calls file /files/hello.txt '' "${showcase[@]}"
    count_calls ceiling /plaintext '' "$BUILD/ceiling"
}

report() {
    echo "$($CC --version | head -n 1), $CFLAGS"
    echo
    echo 'Instructions per request by room, and those of the C library that it calls:'
    echo
    profile_all | show_profile
    echo
    echo 'Allocations per request:'
    echo
    for way in "${ways[@]}"; do
        printf '%-16s  %s\n' "$way" "$("$temp/check" "$way" 10000)"
    done
    echo
    if ! installed wrk || ! installed strace; then
        notice 'wrk or strace is not installed (Debian packages of these names), system calls are not counted'
        return
    fi
    echo 'System calls per request (strace -c -f, wrk with 64 connections, 0.005 and more):'
    echo
    count_all_calls
}

need valgrind=valgrind
prepare
# shellcheck disable=SC2086
$CC $CFLAGS -I"$bench/.." -pthread "$bench/check.c" -o "$temp/check" || die 'cannot build bench/check.c'
report | tee "$results/rooms.text"
