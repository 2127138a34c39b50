#!/bin/sh
# Looks for inputs that break httpsrv.h, with clang's libFuzzer and its sanitizers (packages clang, libclang-rt-dev).
#
#     tests/fuzz/run.sh                 all fuzzers, one after the other
#     tests/fuzz/run.sh head conn       these
#
# SECONDS=n     for each [30]           FUZZ_POOL=1  conn with a worker pool       CLANG=clang-16  another compiler
# OPTIMIZE=-O0  builds sooner, runs slower
#
# Inputs that reach new code gather in build/fuzz/NAME-corpus and are a start for the next run. What breaks something
# is copied to tests/fuzz/regressions/NAME, where `make test` replays it, and makes the exit status 1.

seconds=${SECONDS:-30}
[ "$seconds" -gt 0 ] 2>/dev/null || seconds=30 # in some shells the variable counts by itself
here=tests/fuzz
out=${BUILD:-build}/fuzz
: "${CLANG:=clang}" "${FUZZ_POOL:=0}" "${OPTIMIZE:=-O1}"
: "${WARNINGS:=-Wall -Wextra}"
failed=0

cd "$(dirname "$0")/../.." || exit 2
command -v "$CLANG" >/dev/null || {
    echo "$CLANG is missing: install the packages clang and libclang-rt-dev" >&2
    exit 2
}
mkdir -p "$out" || exit 2

# The longest inputs that are worth the time: reading byte by byte costs the square.
longest() {
    case $1 in
    head | conn) echo 1024 ;;
    body | multipart) echo 512 ;;
    *) echo 256 ;;
    esac
}

build() {
    "$CLANG" -std=gnu11 $OPTIMIZE -g -fno-omit-frame-pointer $WARNINGS -I. -pthread -DFUZZ_ENGINE -DHTTPSRV_DEBUG \
        -DFUZZ_POOL="$FUZZ_POOL" -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
        "$here/fuzz_$1.c" -o "$out/$1"
}

# The words of the engine's report behind "stat::" and in its last line of progress.
figure() {
    sed -n "s/^stat::$2: *//p" "$out/$1.log"
}

# What the run before has found must not count again.
forget() {
    rm -f "$out/$1"-crash-* "$out/$1"-leak-* "$out/$1"-timeout-* "$out/$1"-oom-*
}

keep() {
    for file in "$out/$1"-crash-* "$out/$1"-leak-* "$out/$1"-timeout-* "$out/$1"-oom-*; do
        [ -f "$file" ] || continue
        cp "$file" "$here/regressions/$1/${file##*/"$1"-}"
        echo "    kept as $here/regressions/$1/${file##*/"$1"-}"
    done
}

fuzz() {
    mkdir -p "$out/$1-corpus" "$here/regressions/$1"
    forget "$1"
    ASAN_OPTIONS=quarantine_size_mb=32 "$out/$1" -max_total_time="$seconds" -max_len="$(longest "$1")" \
        -dict="$here/http.dict" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 -artifact_prefix="$out/$1-" \
        "$out/$1-corpus" "$here/corpus/$1" "$here/regressions/$1" >"$out/$1.log" 2>&1
}

report() {
    covered=$(sed -n 's/.* cov: \([0-9]*\).*/\1/p' "$out/$1.log" | tail -n 1)
    runs=$(figure "$1" number_of_executed_units)
    printf '%-10s %4d s, %9s runs, %5s edges, %s\n' "$1" "$seconds" "$runs" "$covered" "$2"
}

for name in ${*:-head body target conn multipart urlencoded cookie range accept path}; do
    if ! build "$name"; then
        printf '%-10s does not build\n' "$name"
        failed=1
    elif fuzz "$name"; then
        report "$name" 'nothing found'
    else
        failed=1
        grep -v '^#\|^INFO\|^stat' "$out/$name.log" | head -n 60 | sed 's/^/    /'
        keep "$name"
        report "$name" "FOUND SOMETHING, see $out/$name.log"
    fi
done
exit $failed
