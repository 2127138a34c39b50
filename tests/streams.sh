#!/usr/bin/env bash
# Streams of 4 GB through build/showcase, up to /echo and down from /stream, with quick clients and with slow ones, and
# 1,000 clients of /events: the server's anonymous memory must not grow by 1 MB over idle for the former, and is printed
# for the latter. Needs curl and some minutes, so it is not among the tests of `make test`.
#
#     make streams          GIGABYTES=4 CLIENTS=1000 SLOW_SECONDS=10 in the environment change the effort

set -u
cd "$(dirname "$0")/.." || exit 2
. tests/check.sh

: "${BUILD:=build}" "${GIGABYTES:=4}" "${CLIENTS:=1000}" "${SLOW_SECONDS:=10}"
bytes=$((GIGABYTES << 30))
most=$((1 << 20))
server=
port=

trap '[ -z "$server" ] || kill -KILL "$server"; rm -rf "$scratch"' EXIT

command -v curl >/dev/null || {
    echo 'streams: curl is not installed (Debian package curl)' >&2
    exit 2
}

# ---- the server ----

start() {
    "$BUILD/showcase" --host 127.0.0.1 --port 0 --max-body $((bytes * 2)) --quiet >"$scratch/out" &
    server=$!
    for ((try = 0; try < 200; try++)); do
        port=$(sed -n 's/^listening on .*:\([0-9]*\)\/$/\1/p' "$scratch/out")
        [ -n "$port" ] && break
        sleep 0.05
    done
    [ -n "$port" ] && curl -sf -o "$scratch/answer" "http://127.0.0.1:$port/plaintext"
}

stop() {
    kill -TERM "$server"
    wait "$server"
    code=$?
    server=
    echo "exit status $code"
    [ "$code" -eq 0 ]
}

# anonymous: bytes of anonymous memory of the server
anonymous() {
    sed -n 's/^Anonymous: *\([0-9]*\) kB$/\1/p' "/proc/$server/smaps_rollup" | awk '{ print $1 * 1024 }'
}

# ---- memory while something runs ----

# watch COMMAND...: runs it and looks at the server's memory all the while; sets code and grown
watch() {
    local now highest
    highest=$idle
    "$@" >"$scratch/command" 2>&1 &
    local command=$!
    while kill -0 $command 2>/dev/null; do
        now=$(anonymous)
        [ "${now:-0}" -gt "$highest" ] && highest=$now
        sleep 0.1
    done
    wait $command
    code=$?
    now=$(anonymous)
    [ "${now:-0}" -gt "$highest" ] && highest=$now
    grown=$((highest - idle))
    cat "$scratch/command"
    echo "curl's exit status $code, memory grew by $grown bytes over $idle"
}

# curl_sizes ARGUMENTS...: prints status, bytes up and bytes down
curl_sizes() {
    curl -sS -o /dev/null -w '%{http_code} %{size_upload} %{size_download}\n' "$@"
}

# passes NAME UP DOWN ARGUMENTS...: a whole transfer of so many bytes in each direction; curl counts what chunks add
passes() {
    local what=$1 up=$2 down=$3 status went_up came_down
    shift 3
    watch curl_sizes "$@"
    summary+=("$(printf '%-44s %9d bytes' "$what" "$grown")")
    read -r status went_up came_down < <(tail -n 1 "$scratch/command")
    [ "$code" -eq 0 ] && [ "$status" = 200 ] && [ "$went_up" -ge "$up" ] && [ "$came_down" -eq "$down" ] &&
        [ "$grown" -lt $most ]
}

# passes_slowly NAME ARGUMENTS...: a client that reads slowly and is stopped (exit status 28) when its time is up
passes_slowly() {
    local what=$1 status down
    shift
    watch curl_sizes --limit-rate 4M -m "$SLOW_SECONDS" "$@"
    summary+=("$(printf '%-44s %9d bytes' "$what" "$grown")")
    read -r status _ down < <(tail -n 1 "$scratch/command")
    [ "$status" = 200 ] && [ "$code" -eq 28 ] && [ "$grown" -lt $most ] && [ "$down" -gt $((SLOW_SECONDS << 20)) ]
}

# The body goes up as fast as it is taken, and comes back as slowly as the pipe is read.
echoes_to_a_slow_pipe() {
    watch timeout "$SLOW_SECONDS" sh -c '
        curl -sS -N -T "$1" -o - "$2" | while dd bs=64k count=4 of=/dev/null 2>/dev/null; do sleep 0.05; done
    ' slow "$scratch/sparse" "$url/echo"
    summary+=("$(printf '%-44s %9d bytes' "up to /echo, read through a slow pipe" "$grown")")
    [ "$code" -eq 124 ] && [ "$grown" -lt $most ]
}

listeners() {
    "$BUILD/listeners" "$port" "$server" "$CLIENTS" 5 >"$scratch/listeners"
    code=$?
    cat "$scratch/listeners"
    return $code
}

truncate -s $bytes "$scratch/sparse" || exit 2
summary=()
check 'starts' start
[ -n "$port" ] || finish
url=http://127.0.0.1:$port
idle=$(anonymous)
check "$GIGABYTES GB down" passes "down from /stream" 0 $bytes "$url/stream/$bytes"
check "$GIGABYTES GB up and back" passes "up to /echo" $bytes $bytes -T "$scratch/sparse" "$url/echo"
check "$GIGABYTES GB up in chunks and back" passes "up to /echo in chunks" $bytes $bytes \
    -H 'Transfer-Encoding: chunked' -T "$scratch/sparse" "$url/echo"
check 'a slow reader of /stream' passes_slowly "down from /stream, slow reader" "$url/stream/$bytes"
check 'a slow client of /echo' passes_slowly "up to /echo, slow client" -T "$scratch/sparse" "$url/echo"
check 'a slow reader of /echo' echoes_to_a_slow_pipe
check 'SIGTERM' stop
check 'starts again' start
check "$CLIENTS clients of /events" listeners
check 'SIGTERM' stop
echo "growth of the server's anonymous memory over idle, at most:"
printf '  %s\n' "${summary[@]}"
[ ! -s "$scratch/listeners" ] || cat "$scratch/listeners"
finish
