#!/usr/bin/env bash
# What a compiler gains that has seen the program run: the showcase is built as usual, with link-time optimisation, and with
# that and a profile of a mixed load; then all are measured side by side, in interleaved rounds. Needs gcc and wrk.
#
#     make pgo                     ROUNDS=n [5]   SECS=n for each measurement [2]
#
# The same steps do for any program: build it with -fprofile-generate, let it work, build it again with -fprofile-use.

name=pgo
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"
: "${ROUNDS:=5}" "${SECS:=2}"

out=$BUILD/pgo
raw=$results/pgo.tsv
rows='hello varied echo'
builds='plain lto pgo'

# build NAME FLAGS...: by way of an object file, whose name is that of the profile
build() {
    local program=$1
    shift
    (
        here=$PWD
        cd "$out" && gcc -std=gnu11 -O2 -I"$here" -pthread "$@" -c "$here/examples/showcase.c" -o showcase.o &&
            gcc -O2 -pthread "$@" showcase.o -o "$program"
    ) || die "$program does not build"
}

start_showcase() {
    start_ours pinned "$server_cpu" "$out/$1" --host 127.0.0.1 --quiet
}

# load ROW SECONDS: wrk on the server started last, or on the one of the row's port
load() {
    case $1 in
    hello) run_wrk "$client_cpu" "$2" 64 "http://127.0.0.1:$port/plaintext" ;;
    varied) run_wrk "$client_cpu" "$2" 64 "http://127.0.0.1:$port/hello/you" -s "$temp/varied.lua" ;;
    echo) run_wrk "$client_cpu" "$2" 64 "http://127.0.0.1:$port/echo" -s "$temp/echo.lua" ;;
    *) run_wrk "$client_cpu" "$2" 64 "http://127.0.0.1:$port/$1" ;;
    esac
}

write_scripts() {
    write_varied_script "$temp/varied.lua"
    echo 'wrk.method = "POST"; wrk.body = string.rep("x", 1000)' >"$temp/echo.lua"
}

train() {
    start_showcase train
    for row in $rows json pool/plaintext; do
        load "$row" "$SECS"
    done
    stop "$pid" # writes its profile
}

# measure ROUND BUILD ROW
measure() {
    local before after requests errors
    before=$(cpu_us "$pid")
    load "$3" "$SECS"
    after=$(cpu_us "$pid")
    read -r requests _ _ _ errors < <(parse_wrk)
    printf 'time\t%s\t%s\t%s\t%s\t0\t0\t0\t0\t%s\n' "$1" "$3" "$2" \
        "$(awk "BEGIN { print $requests * 1000000 / ($after - $before) }")" "$errors" >>"$raw"
}

need gcc=gcc wrk=wrk
prepare
mkdir -p "$out" && write_scripts
rm -f "$out"/*.gcda
: >"$raw"
build plain
build lto -flto=auto
build train -fprofile-generate -fprofile-update=atomic
train
build pgo -flto=auto -fprofile-use -fprofile-partial-training

declare -A pids ports
for program in $builds; do
    start_showcase "$program"
    pids[$program]=$pid ports[$program]=$port
done
for ((round = 1; round <= ROUNDS; round++)); do
    for row in $rows; do
        for program in $builds; do
            pid=${pids[$program]} port=${ports[$program]}
            measure "$round" "$program" "$row"
        done
    done
done

machine
echo "$ROUNDS rounds of $SECS s; requests per second of server CPU as a ratio to the plain build, medians of the rounds"
for row in $rows; do
    for program in lto pgo; do
        awk -f "$bench/figures.awk" -f <(echo "END { printf \"%-8s %-4s %.2f\\n\", \"$row\", \"$program\",
            ratio(\"$row\", \"$program\", \"plain\", PER_CPU) }") "$raw"
    done
done
