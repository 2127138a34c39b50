#!/usr/bin/env bash
# Measures files of 1 KB, 100 KB and 10 MB from build/showcase beside nginx (sendfile and open_file_cache on), in
# interleaved rounds: requests per second of server CPU (user and system time of the server's processes). The server has
# one CPU and wrk the other.
#
#     make bench-files        ROUNDS=7 SECS=3 CONNECTIONS=64 in the environment change the effort
#
# Both serve the same folder; before anything is timed each file is fetched from both and compared byte by byte. wrk
# must not see an error. Needs wrk, curl and nginx-light.

set -u

: "${ROUNDS:=7}" "${SECS:=3}" "${CONNECTIONS:=64}" "${BUILD:=build}"

sizes=(1K 100K 10M)
results=$BUILD/bench
raw=$results/files.tsv
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
    echo "bench-files: $*" >&2
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
    start pinned 0 "$BUILD/showcase" --host 127.0.0.1 --port 0 --reactors 1 --quiet --root "$temp/root"
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
events { worker_connections 4096; }
http {
    access_log off;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    open_file_cache max=1000 inactive=60s;
    open_file_cache_valid 60s;
    keepalive_requests 1000000000;
    client_body_temp_path $temp/body;
    proxy_temp_path $temp/proxy;
    fastcgi_temp_path $temp/fastcgi;
    uwsgi_temp_path $temp/uwsgi;
    scgi_temp_path $temp/scgi;
    server {
        listen 127.0.0.1:$port;
        location /files/ { alias $temp/root/; }
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

# ---- files ----

make_files() {
    local size
    mkdir "$temp/root" || die 'no folder for the files'
    chmod 755 "$temp" "$temp/root" # nginx started by root reads as another user
    for size in "${sizes[@]}"; do
        head -c "$size" /dev/urandom >"$temp/root/$size.bin" || die "cannot make the file of $size"
    done
}

# same_bytes URL: each file comes as it is
same_bytes() {
    local size status
    for size in "${sizes[@]}"; do
        status=$(curl -sS -o "$temp/got" -w '%{http_code}' "$1/files/$size.bin")
        [ "$status" = 200 ] || die "$1/files/$size.bin answers $status"
        cmp -s "$temp/got" "$temp/root/$size.bin" || die "$1/files/$size.bin is not the file"
    done
}

# ---- measuring ----

# load SIZE URL: with few connections where an answer is long, as wrk counts only those that end in time
load() {
    local connections=$CONNECTIONS
    [ "$1" = 10M ] && connections=$(((CONNECTIONS + 15) / 16))
    (pinned 1 wrk -t1 -c"$connections" -d"${SECS}s" --timeout 10s --latency "$2") >"$temp/wrk" ||
        die "wrk: $(cat "$temp/wrk")"
}

# What wrk printed in one line: requests, requests/s, p50 and p99 in microseconds, errors
parse_wrk() {
    awk '
        function us(text) {
            return text * (text ~ /us$/ ? 1 : text ~ /ms$/ ? 1000 : 1000000)
        }
        $1 == "50%" { p50 = us($2) }
        $1 == "99%" { p99 = us($2) }
        / requests in / { requests = $1 }
        /^Requests\/sec:/ { rate = $2 }
        /Socket errors:/ { errors += $4 + $6 + $8 + $10 }
        /Non-2xx/ { errors += $NF }
        END { print requests + 0, rate + 0, p50 + 0, p99 + 0, errors + 0 }
    ' "$temp/wrk"
}

# measure ROUND ROW SIZE PID URL: adds a line to the raw figures: round, size, row, requests per second of CPU and of
# time, p50 and p99 in microseconds, CPU in %
measure() {
    local before after requests rate p50 p99 errors
    before=$(cpu_ticks "$4")
    load "$3" "$5/files/$3.bin"
    after=$(cpu_ticks "$4")
    read -r requests rate p50 p99 errors < <(parse_wrk)
    [ "$errors" -eq 0 ] || die "$2, $3: $errors errors: $(cat "$temp/wrk")"
    awk -v OFS='\t' -v round="$1" -v size="$3" -v row="$2" -v requests="$requests" -v rate="$rate" -v p50="$p50" \
        -v p99="$p99" -v ticks=$((after - before)) -v hz="$ticks_per_second" -v secs="$SECS" 'BEGIN {
            print round, size, row, (ticks > 0 ? requests * hz / ticks : 0), rate, p50, p99, 100 * ticks / hz / secs
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
        !($2 in seen) { seen[$2] = 1; order[++sizes] = $2 }
        { for (column = 4; column <= 8; column++) value[column, $2, $3, $1] = $column; if ($1 > rounds) rounds = $1 }
        function middle(column, size, row,    i, list) {
            for (i = 1; i <= rounds; i++) list[i] = value[column, size, row, i]
            return median(list, rounds)
        }
        function ratio(size,    i, list, all) {
            for (i = 1; i <= rounds; i++) {
                list[i] = value[4, size, "httpsrv", i] / value[4, size, "nginx", i]
                all = all sprintf(" %.2f", list[i])
            }
            return sprintf("%.2f  %s", median(list, rounds), all)
        }
        END {
            printf "%-6s %-9s%14s%12s%10s%10s%8s\n", "size", "server", "req/s of CPU", "req/s", "p50 us", "p99 us",
                "CPU %"
            for (k = 1; k <= sizes; k++)
                for (r = 1; r <= 2; r++) {
                    row = r == 1 ? "httpsrv" : "nginx"
                    printf "%-6s %-9s%14.0f%12.0f%10.0f%10.0f%8.0f\n", order[k], row, middle(4, order[k], row),
                        middle(5, order[k], row), middle(6, order[k], row), middle(7, order[k], row),
                        middle(8, order[k], row)
                }
            printf "\n%-6s %-26s%s\n", "size", "httpsrv / nginx, of CPU", "rounds"
            for (k = 1; k <= sizes; k++) printf "%-6s %s\n", order[k], ratio(order[k])
        }
    ' "$raw"
}

for tool in wrk curl nginx; do
    command -v $tool >/dev/null || die "$tool is not installed (Debian packages wrk, curl, nginx-light)"
done
mkdir -p "$results"
: >"$raw"
pinning=yes
if [ "$(nproc)" -lt 2 ] || ! command -v taskset >/dev/null; then
    echo 'bench-files: one CPU or no taskset (Debian package util-linux): nothing is pinned' >&2
    pinning=no
fi
make_files
start_ours
ours_pid=$pid ours=http://127.0.0.1:$port
start_nginx
nginx_pid=$pid nginx=http://127.0.0.1:$port
same_bytes "$ours"
same_bytes "$nginx"
for ((round = 1; round <= ROUNDS; round++)); do
    echo "bench-files: round $round of $ROUNDS" >&2
    for size in "${sizes[@]}"; do
        measure "$round" httpsrv "$size" "$ours_pid" "$ours"
        measure "$round" nginx "$size" "$nginx_pid" "$nginx"
    done
done
{
    echo "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1), $(nproc) CPUs, Linux $(uname -r);" \
        "$ROUNDS rounds of $SECS s, $CONNECTIONS connections (10M: a sixteenth);" \
        "medians, the ratio that of the rounds' ratios."
    echo
    report
} >"$results/files.text"
cat "$results/files.text"
