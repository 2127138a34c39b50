#!/bin/sh
# Starts the showcase on a free port and lets build/idle count what idle connections cost it.

set -u
: "${BUILD:=build}" "${CONNECTIONS:=10000}"
out=$(mktemp) || exit 2
"$BUILD/showcase" --host 127.0.0.1 --port 0 --quiet >"$out" &
pid=$!
trap 'kill $pid; rm -f "$out"' EXIT
tries=0
until port=$(sed -n 's/.*:\([0-9]*\)\/$/\1/p' "$out") && [ -n "$port" ]; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || exit 1
    sleep 0.1
done
"$BUILD/idle" "$port" $pid 1 >/dev/null # so that start-up is over
"$BUILD/idle" "$port" $pid "$CONNECTIONS"
