#!/usr/bin/env bash
# Measures httpsrv.h against the ceiling (ceiling.c) and nginx with wrk, interleaved in one run. What
# decides is requests per second of server CPU: wrk is busy before a fast server is, so requests per second
# alone would measure wrk.
#
#     make bench          ROUNDS=5 SECS=3 CONNECTIONS=64 in the environment change the effort
#
# The server has one CPU and wrk another, except in the rows "...-shared", where both share both: that is
# the fair comparison of a reactor with a reactor and a worker. "...-x16" sends 16 requests at once
# (pipelined); their latency is that of 16 answers. The tables go to build/bench/ as well, beside the raw
# figures.

set -u

: "${ROUNDS:=5}" "${SECS:=3}" "${CONNECTIONS:=64}" "${BUILD:=build}"

here=$(dirname "$0")
results=$BUILD/bench
raw=$results/raw.tsv
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
    echo "bench: $*" >&2
    exit 1
}

installed() {
    command -v "$1" >/dev/null
}

# ---- starting servers ----

# pinned CPUS COMMAND...: the command in place of this (sub)shell, on these CPUs
pinned() {
    if [ "$pinning" = yes ]; then
        exec taskset -c "$@"
    else
        shift
        exec "$@"
    fi
}

# start COMMAND...: in the background; sets pid
start() {
    : >"$temp/out"
    "$@" >"$temp/out" 2>"$temp/err" &
    pid=$!
    servers+=("$pid")
}

is_open() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# start_ours COMMAND...: a server that takes --port 0 and prints where it listens; sets pid and port
start_ours() {
    start "$@" --port 0
    for ((try = 0; try < 200; try++)); do
        port=$(sed -n 's/^listening on .*:\([0-9]*\)\/$/\1/p' "$temp/out")
        [ -n "$port" ] && return
        sleep 0.05
    done
    die "$* does not start: $(cat "$temp/err")"
}

nginx_config() {
    cat <<CONFIG
daemon off;
worker_processes 1;
pid $temp/nginx.$port.pid;
error_log $temp/nginx.log;
events { worker_connections 4096; }
http {
    access_log off;
    default_type text/plain;
    keepalive_requests 1000000000;
    client_body_temp_path $temp/body;
    proxy_temp_path $temp/proxy;
    fastcgi_temp_path $temp/fastcgi;
    uwsgi_temp_path $temp/uwsgi;
    scgi_temp_path $temp/scgi;
    server {
        listen 127.0.0.1:$port;
        location / { return 200 'Hello, World!'; }
    }
}
CONFIG
}

# start_nginx PREFIX...: a child of ours on a port of its own; sets pid and port
start_nginx() {
    port=$((20000 + RANDOM % 10000))
    while is_open "$port"; do
        port=$((port + 1))
    done
    nginx_config >"$temp/nginx.$port.conf"
    start "$@" nginx -e "$temp/nginx.log" -c "$temp/nginx.$port.conf"
    for ((try = 0; try < 200; try++)); do
        is_open "$port" && return
        sleep 0.05
    done
    die "nginx does not start: $(cat "$temp/err" "$temp/nginx.log")"
}

# A server and its children, as nginx has them.
family() {
    echo "$1" "$(cat "/proc/$1/task/"*/children)"
}

# Clock ticks of user and system time of all threads of a server so far. Fields are counted behind the name.
cpu_ticks() {
    local member
    for member in $(family "$1"); do
        sed 's/.*) //' "/proc/$member/task/"*/stat
    done | awk '{ sum += $12 + $13 } END { print sum + 0 }'
}

# ---- rows: a server, a path and a way to ask ----

names=()
declare -A row_pid row_port row_path row_cpus row_script

# fetch PATH: status and body of one answer of the server started last
fetch() {
    local line status length=0
    exec 3<>"/dev/tcp/127.0.0.1/$port" || return
    printf 'GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n' "$1" >&3
    read -r -t 5 _ status _ <&3
    while read -r -t 5 line <&3 && [ "$line" != $'\r' ]; do
        [[ ${line,,} =~ ^content-length:\ *([0-9]+) ]] && length=${BASH_REMATCH[1]}
    done
    echo "$status $(head -c "$length" <&3)"
    exec 3>&-
}

# row NAME PATH CPUS-OF-WRK [SCRIPT]: for the server started last, whose answer must be right
row() {
    local answer
    answer=$(fetch "$2")
    [ "$answer" = '200 Hello, World!' ] || die "$1 answers \"$answer\""
    names+=("$1")
    row_pid[$1]=$pid row_port[$1]=$port row_path[$1]=$2 row_cpus[$1]=$3 row_script[$1]=${4-}
}

# load NAME SECONDS: runs wrk against a row
load() {
    local script=${row_script[$1]}
    (pinned "${row_cpus[$1]}" wrk -t1 -c"$CONNECTIONS" -d"$2s" --latency ${script:+-s "$script"} \
        "http://127.0.0.1:${row_port[$1]}${row_path[$1]}") >"$temp/wrk" || die "wrk: $(cat "$temp/wrk")"
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

# measure ROUND NAME: adds a line to the raw figures
measure() {
    local before after
    before=$(cpu_ticks "${row_pid[$2]}")
    load "$2" "$SECS"
    after=$(cpu_ticks "${row_pid[$2]}")
    parse_wrk | awk -v OFS='\t' -v round="$1" -v name="$2" -v secs="$SECS" \
        -v cpu="$(awk "BEGIN { print ($after - $before) / $ticks_per_second }")" '
        { print round, name, (cpu > 0 ? $1 / cpu : 0), $2, $3, $4, 100 * cpu / secs, $5 }' >>"$raw"
}

# ---- system calls ----

# count_calls NAME PATH START COMMAND...: the system calls per request, from a run of its own under strace
count_calls() {
    local name=$1 path=$2 begin=$3 tracee requests
    shift 3
    "$begin" strace -c -f -o "$temp/strace" "$@"
    wrk -t1 -c"$CONNECTIONS" -d1s --latency "http://127.0.0.1:$port$path" >"$temp/wrk"
    read -r requests _ <<<"$(parse_wrk)"
    tracee=$(cat "/proc/$pid/task/$pid/children")
    kill -TERM ${tracee:?}
    wait "$pid"
    awk -v name="$name" -v requests="$requests" '
        $1 ~ /^[0-9.]+$/ && $NF != "total" && requests > 0 && $4 / requests >= 0.01 {
            list = list sprintf("  %s %.2f", $NF, $4 / requests)
        }
        END { printf "%-14s%s\n", name, list }
    ' "$temp/strace"
}

# ---- the run ----

prepare() {
    installed wrk || die 'wrk is not installed (Debian package wrk)'
    mkdir -p "$results"
    : >"$raw"
    pinning=yes
    if [ "$(nproc)" -lt 2 ] || ! installed taskset; then
        echo 'bench: one CPU or no taskset (Debian package util-linux): nothing is pinned' >&2
        pinning=no
    fi
    cat >"$temp/x16.lua" <<'LUA'
init = function()
    local batch = {}
    for i = 1, 16 do batch[i] = wrk.format() end
    requests = table.concat(batch)
end
request = function() return requests end
LUA
}

start_rows() {
    start_ours pinned 0 "$BUILD/showcase" --quiet --reactors 1 --pool-threads 1
    row inline /plaintext 1
    row inline-x16 /plaintext 1 "$temp/x16.lua"
    start_ours pinned 0,1 "$BUILD/showcase" --quiet --reactors 1 --pool-threads 1
    row inline-shared /plaintext 0,1
    row pool-shared /pool/plaintext 0,1
    start_ours pinned 0 "$BUILD/ceiling"
    row ceiling /plaintext 1
    row ceiling-x16 /plaintext 1 "$temp/x16.lua"
    if ! installed nginx; then
        echo 'bench: nginx is not installed (Debian package nginx-light), left out' >&2
        return
    fi
    start_nginx pinned 0
    row nginx /plaintext 1
    row nginx-x16 /plaintext 1 "$temp/x16.lua"
}

measure_rows() {
    local name round
    for name in "${names[@]}"; do
        load "$name" 1
    done
    for ((round = 1; round <= ROUNDS; round++)); do
        echo "bench: round $round of $ROUNDS" >&2
        for name in "${names[@]}"; do
            measure "$round" "$name"
        done
    done
}

count_all_calls() {
    if ! installed strace; then
        echo 'bench: strace is not installed (Debian package strace), system calls are not counted' >&2
        return
    fi
    echo 'System calls per request (strace -c -f, a run of its own, 0.01 and more):'
    echo
    count_calls inline /plaintext start_ours "$BUILD/showcase" --quiet --reactors 1
    count_calls pool /pool/plaintext start_ours "$BUILD/showcase" --quiet --reactors 1 --pool-threads 1
    count_calls ceiling /plaintext start_ours "$BUILD/ceiling"
    installed nginx && count_calls nginx /plaintext start_nginx
}

about() {
    echo "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1), $(nproc) CPUs, Linux $(uname -r);" \
        "$ROUNDS rounds of $SECS s, $CONNECTIONS connections; medians."
}

prepare
start_rows
measure_rows
count_all_calls >"$temp/calls"
for format in text markdown; do
    {
        about
        echo
        awk -v format=$format -f "$here/report.awk" "$raw"
        echo
        if [ $format = text ]; then
            cat "$temp/calls"
        else
            sed 's/^[a-z]/    &/' "$temp/calls" # the lines of the rows as a block of code
        fi
    } >"$results/report.$format"
done
mv "$results/report.markdown" "$results/report.md"
cat "$results/report.text"
