#!/bin/sh
# Runs test programs (and test scripts, *.sh), each of which ends with a line "N passed, N failed[, N skipped]", and
# ends with the sum, "N passed, N failed", the skipped ones on a line before. Exit status: 0 only if something passed
# and nothing failed.
#
#     tests/run.sh build/test_parser build/test_server tests/test_headers.sh
#
# A program that fails is shown in full. TEST_ARGS is handed to each program: TEST_ARGS=-v tests/run.sh ...
# JOBS of them run at a time [two for each CPU]: they wait more than they compute.

passed=0
failed=0
skipped=0
cpus=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
jobs=${JOBS:-$((2 * cpus))}
[ "$jobs" -gt 0 ] 2>/dev/null || jobs=2
logs=$(mktemp -d "${TMPDIR:-/tmp}/httpsrv-test.XXXXXX") || exit 2
trap 'rm -rf "$logs"' EXIT
trap 'exit 143' TERM
trap 'trap "" TERM && kill -TERM 0 && exit 130' INT # those in the background do not get it

# Sets p, f and s from a closing line; fails if it is none.
parse() {
    line=$1 s=0
    case $line in
    *' skipped') s=${line##*, } line=${line%, *} s=${s%% *} ;;
    esac
    case $line in
    *' passed, '*' failed') p=${line%% *} f=${line##*, } f=${f%% *} ;;
    *) return 1 ;;
    esac
    case $p$f$s in
    '' | *[!0-9]*) return 1 ;;
    esac
}

run() {
    case $1 in
    *.sh) sh "$1" ;;
    *) "$1" $TEST_ARGS ;;
    esac
}

# start NUMBER PROGRAM: in the background
start() {
    (
        began=$(date +%s)
        run "$2" </dev/null >"$logs/$1" 2>&1
        echo $? $(($(date +%s) - began)) >"$logs/$1.code"
    ) &
    eval "pid_$1=$!"
}

# report NUMBER PROGRAM: waits for it, and counts and tells what has become of it
report() {
    program=$2 out=$logs/$1
    eval "wait \$pid_$1"
    code=2 seconds=0
    [ ! -f "$out.code" ] || read -r code seconds <"$out.code"
    last=$(tail -n 1 "$out")
    note=
    if ! parse "$last"; then
        p=0 f=1 s=0 note="ended without its closing line, exit status $code"
    elif [ "$code" -ne 0 ] && [ "$f" -eq 0 ]; then
        f=1 note="exit status $code"
    elif [ "$code" -eq 0 ] && [ "$f" -ne 0 ]; then
        note="exit status 0 in spite of failures"
    elif [ $((p + f + s)) -eq 0 ]; then
        f=1 note="tested nothing"
    fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    name=${program##*/}
    if [ "$f" -gt 0 ]; then
        sed 's/^/    /' "$out"
        printf '%-24s FAILED: %s%s\n' "$name" "$last" "${note:+ ($note)}"
    else
        grep -A 1 '^SKIP ' "$out" | sed 's/^/    /'
        [ -z "$TEST_ARGS" ] || sed 's/^/    /' "$out"
        printf '%-24s %s (%d s)\n' "$name" "$last" "$seconds"
    fi
}

# Each is started when the one that is so many before it has ended.
number=0
for program in "$@"; do
    number=$((number + 1))
    eval "program_$number=\$program"
    if [ "$number" -gt "$jobs" ]; then
        eval "report $((number - jobs)) \"\$program_$((number - jobs))\""
    fi
    eval "start $number \"\$program_$number\""
done
next=$((number - jobs + 1))
[ "$next" -ge 1 ] || next=1
while [ "$next" -le "$number" ]; do
    eval "report $next \"\$program_$next\""
    next=$((next + 1))
done

[ "$skipped" -eq 0 ] || echo "$skipped skipped"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
