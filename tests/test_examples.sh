#!/bin/sh
# Runs every example as it stands in the repository and looks at what it answers.

. tests/examples.sh

# ---- asking ----

client_waits= # "wait" for a server that does not say when it listens

# ask METHOD TARGET [BODY [FIELD...]]: sends a request and prints the answer, without its CRs
ask() {
    {
        printf '%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n' "$1" "$2"
        [ $# -lt 3 ] || printf 'Content-Length: %d\r\n' "${#3}"
        body=${3-}
        shift $(($# < 3 ? $# : 3))
        [ $# -eq 0 ] || printf '%s\r\n' "$@"
        printf '\r\n%s' "$body"
    } | "$client" $client_waits "$port" | tr -d '\r'
}

# says STATUS TEXT ASK...: the answer has exactly this status and, as its body, this text
says() {
    want_status=$1 want_body=$2
    shift 2
    answer=$(ask "$@")
    printf '%s\n' "$answer"
    [ "$(printf '%s\n' "$answer" | sed -n '1s/^HTTP\/1.1 \([0-9]*\) .*/\1/p')" = "$want_status" ] &&
        [ "$(printf '%s\n' "$answer" | sed '1,/^$/d')" = "$want_body" ]
}

# has_status STATUS ASK...
has_status() {
    want=$1
    shift
    ask "$@" | tee "$scratch/answer"
    grep "^HTTP/1.1 $want " "$scratch/answer"
}

# contains TEXT ASK...: a line of the answer contains the text
contains() {
    want=$1
    shift
    ask "$@" | tee "$scratch/answer"
    grep -F -e "$want" "$scratch/answer"
}

# has_line LINE ASK...: a line of the answer is the text
has_line() {
    want=$1
    shift
    ask "$@" | tee "$scratch/answer"
    grep -F -x -e "$want" "$scratch/answer"
}

# ---- servers ----

# stop_at_once: for examples that have no signal handler
stop_at_once() {
    kill -TERM "$server"
    ends_with 143
}

# Signals come all the time until the program has ended: at the drain, while the server is freed, and after that.
stop_again_and_again() {
    i=0
    while [ $i -lt 5000 ]; do
        kill -TERM "$server" || break
        i=$((i + 1))
    done
    ends_with 0
}

# answers_in_its_time TARGET BODY OTHER: the request is answered, but OTHER, which comes later, before it
answers_in_its_time() {
    ask GET "$1" >"$scratch/later" &
    asker=$!
    sleep 0.3
    has_status 200 GET "$3" || return
    if [ -s "$scratch/later" ]; then
        echo "$1 was answered before $3"
        return 1
    fi
    wait "$asker"
    cat "$scratch/later"
    grep -x 'HTTP/1.1 200 OK' "$scratch/later" && grep -F -x -e "$2" "$scratch/later"
}

# drain_waits_for TARGET BODY: a request that is being answered when SIGTERM comes
drain_waits_for() {
    ask GET "$1" >"$scratch/answer" &
    asker=$!
    sleep 0.5
    stop || return
    wait "$asker"
    cat "$scratch/answer"
    grep -F -x -e "$2" "$scratch/answer" && grep -i -x 'Connection: close' "$scratch/answer"
}

# has_threads NUMBER: so many has the server
has_threads() {
    set -- "$1" /proc/"$server"/task/*
    echo "$(($# - 1)) threads"
    [ $(($# - 1)) -eq "$1" ]
}

# has_thread NAME
has_thread() {
    cat /proc/"$server"/task/*/comm >"$scratch/names"
    cat "$scratch/names"
    grep -F -x -e "$1" "$scratch/names"
}

# check_threads NAME NUMBER: that is, unless ThreadSanitizer adds one of its own
check_threads() {
    case $CFLAGS in
    *-fsanitize=thread*) skip "$1" 'ThreadSanitizer has a thread of its own' ;;
    *) check "$1" has_threads "$2" ;;
    esac
}

# ---- hello ----

# Its port is a constant, so it is built with a free one. Somebody else may take that meanwhile, hence three
# tries.
serves_hello() {
    for try in 1 2 3; do
        port=$("$client" free)
        sed "s/8080/$port/" examples/hello.c >"$scratch/hello.c"
        $CC $CFLAGS -I. -pthread "$scratch/hello.c" -o "$scratch/hello" || return
        "$scratch/hello" 2>"$scratch/err" &
        server=$!
        client_waits=wait
        says 200 'Hello, World!' GET / && client_waits= && has_line 'Content-Type: text/plain' GET / && return
        kill -KILL "$server"
        wait "$server"
        server=
    done
    return 1
}

# It cannot start, says so, and is not taken for one that did.
finds_its_port_taken() {
    exits 1 timeout 20 "$scratch/hello" && grep "$port" "$scratch/err"
}

test_hello() {
    check 'hello: GET /' serves_hello
    [ -z "$server" ] || check 'hello: port in use' finds_its_port_taken
    [ -z "$server" ] || check 'hello: ends' stop_at_once
}

# ---- arguments ----

# prints_its_usage CODE COMMAND...: on the standard output if asked for, else as a complaint; nothing is started
prints_its_usage() {
    want_code=$1
    shift
    exits "$want_code" timeout 20 "$@" || return
    [ "$want_code" -eq 0 ] && usage_in=out empty=err || usage_in=err empty=out
    grep '^usage: ' "$scratch/$usage_in" && [ ! -s "$scratch/$empty" ]
}

# cannot_spool_to DIRECTORY: upload says so at once
cannot_spool_to() {
    exits 1 timeout 20 "$BUILD/upload" 0 "$1" && grep -F -e "$1" "$scratch/err" && [ ! -s "$scratch/out" ]
}

test_arguments() {
    for example in assets deferred host_loop host_poll middleware pool routes sse_clock stream upload; do
        check "$example: --help" prints_its_usage 0 "$BUILD/$example" --help
        check "$example: port not a number" prints_its_usage 2 "$BUILD/$example" abc
    done
    for bad in '' -1 +1 ' 1' 80x 65536 4294967296 99999999999 99999999999999999999; do
        check "routes: port \"$bad\"" prints_its_usage 2 "$BUILD/routes" "$bad"
    done
    check 'routes: two arguments' prints_its_usage 2 "$BUILD/routes" 0 0
    check 'upload: three arguments' prints_its_usage 2 "$BUILD/upload" 0 "$scratch" 0
    check 'upload: no such directory' cannot_spool_to "$scratch/nowhere"
    check 'upload: not a directory' cannot_spool_to "$client"
    check 'files: --help' prints_its_usage 0 "$BUILD/files" --help
    check 'files: port not a number' prints_its_usage 2 "$BUILD/files" . abc
    check 'files: three arguments' prints_its_usage 2 "$BUILD/files" . 0 0
    check 'parser_only: --help' prints_its_usage 0 "$BUILD/parser_only" --help
    check 'parser_only: no such argument' prints_its_usage 2 "$BUILD/parser_only" foo
    check 'parser_only: two arguments' prints_its_usage 2 "$BUILD/parser_only" - foo
}

# ---- routes ----

test_routes() {
    check 'routes: starts' start "$BUILD/routes" 0
    check 'routes: parameter' says 200 'user 4 2' GET /users/4%202
    check 'routes: parameter must not be empty' has_status 404 GET /users/
    check 'routes: wildcard' says 200 'document a/b.txt' GET /docs/a/b.txt
    check 'routes: empty wildcard' says 200 'document ' GET /docs/
    check 'routes: query is escaped' contains '<b>&lt;i&gt; &amp; &quot;</b>' GET '/search?q=%3Ci%3E+%26+%22'
    check 'routes: empty query' contains '<b></b>' GET '/search?q='
    check 'routes: no query' says 400 'add ?q=something' GET /search
    check 'routes: field' says 200 'agent me' GET /agent '' 'USER-AGENT:   me  '
    check 'routes: no field' says 200 'agent unknown' GET /agent
    check 'routes: body' says 201 '5 bytes taken' POST /notes 12345
    check 'routes: field of the answer' has_line 'Location: /notes/1' POST /notes 12345
    check 'routes: limit of the body' has_status 413 POST /notes "$(printf '%05000d' 0)"
    check 'routes: redirect' has_line 'Location: /users/42' GET /old
    check 'routes: constant body' has_line 'Content-Length: 65536' GET /big
    check 'routes: field of the constant body' has_line 'Cache-Control: max-age=3600' GET /big
    check 'routes: 404' has_status 404 GET /nowhere
    check 'routes: 405' has_status 405 DELETE /agent
    check 'routes: Allow' contains 'Allow: GET' DELETE /agent
    check 'routes: HEAD' says 200 '' HEAD /users/42
    check 'routes: OPTIONS' contains 'Allow: ' OPTIONS /agent
    check 'routes: SIGTERM, many times' stop_again_and_again
}

# ---- pool ----

fast_beside_slow() {
    ask GET /slow >"$scratch/slow" &
    slow=$!
    says 200 fast GET /fast || return
    if [ -s "$scratch/slow" ]; then
        echo '/slow was answered before /fast'
        return 1
    fi
    wait "$slow"
    grep -x slow "$scratch/slow"
}

test_pool() {
    check 'pool: starts' start "$BUILD/pool" 0
    check 'pool: /fast while /slow sleeps' fast_beside_slow
    check 'pool: SIGTERM' stop
}

# ---- parser_only ----

parses_sample() {
    "$BUILD/parser_only" >"$scratch/out" || return
    cat "$scratch/out"
    grep -x 'method   POST' "$scratch/out" && grep -x 'path     /upload' "$scratch/out" &&
        grep -x 'query    kind=text' "$scratch/out" && grep -x 'host     example.org' "$scratch/out" &&
        grep -x 'field    Content-Type = text/plain' "$scratch/out" &&
        grep -x 'trailer  Checksum = none' "$scratch/out" &&
        [ "$(sed -n 's/^body     "\(.*\)"$/\1/p' "$scratch/out" | tr -d '\n')" = 'Hello, World!' ]
}

# parses TEXT STATUS LINE: what is printed for a text on the standard input has that line
parses() {
    printf "$1" | "$BUILD/parser_only" - >"$scratch/out"
    code=$?
    cat "$scratch/out"
    [ "$code" -eq "$2" ] && grep "$3" "$scratch/out"
}

test_parser_only() {
    check 'parser_only: the sample' parses_sample
    check 'parser_only: standard input' parses 'GET /a?b HTTP/1.1\r\nHost: c\r\n\r\n' 0 '^done     30 bytes$'
    check 'parser_only: refused' parses 'GET /a HTTP/1.1\nHost: c\n\n' 1 '^refused  400 '
    check 'parser_only: not complete' parses 'GET /a HTTP/1.1\r\n' 1 '^not complete$'
}

# ---- deferred ----

# The client asks twice, is stopped before the first answer comes, and killed when that lies unread: so its connection
# is reset, long before the second answer is due.
finds_nobody() {
    printf 'GET /in/%d HTTP/1.1\r\nHost: localhost\r\n\r\n' 1000 2500 >"$scratch/requests"
    "$client" "$port" <"$scratch/requests" >"$scratch/answer" &
    leaver=$!
    sleep 0.4
    kill -STOP "$leaver"
    sleep 1.2
    kill -KILL "$leaver"
    wait "$leaver"
    sleep 2.4
    stop || return
    cat "$scratch/out"
    [ ! -s "$scratch/answer" ] && [ "$(grep -c -x 'an answer for nobody: gone' "$scratch/out")" -eq 1 ]
}

# A client that just closes may have finished sending only: it is answered, and that is no error either.
survives_a_leaver() {
    printf 'GET /in/700 HTTP/1.1\r\nHost: localhost\r\n\r\n' >"$scratch/requests"
    "$client" "$port" <"$scratch/requests" >"$scratch/answer" &
    leaver=$!
    sleep 0.3
    kill -KILL "$leaver"
    wait "$leaver"
    [ ! -s "$scratch/answer" ] || return
    sleep 0.6
    says 200 'here you are' GET /in/0
}

# All of them wait at the same time, so that they take hardly longer than one.
many_wait() {
    begin=$(date +%s)
    askers=
    for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
        ask GET /in/1500 >"$scratch/later.$i" &
        askers="$askers $!"
    done
    wait $askers
    echo "after $(($(date +%s) - begin)) seconds"
    [ $(($(date +%s) - begin)) -lt 15 ] && [ "$(cat "$scratch"/later.* | grep -c -x 'here you are')" -eq 12 ]
}

test_deferred() {
    check 'deferred: starts' start "$BUILD/deferred" 0
    check_threads 'deferred: the server and the clock' 2
    check 'deferred: at once' says 200 'here you are' GET /in/0
    check 'deferred: later' answers_in_its_time /in/1500 'here you are' /in/0
    check 'deferred: many wait' many_wait
    for bad in x -1 1.5 60001 99999999999999999999; do
        check "deferred: /in/$bad" has_status 400 GET "/in/$bad"
    done
    check 'deferred: a client closes early' survives_a_leaver
    check 'deferred: SIGTERM waits for an answer' drain_waits_for /in/1500 'here you are'
    check 'deferred: starts again' start "$BUILD/deferred" 0
    check 'deferred: a client is gone; SIGTERM' finds_nobody
}

# ---- host_loop ----

# shows PATTERN: / is answered with a line like this
shows() {
    ask GET / | tee "$scratch/answer"
    grep -x 'HTTP/1.1 200 OK' "$scratch/answer" && grep -x -e "$1" "$scratch/answer"
}

# Descriptor 9 is the terminal's other end, which is not for the server.
start_typing() {
    mkfifo "$scratch/terminal" && exec 9<>"$scratch/terminal" || return
    start sh -c 'exec "$0" 0 <"$1" 9>&-' "$BUILD/host_loop" "$scratch/terminal"
}

# types LINE
types() {
    printf '%s\n' "$1" >&9
    wait_for 10 shows "[0-9]* seconds, $1"
}

test_host_loop() {
    check 'host_loop: starts without a terminal' start "$BUILD/host_loop" 0
    check_threads 'host_loop: no thread is made' 1
    check 'host_loop: GET /' shows '[0-9]* seconds, nothing typed yet'
    check 'host_loop: the timer' wait_for 20 shows '[2-9] seconds, nothing typed yet'
    check 'host_loop: SIGTERM' stop
    check 'host_loop: starts' start_typing
    check 'host_loop: nothing typed' shows '[0-9]* seconds, nothing typed yet'
    check 'host_loop: a line is typed' types 'good morning'
    check 'host_loop: another line is typed' types 'good night'
    exec 9>&-
    check 'host_loop: the terminal ends' wait_for 10 shows '[0-9]* seconds, good night'
    check 'host_loop: SIGTERM after that, many times' stop_again_and_again
}

# ---- host_poll ----

several_sums() {
    askers=
    for i in 1 2 3 4 5; do
        ask GET /sum >"$scratch/sum.$i" &
        askers="$askers $!"
    done
    shows 'Hello from the loop' || return
    wait $askers
    cat "$scratch"/sum.*
    [ "$(cat "$scratch"/sum.* | grep -c -x 50000005000000)" -eq 5 ]
}

# Whether the sum is done by then or not.
stops_at_a_sum() {
    ask GET /sum >"$scratch/answer" &
    asker=$!
    sleep 0.02
    stop || return
    wait "$asker" || return
    cat "$scratch/answer"
    [ ! -s "$scratch/answer" ] || grep -x 50000005000000 "$scratch/answer"
}

test_host_poll() {
    check 'host_poll: starts' start "$BUILD/host_poll" 0
    check_threads 'host_poll: no thread is made' 1
    check 'host_poll: GET /' says 200 'Hello from the loop' GET /
    check 'host_poll: GET /sum' says 200 50000005000000 GET /sum
    check 'host_poll: several sums' several_sums
    check 'host_poll: 404' has_status 404 GET /nowhere
    check 'host_poll: SIGTERM, many times' stop_again_and_again
    check 'host_poll: starts again' start "$BUILD/host_poll" 0
    check 'host_poll: SIGTERM and a sum' stops_at_a_sum
}

# ---- showcase ----

prints_usage() {
    exits "$@" || return
    [ "$1" -eq 0 ] && usage_in=$scratch/out || usage_in=$scratch/err
    grep -e '--pool-threads' "$usage_in" || return
    [ "$1" -eq 0 ] || [ ! -s "$scratch/out" ]
}

port_in_use() {
    exits 1 "$BUILD/showcase" --port "$port" && grep "$port" "$scratch/err"
}

test_showcase_flags() {
    showcase=$BUILD/showcase
    check 'showcase: --help' prints_usage 0 "$showcase" --help
    check 'showcase: unknown flag' prints_usage 2 "$showcase" --unknown
    check 'showcase: flag without its value' prints_usage 2 "$showcase" --port
    check 'showcase: port out of range' prints_usage 2 "$showcase" --port 65536
    check 'showcase: port not a number' prints_usage 2 "$showcase" --port 80x
    for bad in -1 65 x; do # the host ends it also if the number is taken
        check "showcase: --acceptors $bad" prints_usage 2 "$showcase" --acceptors "$bad" --host no.such.address.
    done
    for bad in -1 0 1048577 x; do
        check "showcase: --queue $bad" prints_usage 2 "$showcase" --queue "$bad" --host no.such.address.
    done
    for bad in -1 3600001 x; do
        check "showcase: --grace $bad" prints_usage 2 "$showcase" --grace "$bad" --host no.such.address.
    done
    check 'showcase: argument that is no flag' prints_usage 2 "$showcase" 8080
    check 'showcase: bad host' exits 1 "$showcase" --port 0 --host no.such.address.
}

index_links() {
    ask GET / >"$scratch/answer"
    grep -x 'Content-Type: text/html; charset=utf-8' "$scratch/answer" || return
    grep 'name="viewport"' "$scratch/answer" || return
    for link in /plaintext /json /pool/plaintext /hello/World /sleep/1000 /deferred/1000 /healthz /readyz; do
        grep -F "href=\"$link\"" "$scratch/answer" || return
    done
    grep -F 'action="/echo"' "$scratch/answer"
}

test_showcase_routes() {
    check 'showcase: starts' start "$BUILD/showcase" --port 0 --reactors 2 --grace 0
    check 'showcase: URL' grep -x "listening on http://localhost:$port/" "$scratch/out"
    check 'showcase: port in use' port_in_use
    check 'showcase: index' index_links
    check 'showcase: /plaintext' says 200 'Hello, World!' GET /plaintext
    check 'showcase: /plaintext, type' has_line 'Content-Type: text/plain' GET /plaintext
    check 'showcase: /json' says 200 '{"message":"Hello, World!"}' GET /json
    check 'showcase: /json, type' has_line 'Content-Type: application/json' GET /json
    check 'showcase: /pool/plaintext' says 200 'Hello, World!' GET /pool/plaintext
    check 'showcase: /hello' says 200 'Hello, Jürgen <b>!' GET '/hello/J%C3%BCrgen%20%3Cb%3E'
    check 'showcase: /hello, type' has_line 'Content-Type: text/plain; charset=utf-8' GET /hello/x
    check 'showcase: /echo' says 200 '{"a": 1}' PATCH /echo '{"a": 1}'
    type='Content-Type: text/x-mine; a="b"'
    check 'showcase: /echo, type' has_line "$type" POST /echo x "$type"
    check 'showcase: /echo, no type' has_line 'Content-Type: application/octet-stream' POST /echo x
    check 'showcase: /echo, nothing' says 200 '' GET /echo
    check 'showcase: /sleep' says 200 'slept 20 ms' GET /sleep/20
    for bad in abc -1 1.5 +1 10001 99999999999999999999 '%00'; do
        check "showcase: /sleep/$bad" has_status 400 GET "/sleep/$bad"
    done
    check 'showcase: /deferred/0' says 200 'deferred for 0 ms' GET /deferred/0
    check 'showcase: /deferred/300' says 200 'deferred for 300 ms' GET /deferred/300
    check 'showcase: /deferred, type' has_line 'Content-Type: text/plain' GET /deferred/1
    check 'showcase: /deferred holds nobody up' answers_in_its_time /deferred/1500 'deferred for 1500 ms' /plaintext
    for bad in x -1 1.5 +1 10001 99999999999999999999 '%00'; do
        check "showcase: /deferred/$bad" has_status 400 GET "/deferred/$bad"
    done
    check 'showcase: /healthz' says 200 ok GET /healthz
    check 'showcase: /readyz' says 200 ready GET /readyz
    check 'showcase: 404' has_status 404 GET /sleep/1/2
    check 'showcase: SIGTERM' stop
}

# In the grace time a probe that comes anew is served, and told; then the program ends by itself.
tells_new_probes() {
    kill -TERM "$server"
    wait_for 10 says 503 draining GET /readyz
    told=$?
    ends_with 0 && [ "$told" -eq 0 ]
}

# The default is short for a machine that is busy, hence three tries.
tells_new_probes_by_default() {
    for try in 1 2 3; do
        start "$BUILD/showcase" --port 0 || return
        kill -TERM "$server"
        wait_for 1 says 503 draining GET /readyz
        told=$?
        ends_with 0 || return
        [ "$told" -ne 0 ] || return 0
    done
    return 1
}

# While a request is still being answered.
turns_new_probes_away() {
    ask GET /sleep/1500 >"$scratch/answer" &
    asker=$!
    sleep 0.3
    kill -TERM "$server"
    sleep 0.4
    ask GET /readyz >"$scratch/probe"
    ends_with 0 || return
    wait "$asker"
    cat "$scratch/answer" "$scratch/probe"
    grep -x 'slept 1500 ms' "$scratch/answer" && [ ! -s "$scratch/probe" ]
}

test_showcase_grace() {
    check 'showcase: /readyz in the grace time' tells_new_probes_by_default
    check 'showcase: --grace' start "$BUILD/showcase" --port 0 --grace 1500
    check 'showcase: /readyz in a longer one' tells_new_probes
    check 'showcase: --grace 0' start "$BUILD/showcase" --port 0 --grace 0
    check 'showcase: no grace time' turns_new_probes_away
}

refused_by_the_ring() {
    cat "$scratch"/sleeper.* | tr -d '\r' | grep -x 'HTTP/1.1 503 Service Unavailable'
}

# One thread, a ring of two: of six sleepers at least three are refused, and the other pool does not notice.
fill_the_ring() {
    for i in 1 2 3 4 5 6; do
        ask GET /sleep/10000 >"$scratch/sleeper.$i" &
    done
    wait_for 10 refused_by_the_ring && says 200 'Hello, World!' GET /pool/plaintext &&
        cat "$scratch"/sleeper.* | grep 'Retry-After: [0-9]'
}

# The default deadline is 10 seconds, and the thread sleeps 10 seconds more than once.
stuck_at_the_deadline() {
    begin=$(date +%s)
    stop || return
    echo "after $(($(date +%s) - begin)) seconds"
    [ $(($(date +%s) - begin)) -le 18 ]
}

second_signal_cuts() {
    ask GET /sleep/10000 >"$scratch/answer" &
    sleep 0.5
    begin=$(date +%s)
    kill -INT "$server"
    sleep 0.3
    stop || return
    echo "after $(($(date +%s) - begin)) seconds"
    [ $(($(date +%s) - begin)) -le 7 ]
}

# No more sleepers than one thread works off and the ring holds.
room_in_the_ring() {
    askers=
    for i in 1 2 3 4 5 6; do
        ask GET /sleep/200 >"$scratch/sleeper.$i" &
        askers="$askers $!"
    done
    wait $askers
    cat "$scratch"/sleeper.*
    [ "$(cat "$scratch"/sleeper.* | grep -c -x 'slept 200 ms')" -eq 6 ]
}

test_showcase_limits() {
    check 'showcase: one thread, a ring of two' \
        start "$BUILD/showcase" --port 0 --pool-threads 1 --queue 2 --grace 0 --quiet
    check 'showcase: /sleep cannot starve /pool/plaintext' fill_the_ring
    check 'showcase: SIGTERM with a stuck handler' stuck_at_the_deadline
    check 'showcase: --quiet' test ! -s "$scratch/err"

    check 'showcase: --host --max-body' start "$BUILD/showcase" --host 127.0.0.1 --port 0 --max-body 10
    check 'showcase: URL with the host' grep -x "listening on http://127.0.0.1:$port/" "$scratch/out"
    check 'showcase: body as large as allowed' says 200 1234567890 POST /echo 1234567890
    check 'showcase: body too large' has_status 413 POST /echo 12345678901
    check 'showcase: a drain finishes what was begun' drain_waits_for /sleep/1500 'slept 1500 ms'

    check 'showcase: one thread, a ring of eight' start "$BUILD/showcase" --port 0 --pool-threads 1 --queue 8
    check 'showcase: --queue' room_in_the_ring
    check 'showcase: a drain finishes what is deferred' drain_waits_for /deferred/1500 'deferred for 1500 ms'

    check 'showcase: no threads' start "$BUILD/showcase" --port 0 --pool-threads 0 --grace 0
    check_threads 'showcase: but one' 1
    check 'showcase: one thread, inline' says 200 'Hello, World!' GET /plaintext
    check 'showcase: one thread, a body' says 200 1234567890 POST /echo 1234567890
    for path in /pool/plaintext /sleep/1 /deferred/1 /events /upload; do
        check "showcase: one thread, no $path" has_status 404 GET $path
    done
    check 'showcase: one thread, SIGTERM' stop

    check 'showcase: --max-body 0' start "$BUILD/showcase" --port 0 --max-body 0 --grace 0
    check 'showcase: no body at all' has_status 413 POST /echo 1
    check 'showcase: a second signal cuts' second_signal_cuts
}

# test_showcase_acceptors NUMBER
test_showcase_acceptors() {
    check "showcase: --acceptors $1" start "$BUILD/showcase" --port 0 --reactors 2 --acceptors "$1"
    check "showcase: $1 acceptors, the last one" has_thread "accept/$(($1 - 1))"
    for i in 1 2 3 4; do
        check "showcase: $1 acceptors, inline, $i" says 200 'Hello, World!' GET /plaintext
        check "showcase: $1 acceptors, pool, $i" says 200 'Hello, World!' GET /pool/plaintext
        check "showcase: $1 acceptors, deferred, $i" says 200 'deferred for 10 ms' GET /deferred/10
    done
    check "showcase: $1 acceptors, a drain" drain_waits_for /sleep/1500 'slept 1500 ms'
}

test_hello
test_arguments
test_routes
test_pool
test_parser_only
test_deferred
test_host_loop
test_host_poll
test_showcase_flags
test_showcase_routes
test_showcase_grace
test_showcase_limits
test_showcase_acceptors 1
test_showcase_acceptors 2
finish
