#!/usr/bin/env bash
# Whether slow requests hurt quick ones: the latency of /plaintext alone, and while 100 connections keep /sleep/100 busy,
# in interleaved rounds; and what a full queue does. Needs wrk.
#
#     make bench-mixed             ROUNDS=n [5]   SECS=n for each measurement [3]   PORT=n [18080]

set -u
cd "$(dirname "$0")/.." || exit 2

: "${BUILD:=build}" "${ROUNDS:=5}" "${SECS:=3}" "${PORT:=18080}"
url=http://127.0.0.1:$PORT
server=

command -v wrk >/dev/null || {
    echo 'bench-mixed: wrk is not installed (Debian package wrk)' >&2
    exit 2
}

# start FLAGS...
start() {
    "$BUILD/showcase" --host 127.0.0.1 --port "$PORT" --quiet "$@" >/dev/null &
    server=$!
    sleep 0.5
}

stop() {
    [ -z "$server" ] || kill -TERM "$server"
    wait "$server"
    server=
}

trap '[ -z "$server" ] || kill -TERM "$server"' EXIT

# p99: of /plaintext over 64 connections, in microseconds
p99() {
    wrk -t1 -c64 -d"$SECS" --latency "$url/plaintext" | awk '
        $1 == "99%" {
            n = $2 + 0
            if ($2 ~ /ms$/) n *= 1000
            else if ($2 !~ /us$/) n *= 1000000
            printf "%d\n", n
        }'
}

# median NUMBERS...
median() {
    printf '%s\n' "$@" | sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

start
ratios=()
echo "p99 of /plaintext in us, 64 connections: alone, beside 100 connections on /sleep/100, ratio"
for ((i = 0; i < ROUNDS; i++)); do
    alone=$(p99)
    wrk -t1 -c100 -d$((SECS + 1)) "$url/sleep/100" >"$BUILD/bench-mixed.txt" &
    sleepers=$!
    sleep 0.5
    beside=$(p99)
    wait $sleepers
    ratio=$(awk "BEGIN { printf \"%.2f\", $beside / $alone }")
    ratios+=("$ratio")
    printf '%8d %8d %8s   (%s slept)\n' "$alone" "$beside" "$ratio" \
        "$(awk '/requests in/ { print $1 }' "$BUILD/bench-mixed.txt")"
done
echo "median ratio $(median "${ratios[@]}")"
stop

start --queue 4 --pool-threads 1
echo
echo "one sleeper and a queue of 4, 200 connections on /sleep/1000, and beside them /plaintext"
wrk -t1 -c200 -d"$SECS" --latency "$url/sleep/1000" >"$BUILD/bench-mixed.txt" &
sleepers=$!
sleep 0.5
echo "p99 of /plaintext: $(p99) us"
wait $sleepers
grep -E '50%|99%|requests in|Non-2xx' "$BUILD/bench-mixed.txt"
stop
