#!/bin/sh
# The header as users have it: one unit or two, C and C++, their includes first, their macros. Each way is
# built without a warning and run. REQUIRE_CXX=1 in the environment: a missing C++ compiler is a failure.

. tests/check.sh

: "${CC:=cc}" "${CXX:=c++}" "${CFLAGS=-std=gnu11 -g}"
: "${WARNINGS=-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow}"
flags="$WARNINGS -Werror -O0 -I. -pthread"
cxxflags=$(echo " $CFLAGS" | sed 's/ -std=[^ ]*//')
user=tests/units/user.c

# one_unit FLAG...: implementation and program in one unit
one_unit() {
    $CC $CFLAGS $flags -DUNIT_IMPLEMENTATION "$@" $user -o "$scratch/one" && "$scratch/one"
}

# two_units: the implementation in a unit of its own
two_units() {
    $CC $CFLAGS $flags -c tests/units/impl.c -o "$scratch/impl.o" &&
        $CC $CFLAGS $flags -c $user -o "$scratch/user.o" &&
        $CC $CFLAGS $flags "$scratch/user.o" "$scratch/impl.o" -o "$scratch/two" && "$scratch/two"
}

cxx_one_unit() {
    $CXX $cxxflags $flags "$@" -DUNIT_IMPLEMENTATION -x c++ $user -o "$scratch/cxx-one" && "$scratch/cxx-one"
}

cxx_two_units() {
    $CC $CFLAGS $flags -c tests/units/impl.c -o "$scratch/impl.o" &&
        $CXX $cxxflags $flags "$@" -x c++ -c $user -o "$scratch/cxx.o" &&
        $CXX $cxxflags $flags "$scratch/cxx.o" "$scratch/impl.o" -o "$scratch/cxx-two" && "$scratch/cxx-two"
}

strict_impl() {
    $CC $CFLAGS $flags -std=c11 "$@" -c tests/units/impl.c -o "$scratch/strict.o"
}

# In a strict mode the system's headers, when they come first, hide what the implementation needs. It may do
# without; if it does not, the compiler's message must say the remedy.
strict_system_first() {
    strict_impl -include stdio.h >"$scratch/strict.log" 2>&1 && return
    cat "$scratch/strict.log"
    grep '#error.*_GNU_SOURCE' "$scratch/strict.log"
}

# refuses MACRO VALUE: the compiler's message names the macro, or its last part ("HTTPSRV_MAX_LISTENERS and _POOLS")
refuses() {
    $CC $CFLAGS -I. -DHTTPSRV_IMPLEMENTATION "-D$1=$2" -E -x c httpsrv.h 2>&1 >/dev/null |
        grep "#error.*$(echo "$1" | sed 's/^HTTPSRV_\(MAX\)*//')"
}

# c_block FILE: the first block of C code in a Markdown file
c_block() {
    sed -n '/^```c$/,/^```$/{/^```c$/d;/^```$/q;p;}' "$1"
}

# The example between "#define HTTPSRV_IMPLEMENTATION" and its command line in the header's doc block
doc_block() {
    sed -n '/^\/\/ *#define HTTPSRV_IMPL/,/^\/\/ *cc /{/^\/\/ *cc /q;s/^\/\/ \{0,5\}//;p;}' httpsrv.h
}

# compiles FILE: it is a program, and there is no warning
compiles() {
    grep 'int main' "$1" && $CC $CFLAGS $flags "$1" -o "$scratch/doc"
}

check 'one unit' one_unit
check 'two units' two_units
check 'one unit, system headers first' one_unit -DUNIT_SYSTEM_FIRST
check 'one unit, C11, httpsrv.h first' one_unit -std=c11
check 'implementation, C11, system headers first' strict_system_first
check 'implementation, C11, system headers first, _GNU_SOURCE' strict_impl -D_GNU_SOURCE -include stdio.h

check 'HTTPSRV_API=static' one_unit -DHTTPSRV_API=static
check 'HTTPSRV_DEBUG' one_unit -DHTTPSRV_DEBUG
check 'HTTPSRV_ASSERT of the user' one_unit -DHTTPSRV_DEBUG -DUNIT_ASSERT
small='-DHTTPSRV_READ_BUFFER=512 -DHTTPSRV_WRITE_BUFFER=512 -DHTTPSRV_REQUEST_MEMORY=256
    -DHTTPSRV_MAX_LISTENERS=1 -DHTTPSRV_MAX_POOLS=1 -DHTTPSRV_MAX_PARAMS=1 -DHTTPSRV_MAX_MEDIA=1 -DHTTPSRV_MAX_RANGES=1
    -DHTTPSRV_PART_HEAD=128 -DHTTPSRV_RATE_PERIOD=1'
case $CFLAGS in
*-fsanitize=*) single= ;; # compiling takes long then, and all of them together run below
*) single="$small -DHTTPSRV_CACHE_LINE=128" ;;
esac
for macro in $single; do
    check "${macro#-D}" one_unit "$macro"
done
for past in READ_BUFFER=511 WRITE_BUFFER=511 REQUEST_MEMORY=255 MAX_LISTENERS=0 MAX_POOLS=0 MAX_PARAMS=0 MAX_PARAMS=65 \
    MAX_MEDIA=0 MAX_RANGES=0 PART_HEAD=127 RATE_PERIOD=0 RATE_PERIOD=20001 CACHE_LINE=7; do
    check "HTTPSRV_$past is refused" refuses "HTTPSRV_${past%=*}" "${past#*=}"
done
check 'HTTPSRV_CACHE_LINE=8' one_unit -DHTTPSRV_CACHE_LINE=8
check 'all of these with HTTPSRV_DEBUG' one_unit $small -DHTTPSRV_CACHE_LINE=128 -DHTTPSRV_DEBUG

c_block README.md >"$scratch/readme.c"
check 'the hello of README.md' compiles "$scratch/readme.c"
doc_block >"$scratch/docblock.c"
check "the hello of the header's doc block" compiles "$scratch/docblock.c"

if command -v "${CXX%% *}" >/dev/null || [ "${REQUIRE_CXX:-0}" = 1 ]; then
    check 'C++11, one unit' cxx_one_unit -std=c++11
    check 'C++17, one unit, system headers first' cxx_one_unit -std=c++17 -DUNIT_SYSTEM_FIRST
    check 'C++17, the implementation in C' cxx_two_units -std=c++17
else
    skip 'C++' "there is no C++ compiler $CXX"
fi

finish
