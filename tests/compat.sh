#!/bin/sh
# The header in every dialect: gcc and clang, C11 to C23 and C++11 to C++20, strict and gnu modes, with and
# without optimisation, each without a warning. A compiler that is not installed is skipped; REQUIRE_CXX=1
# makes that a failure.

. tests/check.sh

flags='-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Werror -pthread'
repository=$PWD
alone=$scratch/alone # nothing but the header and what includes it
user=$repository/tests/units/user.c

mkdir "$alone" && cp httpsrv.h "$alone" || exit 2
echo '#include "httpsrv.h"' >"$alone/front.c"
printf '#define HTTPSRV_IMPLEMENTATION\n#include "httpsrv.h"\n' >"$alone/impl.c"

# alone COMPILER FLAG...: the header alone in a directory, without and with the implementation
alone() {
    cd "$alone" || return
    "$@" $flags -c front.c -o front.o && "$@" $flags -c impl.c -o impl.o
    code=$?
    cd "$repository" || exit 2
    return $code
}

# program COMPILER FLAG...: a program around the implementation is built and runs
program() {
    "$@" $flags -I. -DUNIT_IMPLEMENTATION "$user" -o "$scratch/program" && "$scratch/program"
}

# mixed COMPILER-OF-THE-IMPLEMENTATION COMPILER-OF-THE-USER FLAG...: two units, linked by the second compiler
mixed() {
    impl=$1
    shift
    "$impl" -std=gnu11 $flags -c "$alone/impl.c" -o "$scratch/impl.o" &&
        "$@" $flags -I. -c "$user" -o "$scratch/user.o" &&
        "${1%% *}" -pthread "$scratch/user.o" "$scratch/impl.o" -o "$scratch/mixed" && "$scratch/mixed"
}

installed() {
    command -v "$1" >/dev/null
}

# wanted COMPILER: whether to test with it; a missing one is skipped or failed
wanted() {
    installed "$1" && return
    if [ "${REQUIRE_CXX:-0}" = 1 ]; then
        check "$1" installed "$1"
    else
        skip "$1" 'not installed'
    fi
    return 1
}

for c in gcc clang; do
    wanted $c || continue
    for optimise in -O0 -O2; do
        for std in c11 c17 c2x gnu11 gnu17; do
            check "$c $std $optimise" alone $c -std=$std $optimise
        done
    done
    check "$c gnu11 -O3" alone $c -std=gnu11 -O3
    check "$c gnu11 -Os" alone $c -std=gnu11 -Os
    check "$c gnu11 HTTPSRV_DEBUG" alone $c -std=gnu11 -O2 -DHTTPSRV_DEBUG
    check "$c c11, the smallest" alone $c -std=c11 -Os -DHTTPSRV_INLINE_ONLY -DHTTPSRV_NO_SHORTCUTS -DHTTPSRV_NO_REGEX
    check "$c gnu11, system headers first" program $c -std=gnu11 -DUNIT_SYSTEM_FIRST
    check "$c gnu17, system headers first" program $c -std=gnu17 -O2 -DUNIT_SYSTEM_FIRST
    check "$c c11, httpsrv.h first" program $c -std=c11
    check "$c c17, httpsrv.h first" program $c -std=c17 -O2
    check "$c two units" mixed $c $c -std=gnu11
done

for cxx in g++ clang++; do
    wanted $cxx || continue
    for optimise in -O0 -O2; do
        for std in c++11 c++17 c++20; do
            check "$cxx $std $optimise" alone $cxx -std=$std $optimise -x c++
        done
    done
    check "$cxx c++17 HTTPSRV_DEBUG" alone $cxx -std=c++17 -O2 -DHTTPSRV_DEBUG -x c++
    check "$cxx c++11, the smallest" alone $cxx -std=c++11 -Os -DHTTPSRV_INLINE_ONLY -DHTTPSRV_NO_SHORTCUTS \
        -DHTTPSRV_NO_REGEX -x c++
    check "$cxx gnu++17, system headers first" program $cxx -std=gnu++17 -DUNIT_SYSTEM_FIRST -x c++
    check "$cxx c++11, httpsrv.h first" program $cxx -std=c++11 -x c++
done

if installed gcc && installed clang && installed g++ && installed clang++; then
    check 'implementation by gcc, user by clang' mixed gcc clang -std=gnu11
    check 'implementation by clang, user by gcc' mixed clang gcc -std=gnu11
    check 'implementation by gcc, user by g++' mixed gcc g++ -std=c++17 -x c++
    check 'implementation by clang, user by clang++' mixed clang clang++ -std=c++20 -x c++
fi
finish
