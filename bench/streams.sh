#!/usr/bin/env bash
# Measures streams of 1 GB through build/showcase beside nginx, in interleaved rounds: bytes per second of server CPU
# (user and system time of the server's processes), down and up. The server has one CPU and curl the other.
#
#     make bench-streams          ROUNDS=7 BYTES=1073741824 in the environment change the effort
#
#     down   /stream/BYTES, generated and sent in chunks; nginx sends a sparse file with sendfile
#     up     PUT of a sparse file to /discard, which counts it; nginx reads it and throws it away (`return 200`)
#
# Each transfer is checked: all bytes have come down; all bytes have gone up and been acknowledged, so that whatever
# does not fit into the sockets' buffers has been read. Note that nginx throws a body away by 4 KB at a time, and that
# sendfile copies nothing: the one row is nginx's weakest, the other its strongest. Needs curl and nginx-light.

name=bench-streams
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"
: "${ROUNDS:=7}" "${BYTES:=1073741824}"

raw=$results/streams.tsv

# ---- transfers ----

# down URL: prints status and bytes
down() {
    (pinned "$client_cpu" curl -sS -o /dev/null -w '%{http_code} %{size_download}\n' "$1")
}

# up URL: likewise
up() {
    (pinned "$client_cpu" curl -sS -o /dev/null -H 'Expect:' -w '%{http_code} %{size_upload}\n' -T "$temp/sparse" "$1")
}

# measure ROUND ROW SERVER PID URL: adds a line to the raw figures: bytes per second of CPU and of time
measure() {
    local before after begin end answer
    before=$(cpu_us "$4") begin=$EPOCHREALTIME
    answer=$("$2" "$5")
    after=$(cpu_us "$4") end=$EPOCHREALTIME
    [ "$answer" = "200 $BYTES" ] || die "$3, $2: \"$answer\" where \"200 $BYTES\" was expected"
    awk -v OFS='\t' -v round="$1" -v row="$2" -v server="$3" -v bytes="$BYTES" -v us=$((after - before)) \
        -v begin="$begin" -v end="$end" 'BEGIN {
            print "time", round, row, server, (us > 0 ? bytes * 1000000 / us : 0), bytes / (end - begin)
        }' >>"$raw"
}

# report: medians of both servers, and of the ratios round by round
report() {
    echo "$(machine); $ROUNDS rounds of $BYTES bytes each way; medians, the ratio that of the rounds' ratios (least-greatest)."
    echo
    awk -f "$bench/figures.awk" -f <(
        cat <<'AWK'
        function mb(row, server, column) { return sprintf("%.0f", middle(row, server, column) / 1000000) }
        END {
            printf "%-8s%22s%22s%20s%20s%16s\n", "", "httpsrv, MB/s of CPU", "nginx, MB/s of CPU", "ratio", "httpsrv, MB/s",
                "nginx, MB/s"
            for (i = 1; i <= rows; i++) {
                r = ratio(row_at[i], "httpsrv", "nginx", PER_CPU)
                printf "%-8s%22s%22s%20s%20s%16s\n", row_at[i], mb(row_at[i], "httpsrv", PER_CPU),
                    mb(row_at[i], "nginx", PER_CPU), sprintf("%.2f (%.2f-%.2f)", r, low, high),
                    mb(row_at[i], "httpsrv", RATE), mb(row_at[i], "nginx", RATE)
            }
        }
AWK
    ) "$raw"
}

need curl=curl nginx=nginx-light
prepare
: >"$raw"
truncate -s "$BYTES" "$temp/sparse" || die 'no sparse file'
start_ours pinned "$server_cpu" "$BUILD/showcase" --host 127.0.0.1 --reactors 1 --quiet --max-body "$BYTES"
ours_pid=$pid ours=http://127.0.0.1:$port
start_nginx "$server_cpu" "
        root $temp;
        location /up { client_max_body_size 0; lingering_time 600s; return 200 ''; }"
nginx_pid=$pid nginx=http://127.0.0.1:$port
down "$nginx/sparse" >/dev/null # so that the file is in the cache of pages
for ((round = 1; round <= ROUNDS; round++)); do
    notice "round $round of $ROUNDS"
    measure "$round" down httpsrv "$ours_pid" "$ours/stream/$BYTES"
    measure "$round" down nginx "$nginx_pid" "$nginx/sparse"
    measure "$round" up httpsrv "$ours_pid" "$ours/discard"
    measure "$round" up nginx "$nginx_pid" "$nginx/up"
done
report | tee "$results/streams.text"
