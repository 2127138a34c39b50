#!/bin/sh
# Measures the parser: its speed against http_parser, built in two ways, what a byte costs in small and large messages,
# and its instructions per request for each way to scan. Compares with Debian's http_parser if it is installed (package
# libhttp-parser-dev), and counts with callgrind if that is (package valgrind).
#
#     make bench-parser

set -u
cd "$(dirname "$0")/.." || exit 2
. bench/callgrind.sh

: "${CC:=cc}" "${BUILD:=build}"
temp=$BUILD/bench/parser
mkdir -p "$temp" || exit 2

compare=''
if echo '#include <http_parser.h>' | $CC -E - >/dev/null 2>&1; then
    compare='-DHAVE_HTTP_PARSER bench/parser.c -lhttp_parser'
fi

# build FLAGS: into $temp/parser
build() {
    # shellcheck disable=SC2086
    $CC -std=gnu11 -g $1 -I. -pthread ${compare:-bench/parser.c} -o "$temp/parser" || exit 1
}

# instructions FLAGS: a row of the table
instructions() {
    build "$1"
    printf '%-28s %-8s' "$1" "$("$temp/parser" --scan)"
    for request in small cookies chrome; do
        printf ' %9s' "$(per_request parse_ours "$temp/parser" $request || echo '?')"
    done
    echo
}

for flags in '-O2' '-O3 -march=native'; do
    build "$flags"
    echo "$($CC --version | head -n 1), $flags"
    "$temp/parser" || exit 1
    echo
done

build '-O2'
"$temp/parser" --linear || exit 1
echo

if ! command -v valgrind >/dev/null; then
    echo 'valgrind is not installed (Debian package valgrind): instructions are not counted'
    exit 0
fi
printf '%-28s %-8s %9s %9s %9s\n' 'instructions per request' scanning small cookies chrome
instructions '-O2 -DHTTPSRV_NO_SIMD'
instructions '-O2'
if has sse4_2; then instructions '-O2 -msse4.2'; fi
if has avx2; then instructions '-O2 -mavx2'; fi
instructions '-O3 -march=native -mno-avx512f' # which callgrind does not know
