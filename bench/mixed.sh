#!/usr/bin/env bash
# Whether slow requests hurt quick ones: the latency of /plaintext alone, and while 100 connections keep /sleep/100
# busy, in interleaved rounds; and what a full queue does. Needs wrk.
#
#     make bench-mixed             ROUNDS=n [5]   SECS=n for each measurement [3]

name=bench-mixed
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"
: "${ROUNDS:=5}" "${SECS:=3}"

raw=$results/mixed.tsv
all=0-$(($(nproc) - 1))

# start_showcase FLAGS...
start_showcase() {
    start_ours "$BUILD/showcase" --host 127.0.0.1 --quiet "$@"
    url=http://127.0.0.1:$port
}

# p99: of /plaintext over 64 connections, in microseconds
p99() {
    run_wrk "$all" "$SECS" 64 "$url/plaintext"
    parse_wrk | cut -d ' ' -f 4
}

# sleep_beside CONNECTIONS PATH SECONDS: clients of a slow route, in the background; sets sleepers
sleep_beside() {
    wrk -t1 -c"$1" -d"$3s" --timeout 10s --latency "$url$2" >"$temp/sleepers" &
    sleepers=$!
    sleep 0.5
}

need wrk=wrk
prepare
: >"$raw"
start_showcase
echo "p99 of /plaintext in us, 64 connections: alone, beside 100 connections on /sleep/100, ratio"
for ((round = 1; round <= ROUNDS; round++)); do
    alone=$(p99)
    sleep_beside 100 /sleep/100 $((SECS + 1))
    beside=$(p99)
    wait $sleepers
    printf 'time\t%s\tp99\talone\t%s\ntime\t%s\tp99\tbeside\t%s\n' "$round" "$alone" "$round" "$beside" >>"$raw"
    printf '%8d %8d %8s   (%s slept)\n' "$alone" "$beside" "$(awk "BEGIN { printf \"%.2f\", $beside / $alone }")" \
        "$(awk '/requests in/ { print $1 }' "$temp/sleepers")"
done
awk -f "$bench/figures.awk" -f <(echo 'END { printf "median ratio %.2f\n", ratio("p99", "beside", "alone", 5) }') "$raw"
stop "$pid"

start_showcase --queue 4 --pool-threads 1
echo
echo "one sleeper and a queue of 4, 200 connections on /sleep/1000, and beside them /plaintext"
sleep_beside 200 /sleep/1000 "$SECS"
echo "p99 of /plaintext: $(p99) us"
wait $sleepers
grep -E '50%|99%|requests in|Non-2xx' "$temp/sleepers"
