#!/bin/sh
# The scans of >>text and what stands on them, built for each way to scan that this compiler and this CPU know.

. tests/check.sh

: "${CC:=cc}" "${CFLAGS=-std=gnu11 -g}"
: "${WARNINGS=-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow}"
programs='test_scan test_rooms_text test_parser' optimize=-O1
case $CFLAGS in
*-fsanitize=*) programs=test_parser optimize=-O0 ;; # the others are slow then, and run by themselves as well
esac

# The name of the way that the header promises for what the compiler says of itself with these flags
expected_path() {
    case $($CC $CFLAGS "$@" -dM -E -x c /dev/null) in
    *' HTTPSRV_NO_SIMD '*) echo words ;;
    *' __AVX2__ '*) echo AVX2 ;;
    *' __SSSE3__ '*) echo SSSE3 ;;
    *' __SSE2__ '*) echo SSE2 ;;
    *' __aarch64__ '*) echo NEON ;;
    *) echo words ;;
    esac
}

# scans_by PATH: so says the program, which is test_scan
scans_by() {
    said=$("$scratch/program" --path)
    echo "built for $said, expected $1"
    [ "$said" = "$1" ]
}

# passes PROGRAM PATH FLAG...: it is built without a warning, for that way to scan, and its tests pass
passes() {
    program=$1 path=$2
    shift 2
    $CC $CFLAGS $WARNINGS -Werror $optimize "$@" -I. -pthread "tests/$program.c" -o "$scratch/program" || return
    [ "$program" != test_scan ] || scans_by "$path" || return
    "$scratch/program"
}

# with FLAG...: the programs with these flags beside the usual ones
with() {
    path=$(expected_path "$@")
    for program in $programs; do
        check "$program, ${*:-plain}: $path" passes "$program" "$path" "$@"
    done
}

# x86_with CPU-FLAG FLAG: if this CPU has what /proc/cpuinfo calls so, and the compiler knows the flag
x86_with() {
    if ! grep -qw "$1" /proc/cpuinfo; then
        skip "$2" "the CPU has no $1"
    elif ! $CC "$2" -E -x c /dev/null >/dev/null 2>&1; then
        skip "$2" "$CC does not know it"
    else
        with "$2"
    fi
}

with -DHTTPSRV_NO_SIMD
[ "$programs" = test_parser ] || with # which runs by itself as well
x86_with sse4_2 -msse4.2
x86_with avx2 -mavx2
finish
