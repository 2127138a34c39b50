#!/bin/sh
# Guards the speed: instructions per request, which unlike times are the same in every run, for the parser alone and
# for a keep-alive connection to a whole server, against the numbers in baseline.txt. Fails beyond 3 % more.
#
#     make bench-check             needs callgrind (Debian package valgrind)
#     bench/check.sh --update      writes baseline.txt anew, after a change that is worth its instructions or saves some
#
# Numbers of one compiler say nothing about another's: if they were not counted with this one, there is nothing to
# check.

set -u
cd "$(dirname "$0")/.." || exit 2
. bench/callgrind.sh

: "${CC:=cc}" "${BUILD:=build}"
baseline=bench/baseline.txt
temp=$BUILD/bench/check

die() {
    echo "bench-check: $*" >&2
    exit 1
}

# Compiler and C library, in one line.
toolchain() {
    $CC -E -P - <<'SOURCE' | tr -d '"' | tr -s '\n ' ' ' | sed 's/^ //; s/ $//'
#include <features.h>
#ifdef __clang__
clang
#else
gcc
#endif
__VERSION__ glibc __GLIBC__ __GLIBC_MINOR__
SOURCE
    echo " $($CC -dumpmachine)"
}

# count NAME FUNCTION COMMAND...: a line for the table
count() {
    name=$1
    shift
    instructions=$(per_request "$@") || die "$name: $(tail -n 3 "$temp/valgrind")"
    echo "$name $instructions"
}

# build SOURCE FLAGS...
build() {
    source=$1
    shift
    $CC -std=gnu11 -g -O2 "$@" -I. -pthread "$source" -o "$temp/program" || die "cannot build $source"
}

# count_parser NAME FLAGS...
count_parser() {
    scan=$1
    shift
    build bench/parser.c "$@"
    for request in small cookies chrome; do
        count "parser-$scan-$request" parse_ours "$temp/program" $request
    done
}

count_all() {
    count_parser default
    count_parser words -DHTTPSRV_NO_SIMD
    if has avx2; then count_parser avx2 -mavx2; fi
    build bench/check.c
    for way in keep-alive varied keep-alive-x16 file; do
        count $way httpsrv_poll "$temp/program" $way
    done
}

write_baseline() {
    {
        echo '# Instructions per request by bench/check.sh, which also writes this file: bench/check.sh --update'
        echo "toolchain $(toolchain)"
        cat "$temp/counts"
    } >$baseline
    cat $baseline
}

compare() {
    awk '
        /^#/ || $1 == "toolchain" { next }
        FILENAME == ARGV[1] { before[$1] = $2; next }
        !($1 in before) { printf "%-24s %10s %10.1f     new\n", $1, "-", $2; faster = 1; next }
        {
            change = 100 * ($2 / before[$1] - 1)
            printf "%-24s %10.1f %10.1f %+6.1f %%\n", $1, before[$1], $2, change
            if (change > 3) failed = failed " " $1
            if (change < -3) faster = 1
        }
        END {
            if (faster) print "fewer by more than 3 % or new: keep that with bench/check.sh --update"
            if (failed) print "more than 3 % beyond the baseline:" failed
            exit failed != ""
        }
    ' $baseline "$temp/counts"
}

command -v valgrind >/dev/null || die 'valgrind is not installed (Debian package valgrind)'
mkdir -p "$temp" || exit 2
if [ "${1-}" != --update ]; then
    [ -f $baseline ] || die "no $baseline: write it with bench/check.sh --update"
    known=$(sed -n 's/^toolchain //p' $baseline) this=$(toolchain)
    if [ "$known" != "$this" ]; then
        echo "bench-check: skipped, the baseline is of \"$known\" and this is \"$this\""
        exit 0
    fi
fi
count_all >"$temp/counts" || exit 1
if [ "${1-}" = --update ]; then write_baseline; else compare; fi
