#!/bin/sh
# Sourced by parser.sh, check.sh and rooms.sh: how many instructions a request takes. They set $temp, a directory.
# shellcheck disable=SC2154

# Requests in the shorter of two runs. What start-up and the first request cost cancels in the difference.
COUNT=800

# The C library picks its string functions by CPU; these are the ones that each x86-64 has.
tunables=glibc.cpu.hwcaps=-AVX2,-AVX,-AVX2_Usable,-ERMS,-SSE4_2,-SSE4_1

# callgrind FLAG... COMMAND...: counts into $temp/callgrind
callgrind() {
    rm -f "$temp/callgrind"
    GLIBC_TUNABLES=$tunables valgrind --tool=callgrind --callgrind-out-file="$temp/callgrind" "$@" >/dev/null \
        2>"$temp/valgrind"
}

# collected FUNCTION COMMAND...: instructions executed between entering and leaving the function
collected() {
    function=$1
    shift
    callgrind --toggle-collect="$function" "$@" || return
    sed -n 's/^totals: //p' "$temp/callgrind"
}

# per_request FUNCTION COMMAND...: of a command that takes the number of requests as its last argument
per_request() {
    once=$(collected "$@" "$COUNT") && twice=$(collected "$@" $((2 * COUNT))) || return
    awk "BEGIN { printf \"%.1f\n\", ($twice - $once) / $COUNT }"
}

# has CPU-FLAG: as /proc/cpuinfo names it
has() {
    grep -qw "$1" /proc/cpuinfo
}
