#!/bin/sh
# Other machines, by cross compilers and emulators: 64 bits and 32, little-endian and big-endian. On each the parser,
# >>text and its scans pass their tests, and the hello of examples/ serves a request. What is not installed is
# skipped, with the name of its Debian package.
#
#     make cross

. tests/check.sh

: "${CC:=cc}" "${CFLAGS=-std=gnu11 -g}"
: "${WARNINGS=-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow}"
client=$scratch/client
server=

trap '[ -z "$server" ] || kill -KILL "$server"; rm -rf "$scratch"' EXIT

# An emulator takes ten to twenty times as long.
export TEST_TIMEOUT_SCALE=10

# ---- programs of the other machine: $compiler, $machine_flags, $emulator ----

# build SOURCE: into $scratch/program, statically linked, without a warning
build() {
    $compiler -std=gnu11 -O2 $WARNINGS -Werror $machine_flags -I. -pthread -static "$1" -o "$scratch/program"
}

# scans_by PATH: so says the program, which is test_scan
scans_by() {
    said=$("$emulator" "$scratch/program" --path)
    echo "built for $said, expected $1"
    [ "$said" = "$1" ]
}

# passes PROGRAM PATH: it is built for that way to scan, and its tests pass
passes() {
    build "tests/$1.c" || return
    [ "$1" != test_scan ] || scans_by "$2" || return
    "$emulator" "$scratch/program"
}

has_32_bits() {
    [ "$(echo __SIZEOF_LONG__ | $compiler $machine_flags -E -P -)" = 4 ]
}

# takes_late [FLAG...]: the implementation is taken behind a header of the system
takes_late() {
    printf '#include <stdio.h>\n#define HTTPSRV_IMPLEMENTATION\n#include "httpsrv.h"\n' >"$scratch/late.c"
    $compiler -std=gnu11 $WARNINGS -Werror $machine_flags "$@" -I. -fsyntax-only "$scratch/late.c"
}

# There it is too late to ask for files of more than 2 GB: that fails and says what to do, and with this it does not.
wants_large_files() {
    advice='include it before system headers, or compile with -D_FILE_OFFSET_BITS=64'
    if takes_late 2>"$scratch/err"; then
        echo 'is taken without -D_FILE_OFFSET_BITS=64'
        return 1
    fi
    cat "$scratch/err"
    grep -F "$advice" "$scratch/err" && takes_late -D_FILE_OFFSET_BITS=64
}

ask_hello() {
    printf 'GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' | "$client" wait "$port" | tr -d '\r'
}

answers_hello() {
    ask_hello >"$scratch/answer"
    cat "$scratch/answer"
    grep -x 'HTTP/1.1 200 OK' "$scratch/answer" && grep -x 'Hello, World!' "$scratch/answer"
}

stops() {
    kill -KILL "$server"
    wait "$server"
    server=
}

# Its port is a constant, so it is built with a free one. Somebody else may take that meanwhile, hence three tries.
serves_hello() {
    for try in 1 2 3; do
        port=$("$client" free)
        sed "s/8080/$port/" examples/hello.c >"$scratch/hello.c"
        build "$scratch/hello.c" || return
        "$emulator" "$scratch/program" 2>"$scratch/err" &
        server=$!
        answers_hello && stops && return
        cat "$scratch/err"
        stops
    done
    return 1
}

# ---- machines ----

installed() {
    command -v "$1" >/dev/null
}

# The C library to link statically is a package of its own.
links() {
    echo 'int main(void) { return 0; }' | "$compiler" -static -x c - -o "$scratch/program" 2>/dev/null
}

# missing LIBRARY-PACKAGE: the packages that are not there
missing() {
    installed "$compiler" || echo "gcc-${compiler%-gcc}"
    links || echo "$1"
    installed "$emulator" || echo qemu-user
}

# machine NAME COMPILER EMULATOR LIBRARY-PACKAGE PATH [FLAG...]: its tests; PATH is its way to scan
machine() {
    machine=$1 compiler=$2 emulator=$3 path=$5
    packages=$(missing "$4")
    shift 5
    machine_flags=$*
    if [ -n "$packages" ]; then
        skip "$machine" "not installed: Debian packages $(echo $packages)"
        return
    fi
    for program in test_scan test_rooms_text test_parser; do
        check "$machine, $path: $program" passes $program "$path"
    done
    check "$machine, $path: hello" serves_hello
    ! has_32_bits || check "$machine, $path: large files" wants_large_files
}

$CC $CFLAGS tests/units/client.c -o "$client" || exit 2
machine aarch64 aarch64-linux-gnu-gcc qemu-aarch64 libc6-dev-arm64-cross NEON
machine arm arm-linux-gnueabihf-gcc qemu-arm libc6-dev-armhf-cross words
machine 'arm -mfpu=neon' arm-linux-gnueabihf-gcc qemu-arm libc6-dev-armhf-cross words -mfpu=neon
machine 'mips (big-endian)' mips-linux-gnu-gcc qemu-mips libc6-dev-mips-cross words
machine riscv64 riscv64-linux-gnu-gcc qemu-riscv64 libc6-dev-riscv64-cross words
finish
