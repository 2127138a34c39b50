# For scripts that run the examples, which start with `. tests/examples.sh` at the top of the repository, instead of
# check.sh: starts and ends the servers, and asks them with a client that is built here. A request that goes through
# `exchange` leaves its answer in $scratch/answer, and in parts in $scratch/head, without its CRs, and $scratch/body.

. tests/check.sh

exec </dev/null # host_loop listens to the terminal

: "${CC:=cc}" "${CFLAGS=-std=gnu11 -g}" "${BUILD:=build}"
client=$scratch/client
server=
port=

trap '[ -z "$server" ] || kill -KILL "$server"; rm -rf "$scratch"' EXIT

$CC $CFLAGS tests/units/client.c -o "$client" || exit 2

# ---- asking; each script has an `ask` of its own, that knows what its requests consist of ----

# exchange: sends what is in $scratch/request, and prints the head of the answer
exchange() {
    "$client" "$port" <"$scratch/request" >"$scratch/answer" || return
    tr -d '\r' <"$scratch/answer" | sed '/^$/q' >"$scratch/head"
    sed "1,/^.\$/d" "$scratch/answer" >"$scratch/body"
    cat "$scratch/head"
}

# answers STATUS FILE ASK...: the answer has exactly this status and, in the FILE, this body
answers() {
    want_status=$1 want_body=$2
    shift 2
    ask "$@" && grep "^HTTP/1.1 $want_status " "$scratch/head" && cmp "$want_body" "$scratch/body"
}

# ---- servers ----

# wait_for SECONDS COMMAND...: until the command succeeds
wait_for() {
    tries=$(($1 * 20))
    shift
    while [ "$tries" -gt 0 ]; do
        "$@" && return
        tries=$((tries - 1))
        sleep 0.05
    done
    echo "gave up waiting for: $*"
    return 1
}

# start PROGRAM ARGUMENT...: runs it and takes the port from what it prints
start() {
    : >"$scratch/out"
    "$@" >"$scratch/out" 2>"$scratch/err" &
    server=$!
    wait_for 20 grep -q '^listening on ' "$scratch/out" || return
    port=$(sed -n 's/^listening on .*:\([0-9]*\)\/$/\1/p' "$scratch/out")
    [ "${port:-0}" -gt 0 ]
}

# ends_with CODE: the server ends by itself with that exit status, within half a minute
ends_with() {
    { sleep 30 && kill -KILL "$server"; } &
    watchdog=$!
    wait "$server"
    code=$?
    kill "$watchdog" 2>/dev/null
    server=
    cat "$scratch/err"
    echo "exit status $code"
    [ "$code" -eq "$1" ]
}

# stop: SIGTERM ends the server with exit status 0
stop() {
    kill -TERM "$server"
    ends_with 0
}

# exits CODE COMMAND...: the command ends with that exit status
exits() {
    want=$1
    shift
    "$@" >"$scratch/out" 2>"$scratch/err"
    code=$?
    cat "$scratch/out" "$scratch/err"
    echo "exit status $code"
    [ "$code" -eq "$want" ]
}
