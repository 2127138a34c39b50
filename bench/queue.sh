#!/bin/sh
# Measures the ring and the pool of httpsrv.h beside a mutex and two condition variables, and says on what. The figures
# are those of threads that do nothing else: what matters is the ratio.
#
#     make bench-queue          SECONDS_EACH=3 in the environment: so long for each figure (1)

set -u
cd "$(dirname "$0")/.." || exit 2

: "${CC:=cc}" "${CFLAGS=-std=gnu11 -O2 -g}" "${BUILD:=build}" "${SECONDS_EACH:=1}"

model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
echo "$($CC --version | head -n 1), $CFLAGS"
echo "$(nproc) CPUs${model:+, $model}"
"$BUILD/queue" "$SECONDS_EACH"
