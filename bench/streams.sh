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

set -u

: "${ROUNDS:=7}" "${BYTES:=1073741824}" "${BUILD:=build}"

results=$BUILD/bench
raw=$results/streams.tsv
temp=$(mktemp -d "${TMPDIR:-/tmp}/httpsrv-bench.XXXXXX") || exit 2
ticks_per_second=$(getconf CLK_TCK)
servers=()
pid=0 port=0 # of the server started last

clean_up() {
    for server in "${servers[@]}"; do
        kill "$server" 2>/dev/null
    done
    wait
    rm -rf "$temp"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

die() {
    echo "bench-streams: $*" >&2
    exit 1
}

# pinned CPU COMMAND...: the command in place of this (sub)shell, on this CPU
pinned() {
    if [ "$pinning" = yes ]; then
        exec taskset -c "$@"
    else
        shift
        exec "$@"
    fi
}

# ---- servers ----

start() {
    "$@" >"$temp/out" 2>"$temp/err" &
    pid=$!
    servers+=("$pid")
}

is_open() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

start_ours() {
    start pinned 0 "$BUILD/showcase" --host 127.0.0.1 --port 0 --reactors 1 --quiet --max-body "$BYTES"
    for ((try = 0; try < 200; try++)); do
        port=$(sed -n 's/^listening on .*:\([0-9]*\)\/$/\1/p' "$temp/out")
        [ -n "$port" ] && return
        sleep 0.05
    done
    die "showcase does not start: $(cat "$temp/err")"
}

nginx_config() {
    cat <<CONFIG
daemon off;
master_process off;
worker_processes 1;
pid $temp/nginx.pid;
error_log $temp/nginx.log;
events { worker_connections 64; }
http {
    access_log off;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    client_body_temp_path $temp/body;
    proxy_temp_path $temp/proxy;
    fastcgi_temp_path $temp/fastcgi;
    uwsgi_temp_path $temp/uwsgi;
    scgi_temp_path $temp/scgi;
    server {
        listen 127.0.0.1:$port;
        root $temp;
        location /up { client_max_body_size 0; lingering_time 600s; return 200 ''; }
    }
}
CONFIG
}

start_nginx() {
    port=$((20000 + RANDOM % 10000))
    while is_open "$port"; do
        port=$((port + 1))
    done
    nginx_config >"$temp/nginx.conf"
    start pinned 0 nginx -p "$temp" -e "$temp/nginx.log" -c "$temp/nginx.conf"
    for ((try = 0; try < 200; try++)); do
        is_open "$port" && return
        sleep 0.05
    done
    die "nginx does not start: $(cat "$temp/err" "$temp/nginx.log")"
}

# Clock ticks of user and system time of a server so far, all its threads. Fields are counted behind the name.
cpu_ticks() {
    sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'
}

# ---- transfers ----

# down URL: prints status and bytes
down() {
    (pinned 1 curl -sS -o /dev/null -w '%{http_code} %{size_download}\n' "$1")
}

# up URL: likewise
up() {
    (pinned 1 curl -sS -o /dev/null -H 'Expect:' -w '%{http_code} %{size_upload}\n' -T "$temp/sparse" "$1")
}

# measure ROUND ROW DIRECTION PID URL: adds a line to the raw figures: round, direction, row, bytes per second of CPU
# and of time
measure() {
    local before after begin end answer
    before=$(cpu_ticks "$4") begin=$EPOCHREALTIME
    answer=$("$3" "$5")
    after=$(cpu_ticks "$4") end=$EPOCHREALTIME
    [ "$answer" = "200 $BYTES" ] || die "$2, $3: \"$answer\" where \"200 $BYTES\" was expected"
    awk -v OFS='\t' -v round="$1" -v row="$2" -v direction="$3" -v bytes="$BYTES" -v ticks=$((after - before)) \
        -v hz="$ticks_per_second" -v secs="$(awk "BEGIN { print $end - $begin }")" 'BEGIN {
            print round, direction, row, (ticks > 0 ? bytes * hz / ticks : 0), bytes / secs
        }' >>"$raw"
}

# report: medians of both servers, and of the ratios round by round
report() {
    awk -F '\t' '
        function median(list, n,    i, j, t) {
            for (i = 2; i <= n; i++)
                for (j = i; j > 1 && list[j] < list[j - 1]; j--) {
                    t = list[j]; list[j] = list[j - 1]; list[j - 1] = t
                }
            return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
        }
        { cpu[$2, $3, $1] = $4; time[$2, $3, $1] = $5; if ($1 > rounds) rounds = $1 }
        function middle(of, direction, row,    i, list) {
            for (i = 1; i <= rounds; i++) list[i] = of[direction, row, i]
            return median(list, rounds) / 1000000
        }
        function ratio(direction,    i, list) {
            for (i = 1; i <= rounds; i++) list[i] = cpu[direction, "httpsrv", i] / cpu[direction, "nginx", i]
            return median(list, rounds)
        }
        END {
            printf "%-8s%22s%22s%10s%22s%22s\n", "", "httpsrv, MB/s of CPU", "nginx, MB/s of CPU", "ratio",
                "httpsrv, MB/s", "nginx, MB/s"
            for (k = 1; k <= 2; k++) {
                d = k == 1 ? "down" : "up"
                printf "%-8s%22.0f%22.0f%10.2f%22.0f%22.0f\n", d, middle(cpu, d, "httpsrv"), middle(cpu, d, "nginx"),
                    ratio(d), middle(time, d, "httpsrv"), middle(time, d, "nginx")
            }
        }
    ' "$raw"
}

for tool in curl nginx; do
    command -v $tool >/dev/null || die "$tool is not installed (Debian packages curl, nginx-light)"
done
mkdir -p "$results"
: >"$raw"
pinning=yes
if [ "$(nproc)" -lt 2 ] || ! command -v taskset >/dev/null; then
    echo 'bench-streams: one CPU or no taskset (Debian package util-linux): nothing is pinned' >&2
    pinning=no
fi
truncate -s "$BYTES" "$temp/sparse" || die 'no sparse file'
start_ours
ours_pid=$pid ours=http://127.0.0.1:$port
start_nginx
nginx_pid=$pid nginx=http://127.0.0.1:$port
down "$nginx/sparse" >/dev/null # so that the file is in the cache of pages
for ((round = 1; round <= ROUNDS; round++)); do
    echo "bench-streams: round $round of $ROUNDS" >&2
    measure "$round" httpsrv down "$ours_pid" "$ours/stream/$BYTES"
    measure "$round" nginx down "$nginx_pid" "$nginx/sparse"
    measure "$round" httpsrv up "$ours_pid" "$ours/discard"
    measure "$round" nginx up "$nginx_pid" "$nginx/up"
done
{
    echo "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1), $(nproc) CPUs, Linux $(uname -r);" \
        "$ROUNDS rounds of $BYTES bytes each way; medians, the ratio that of the rounds' ratios."
    echo
    report
} >"$results/streams.text"
cat "$results/streams.text"
