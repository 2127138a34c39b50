# Sourced by the benchmarks that start servers and load them: what they have in common. They may set $name, which is put
# before what they say, and need bash.
# shellcheck shell=bash

set -u

: "${CC:=cc}" "${CFLAGS=-std=gnu11 -O2 -g}" "${BUILD:=build}" "${name:=bench}"

bench=$(dirname "${BASH_SOURCE[0]}")
results=$BUILD/bench
temp=$(mktemp -d "${TMPDIR:-/tmp}/httpsrv-bench.XXXXXX") || exit 2
server_cpu=0 client_cpu=1 both_cpus=0,1
pinning=yes
servers=()
pid=0 port=0 # of the server started last

clean_up() {
    [ ${#servers[@]} -eq 0 ] || kill "${servers[@]}" 2>/dev/null
    wait
    rm -rf "$temp"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

notice() {
    echo "$name: $*" >&2
}

die() {
    notice "$@"
    exit 1
}

installed() {
    command -v "$1" >/dev/null
}

# need COMMAND=PACKAGE...: all of these, or there is nothing to measure
need() {
    local pair
    for pair in "$@"; do
        installed "${pair%=*}" || die "${pair%=*} is not installed (Debian package ${pair#*=})"
    done
}

# prepare: call it first
prepare() {
    mkdir -p "$results" || exit 2
    chmod 755 "$temp" # a server that root starts may read as another user
    [ "$(nproc)" -ge 2 ] && installed taskset && return
    notice 'one CPU or no taskset (Debian package util-linux): nothing is pinned'
    pinning=no
}

# ---- servers ----

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

# stop PID: one of those that were started
stop() {
    local server left=()
    kill "$1" 2>/dev/null
    wait "$1" 2>/dev/null
    for server in "${servers[@]}"; do
        [ "$server" = "$1" ] || left+=("$server")
    done
    servers=("${left[@]}")
}

is_open() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# free_port: sets port
free_port() {
    port=$((20000 + RANDOM % 10000))
    while is_open "$port"; do
        port=$((port + 1))
    done
}

# start_on_port COMMAND...: a server that listens on $port
start_on_port() {
    local try
    start "$@"
    for ((try = 0; try < 200; try++)); do
        is_open "$port" && return
        sleep 0.05
    done
    die "$* does not start: $(cat "$temp/out" "$temp/err")"
}

# start_ours COMMAND...: a server that takes --port 0 and prints where it listens; sets pid and port
start_ours() {
    local try
    start "$@" --port 0
    for ((try = 0; try < 200; try++)); do
        port=$(sed -n 's/^listening on .*:\([0-9]*\)\/$/\1/p' "$temp/out")
        [ -n "$port" ] && return
        sleep 0.05
    done
    die "$* does not start: $(cat "$temp/err")"
}

# start_nginx CPUS LOCATIONS: one process with these lines in its server block, on a port of its own; sets pid and port
start_nginx() {
    free_port
    cat >"$temp/nginx.$port" <<CONFIG
daemon off;
master_process off;
worker_processes 1;
worker_rlimit_nofile $(ulimit -Hn);
pid $temp/nginx.$port.pid;
error_log $temp/nginx.log;
events { worker_connections 16384; }
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
        listen 127.0.0.1:$port backlog=1024;
        $2
    }
}
CONFIG
    start_on_port pinned "$1" nginx -p "$temp" -e "$temp/nginx.log" -c "$temp/nginx.$port"
}

# A server and its children.
family() {
    echo "$1" "$(cat "/proc/$1/task/"*/children)"
}

# Microseconds of user and system time of all threads of a server so far. /proc has them to the nanosecond or, where the
# kernel keeps no such statistics, in clock ticks, whose fields are counted behind the name.
cpu_us() {
    local member
    for member in $(family "$1"); do
        if [ -r "/proc/$member/schedstat" ]; then
            sed 's/^\([0-9]*\).*/ns \1/' "/proc/$member/task/"*/schedstat
        else
            sed 's/.*) //' "/proc/$member/task/"*/stat
        fi
    done | awk -v hz="$(getconf CLK_TCK)" '
        $1 == "ns" { sum += $2 / 1000; next }
        { sum += ($12 + $13) * 1000000 / hz }
        END { printf "%.0f\n", sum }'
}

# ---- wrk ----

# run_wrk CPUS SECONDS CONNECTIONS URL [FLAGS...]: into $temp/wrk
run_wrk() {
    local cpus=$1 secs=$2 connections=$3 url=$4
    shift 4
    (pinned "$cpus" wrk -t1 -c"$connections" -d"${secs}s" --timeout 10s --latency "$@" "$url") >"$temp/wrk" 2>&1 ||
        die "wrk: $(cat "$temp/wrk")"
}

# write_x16_script FILE: for wrk -s; it makes wrk send 16 requests at once
write_x16_script() {
    cat >"$1" <<'LUA'
init = function()
    local batch = {}
    for i = 1, 16 do batch[i] = wrk.format() end
    requests = table.concat(batch)
end
request = function() return requests end
LUA
}

# write_varied_script FILE: likewise; no request is like the one before
write_varied_script() {
    cat >"$1" <<'LUA'
local requests, last = {}, 0
init = function()
    for i = 1, 1000 do
        wrk.headers["X-Request-Id"] = tostring(1000 + i)
        requests[i] = wrk.format()
    end
end
request = function()
    last = last % 1000 + 1
    return requests[last]
end
LUA
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

# ---- the machine ----

# machine: in one line
machine() {
    local model
    model=$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)
    echo "${model:-$(uname -m)}, $(nproc) CPUs, Linux $(uname -r)"
}
