#!/usr/bin/env bash
# Measures httpsrv.h against the ceiling (ceiling.c) and its peers (peers.sh), interleaved in one run. What decides is
# requests per second of server CPU (user and system time of the server's processes): wrk is busy before a fast server
# is, so requests per second alone would measure wrk. Servers and rows take turns, and what is reported are medians of
# the rounds' figures and of the ratios round by round.
#
#     make bench          in the environment: ROUNDS=5 SECS=2 CONNECTIONS=64 IDLE=10000 change the effort,
#                         ROWS="hello x16" PEERS="nginx h2o" choose (PEERS=none: no peer), NAME=report names the results
#
# The server has one CPU and wrk another, unless said otherwise. Each answer is compared with what it should be before
# it is timed, and wrk must not see an error. The tables and the plot go to build/bench/, beside the raw figures.

name=bench
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"
: "${ROUNDS:=5}" "${SECS:=2}" "${CONNECTIONS:=64}" "${IDLE:=10000}" "${NAME:=report}" "${PEERS:=all}"
: "${ROWS:=hello varied shared pool json echo-1k echo-64k file-1k file-100k file-10m conn x16 c1 c1000 idle}"
# shellcheck source=bench/peers.sh
. "$bench/peers.sh"

raw=$results/$NAME.tsv
names=(httpsrv ceiling) # of the servers, peers follow
rows=()                 # that are timed
declare -A started      # pid and port by server and set-up
declare -A missing      # servers and rows that are not measured
failed=0

# ---- rows ----

# What the row of this name asks, and how; see the variables.
set_row() {
    what='GET, 13 bytes'              # in words
    path=/plaintext                   # what is asked for
    expected=$temp/root/plaintext.txt # what must come
    curl_flags=() wrk_flags=()        # how it is asked for
    connections=$CONNECTIONS          # of wrk
    ceiling_flags=()                  # that make the ceiling's answer the same
    threads=0                         # of a pool beside httpsrv's loop, which makes all its system calls dearer
    server_cpus=$server_cpu wrk_cpus=$client_cpu
    case $1 in
    hello) ;;
    varied) what='hello, another field each time' wrk_flags=(-s "$temp/varied.lua") ;;
    idle) what='bytes of memory for each idle connection' ;;
    shared) what='hello, both CPUs for both sides' server_cpus=$both_cpus wrk_cpus=$both_cpus ;;
    pool)
        set_row shared
        what='shared, answered by a worker' path=/pool/plaintext threads=1
        ;;
    json) set_body 'GET, 27 bytes of JSON' /json json.json ;;
    echo-1k | echo-64k)
        set_body 'POST, the body comes back' /echo "$1.bin"
        curl_flags=(-H Expect: --data-binary "@$expected") wrk_flags=(-s "$temp/$1.lua")
        ceiling_flags+=(--takes "$(wc -c <"$expected")")
        ;;
    file-1k | file-100k) set_body 'GET, a static file' "/files/$1.bin" "$1.bin" ;;
    file-10m)
        connections=$(((CONNECTIONS + 15) / 16))
        set_body "GET, a static file, $connections connections" "/files/$1.bin" "$1.bin"
        ;;
    conn)
        what='hello, a connection each' curl_flags=(-H 'Connection: close')
        wrk_flags=("${curl_flags[@]}") ceiling_flags=(--close)
        ;;
    x16) what='hello, pipelined by 16' wrk_flags=(-s "$temp/x16.lua") ;;
    c1) what='hello, one connection' connections=1 ;;
    c1000) what='hello, 1,000 connections' connections=1000 ;;
    *) die "what is the row \"$1\"?" ;;
    esac
}

# set_body WHAT PATH FILE
set_body() {
    what=$1 path=$2 expected=$temp/root/$3 ceiling_flags=(--body "$temp/root/$3")
}

make_files() {
    local size
    mkdir "$temp/root" || exit 2
    chmod 755 "$temp/root"
    printf 'Hello, World!' >"$temp/root/plaintext.txt"
    printf '{"message":"Hello, World!"}' >"$temp/root/json.json"
    for size in 1k 64k; do
        head -c "${size^^}" /dev/zero | tr '\0' x >"$temp/root/echo-$size.bin"
        cat >"$temp/echo-$size.lua" <<LUA
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/octet-stream"
wrk.body = string.rep("x", $(wc -c <"$temp/root/echo-$size.bin"))
LUA
    done
    for size in 1k 100k 10m; do
        head -c "${size^^}" /dev/urandom >"$temp/root/file-$size.bin"
    done
    write_x16_script "$temp/x16.lua"
    write_varied_script "$temp/varied.lua"
}

# ---- servers ----

# begin SERVER: starts one; sets pid and port
begin() {
    if [ "$1" = nginx ]; then start_nginx_rows "$server_cpus"; else "start_$1" "$server_cpus"; fi
}

# serve SERVER: sets pid and port to those of the server for the row that is set, which is started when first wanted
serve() {
    local key="$1 $server_cpus"
    case $1 in
    ceiling) key+=" ${ceiling_flags[*]}" ;;
    httpsrv) key+=" $threads" ;;
    esac
    if [ -z "${started[$key]-}" ]; then
        begin "$1"
        started[$key]="$pid $port"
    fi
    read -r pid port <<<"${started[$key]}"
}

choose_peers() {
    local peer
    [ "$PEERS" != all ] || PEERS=${all_peers[*]}
    for peer in $PEERS; do
        [ "$peer" != none ] || continue
        [ -n "${package[$peer]-}" ] || die "what is the peer \"$peer\"?"
        if has_peer "$peer"; then
            names+=("$peer")
        else
            notice "$peer is not installed (Debian package ${package[$peer]}), left out"
        fi
    done
}

# leave_out SERVER ROW REASON
leave_out() {
    missing[$1 $2]=yes
    printf 'none\t%s\t%s\t%s\n' "$2" "$1" "$3" >>"$raw"
}

is_peer() {
    [ "$1" != httpsrv ] && [ "$1" != ceiling ]
}

# answers SERVER ROW: whether the answer to the row that is set is what it should be; notes the size of its head. What is
# ours must answer right.
answers() {
    local answer
    serve "$1"
    answer=$(curl -sS -m 10 -o "$temp/got" -w '%{http_code}\t%{size_header}' "${curl_flags[@]}" \
        "http://127.0.0.1:$port$path" 2>&1)
    if [ "${answer%$'\t'*}" = 200 ] && cmp -s "$temp/got" "$expected"; then
        printf 'head\t%s\t%s\t%s\n' "$2" "$1" "${answer#*$'\t'}" >>"$raw"
        return
    fi
    is_peer "$1" || die "$1, $2: wrong answer, $answer"
    notice "$1, $2: wrong answer, $answer: left out"
    return 1
}

# Compares all answers before anything is timed.
check_answers() {
    local row server reason
    for row in $ROWS; do
        set_row "$row"
        printf 'what\t%s\t%s\n' "$row" "$what" >>"$raw"
        [ "$row" = idle ] || rows+=("$row")
        for server in "${names[@]}"; do
            if reason=$(lacks "$server" "$row"); then
                leave_out "$server" "$row" "$reason"
            else
                answers "$server" "$row" || leave_out "$server" "$row" 'it answers something else'
            fi
        done
    done
}

# ---- measuring ----

# load SECONDS SERVER: runs wrk against the row that is set
load() {
    serve "$2"
    run_wrk "$wrk_cpus" "$1" "$connections" "http://127.0.0.1:$port$path" "${wrk_flags[@]}"
}

# measure ROUND ROW SERVER: adds a line to the raw figures
measure() {
    local before after requests rate p50 p99 errors
    serve "$3"
    before=$(cpu_us "$pid")
    load "$SECS" "$3"
    kill -0 "$pid" 2>/dev/null || die "$3, $2: the server has ended"
    after=$(cpu_us "$pid")
    read -r requests rate p50 p99 errors < <(parse_wrk)
    if [ "$errors" -gt 0 ]; then
        notice "$3, $2: $errors errors: $(grep -E 'Socket errors|Non-2xx' "$temp/wrk")"
        is_peer "$3" || failed=1
    fi
    awk -v OFS='\t' -v round="$1" -v row="$2" -v server="$3" -v requests="$requests" -v us=$((after - before)) \
        -v rate="$rate" -v p50="$p50" -v p99="$p99" -v secs="$SECS" -v errors="$errors" 'BEGIN {
            print "time", round, row, server, (us > 0 ? requests * 1000000 / us : 0), rate, p50, p99,
                us / secs / 10000, errors
        }' >>"$raw"
}

# each_row FUNCTION ARGUMENT FIRST: calls it with the argument, row and server, for all that are measured, the servers of
# each row from the FIRST on and round, so that each comes first in turn.
each_row() {
    local row server i
    for row in "${rows[@]}"; do
        set_row "$row"
        for ((i = 0; i < ${#names[@]}; i++)); do
            server=${names[($3 + i) % ${#names[@]}]}
            [ -n "${missing[$server $row]-}" ] || "$1" "$2" "$row" "$server"
        done
    done
}

count=0
count_one() {
    count=$((count + 1))
}

say_how_long() {
    each_row count_one 0 0
    [ "$count" -gt 0 ] || return
    notice "$count measurements a round, $ROUNDS rounds of $SECS s: about" \
        "$(awk "BEGIN { print int($count * (($ROUNDS > 1) * 1.1 + $ROUNDS * ($SECS + 0.1)) / 60 + 1) }") minutes"
}

warm_up() {
    load "$1" "$3"
}

measure_rows() {
    local round
    [ "$count" -gt 0 ] || return
    [ "$ROUNDS" -eq 1 ] || each_row warm_up 1 0
    for ((round = 1; round <= ROUNDS; round++)); do
        notice "round $round of $ROUNDS"
        each_row measure "$round" "$round"
    done
}

# Each server anew, as memory that has been used is used again.
measure_idle() {
    local server bytes
    set_row idle
    for server in "${names[@]}"; do
        [ -z "${missing[$server idle]-}" ] || continue
        begin "$server"
        "$BUILD/idle" "$port" "$pid" 1 >/dev/null # so that start-up is over
        if "$BUILD/idle" "$port" "$pid" "$IDLE" >"$temp/idle" 2>"$temp/err"; then
            bytes=$(sed 's/.* \([-0-9]*\) for each$/\1/' "$temp/idle")
            printf 'idle\t%s\t%s\n' "$server" "$bytes" >>"$raw"
        else
            leave_out "$server" idle "$(tail -n 1 "$temp/err")"
        fi
        stop "$pid"
    done
}

# ---- the report ----

about() {
    local server
    echo "$(machine); $($CC --version | head -n 1), $CFLAGS; $(date +%F)."
    [ "$count" -eq 0 ] || echo "$ROUNDS rounds of $SECS s, $CONNECTIONS connections where nothing else is said."
    printf '%s' "$(wrk -v 2>&1 | sed -n 's/^\(wrk [^ ]*\).*/\1/p')"
    for server in "${names[@]:2}"; do
        printf ', %s %s' "$server" "$(version "$server")"
    done
    echo
}

report() {
    local format
    about >"$temp/about"
    for format in text markdown; do
        {
            cat "$temp/about"
            echo
            awk -v format=$format -f "$bench/figures.awk" -f "$bench/report.awk" "$raw"
        } >"$results/$NAME.$format"
    done
    mv "$results/$NAME.markdown" "$results/$NAME.md"
    awk -v about="$(cat "$temp/about")" -f "$bench/figures.awk" -f "$bench/plot.awk" "$raw" >"$results/$NAME.svg"
    cat "$results/$NAME.text"
}

need wrk=wrk curl=curl
prepare
: >"$raw"
make_files
choose_peers
check_answers
say_how_long
case " $ROWS " in *' idle '*) measure_idle ;; esac
measure_rows
report
exit $failed
