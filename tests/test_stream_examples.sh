#!/bin/sh
# Runs the examples whose bodies go in pieces, stream, upload, sse_clock and the showcase's /upload, and looks at what
# they answer.

. tests/examples.sh

# ---- asking ----

# ask VERSION METHOD TARGET [FILE [FIELD...]]: the FILE is the body
ask() {
    {
        printf '%s %s HTTP/%s\r\nHost: localhost\r\nConnection: close\r\n' "$2" "$3" "$1"
        [ $# -lt 4 ] || printf 'Content-Length: %d\r\n' $(($(wc -c <"$4")))
        body=${4-/dev/null}
        shift $(($# < 4 ? $# : 4))
        [ $# -eq 0 ] || printf '%s\r\n' "$@"
        printf '\r\n'
        cat "$body"
    } >"$scratch/request"
    exchange
}

# has_lines STATUS TEXT ASK...: the answer has this status, and all these lines in its body
has_lines() {
    want_status=$1 want=$2
    shift 2
    ask "$@" || return
    tr -d '\r' <"$scratch/body" >"$scratch/lines"
    cat "$scratch/lines"
    grep "^HTTP/1.1 $want_status " "$scratch/head" || return
    printf '%s\n' "$want" | while read -r line; do
        grep -F -x -e "$line" "$scratch/lines" || exit 1
    done
}

# ---- stream ----

# count_to NUMBER: the numbers up to there, one on each line
count_to() {
    i=1
    while [ "$i" -le "$1" ]; do
        echo "$i"
        i=$((i + 1))
    done
}

is_chunked() {
    has_lines 200 '3' 1.1 GET "$1" && grep -x 'Transfer-Encoding: chunked' "$scratch/head" &&
        [ "$(tail -c 5 "$scratch/answer" | tr '\r\n' '..')" = '0....' ]
}

# A client that is stopped in the middle, and then killed: that must not trouble anybody else.
survives_a_leaver() {
    printf 'GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n' "$1" >"$scratch/request"
    "$client" "$port" <"$scratch/request" >/dev/null &
    leaver=$!
    sleep 0.2
    kill -STOP "$leaver"
    sleep 0.3
    kill -KILL "$leaver"
    wait "$leaver"
    answers 200 "$scratch/small" 1.0 GET /numbers/3
}

# Several at a time, so that call-backs for one come between those for another.
several_at_once() {
    askers=
    for kind in numbers worker; do
        printf 'GET /%s/20000 HTTP/1.0\r\n\r\n' "$kind" >"$scratch/request.$kind"
        for i in 1 2 3 4; do
            "$client" "$port" <"$scratch/request.$kind" >"$scratch/several.$kind.$i" &
            askers="$askers $!"
        done
    done
    wait $askers
    for file in "$scratch"/several.*; do
        sed "1,/^.\$/d" "$file" | cmp "$scratch/numbers" - || return
    done
}

test_stream() {
    count_to 20000 >"$scratch/numbers"
    count_to 3 >"$scratch/small"
    : >"$scratch/nothing"
    check 'stream: starts' start "$BUILD/stream" 0
    for kind in numbers worker; do
        check "stream: /$kind" answers 200 "$scratch/numbers" 1.0 GET "/$kind/20000"
        check "stream: /$kind, nothing" answers 200 "$scratch/nothing" 1.0 GET "/$kind/0"
        check "stream: /$kind in chunks" is_chunked "/$kind/3"
        check "stream: /$kind, HEAD" answers 200 "$scratch/nothing" 1.1 HEAD "/$kind/20000"
        check "stream: /$kind, a client leaves" survives_a_leaver "/$kind/100000000"
    done
    check 'stream: several at once' several_at_once
    check 'stream: /echo' answers 200 "$scratch/numbers" 1.0 POST /echo "$scratch/numbers"
    check 'stream: /echo, PUT' answers 200 "$scratch/small" 1.0 PUT /echo "$scratch/small"
    check 'stream: /echo, nothing' answers 200 "$scratch/nothing" 1.0 POST /echo "$scratch/nothing"
    check 'stream: SIGTERM' stop
}

# ---- upload ----

form='Content-Type: multipart/form-data; boundary=a.boundary'

# make_form FILE: a form with a note and the file
make_form() {
    printf -- '--a.boundary\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello & "good bye"\r\n'
    printf -- '--a.boundary\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n' "${1##*/}"
    printf 'Content-Type: text/plain\r\n\r\n'
    cat "$1"
    printf -- '\r\n--a.boundary--\r\n'
}

# uploads FILE: what is said about it is right
uploads() {
    make_form "$1" >"$scratch/form"
    size=$(($(wc -c <"$1"))) lines=$(($(wc -l <"$1")))
    has_lines 200 "note = \"hello & \"good bye\"\"
file = ${1##*/}, $size bytes, $lines lines" 1.1 POST /upload "$scratch/form" "$form"
}

serves_the_form() {
    has_lines 200 '<form method="post" action="/upload" enctype="multipart/form-data">' 1.1 GET / &&
        grep -x 'Content-Type: text/html; charset=utf-8' "$scratch/head"
}

test_upload() {
    mkdir "$scratch/spool"
    check 'upload: starts' start "$BUILD/upload" 0 "$scratch/spool"
    check 'upload: the form' serves_the_form
    check 'upload: a file' uploads "$scratch/numbers"
    check 'upload: an empty file' uploads "$scratch/nothing"
    make_form "$scratch/small" >"$scratch/form"
    check 'upload: no file is left' rmdir "$scratch/spool"
    check 'upload: no place for the file' has_lines 500 'system call failed' 1.1 POST /upload "$scratch/form" "$form"
    mkdir "$scratch/spool"
    check 'upload: a file again' uploads "$scratch/small"
    printf 'note=a+b%%26&other=%%C3%%BC' >"$scratch/text"
    check 'upload: no file at all' has_lines 200 'note = "a b&"
other = "ü"' 1.1 POST /upload "$scratch/text" 'Content-Type: application/x-www-form-urlencoded'
    check 'upload: not a form' has_lines 415 'unsupported' 1.1 POST /upload "$scratch/text" 'Content-Type: text/plain'
    check 'upload: malformed' has_lines 400 'malformed message' 1.1 POST /upload "$scratch/text" "$form"
    i=0
    while [ $i -le 20 ]; do
        printf 'f%d=%d&' $i $i
        i=$((i + 1))
    done >"$scratch/many"
    check 'upload: too many fields' has_lines 413 'over a limit' 1.1 POST /upload "$scratch/many" \
        'Content-Type: application/x-www-form-urlencoded'
    check 'upload: SIGTERM' stop
    check 'upload: no file is left' rmdir "$scratch/spool"
}

# ---- /upload of the showcase ----

# names_file SENT TOLD: a file with this name, in the escapes of printf, has that name in the answer
names_file() {
    {
        printf -- '--a.boundary\r\nContent-Disposition: form-data; name="file"; filename="'
        printf "$1"
        printf '"\r\nContent-Type: text/plain\r\n\r\nhello\r\n--a.boundary--\r\n'
    } >"$scratch/form"
    {
        printf '[{"name":"file","filename":"'
        printf "$2"
        printf '","type":"text/plain","size":5,"crc32":"3610a686"}]\n'
    } >"$scratch/told"
    answers 200 "$scratch/told" 1.1 POST /upload "$scratch/form" "$form" || {
        od -c "$scratch/body"
        return 1
    }
}

# The shortest and the longest of each length, and those beside the surrogates.
unharmed='~\302\200\337\277\340\240\200\355\237\277\356\200\200\357\277\277\360\220\200\200\364\217\277\277'

# JSON is UTF-8: what is not becomes U+FFFD, one for each byte, and what stands beside it stays.
test_showcase_upload() {
    bad='\357\277\275'
    check 'showcase: starts' start "$BUILD/showcase" --port 0 --grace 0
    check 'showcase: a name in UTF-8' names_file "$unharmed" "$unharmed"
    check 'showcase: a name with a tab' names_file 'a\tb' 'a\\u0009b'
    check 'showcase: bytes that UTF-8 has not' names_file 'a\377\376b' "a$bad${bad}b"
    check 'showcase: a continuation alone' names_file 'a\200b\277' "a${bad}b$bad"
    check 'showcase: two bytes, overlong' names_file '\300\257\301\277' "$bad$bad$bad$bad"
    check 'showcase: three bytes, overlong' names_file '\340\237\277' "$bad$bad$bad"
    check 'showcase: four bytes, overlong' names_file '\360\217\277\277' "$bad$bad$bad$bad"
    check 'showcase: the first surrogate' names_file '\355\240\200' "$bad$bad$bad"
    check 'showcase: the last surrogate' names_file '\355\277\277' "$bad$bad$bad"
    check 'showcase: above U+10FFFF' names_file '\364\220\200\200\365\200\200\200' "$bad$bad$bad$bad$bad$bad$bad$bad"
    check 'showcase: cut by another' names_file '\342\202a\360\237\230\303\274' "$bad${bad}a$bad$bad$bad\303\274"
    check 'showcase: cut by the end' names_file 'a\342\202' "a$bad$bad"
    check 'showcase: SIGTERM' stop
}

# ---- sse_clock ----

# The drain ends the streams, each with its last chunk; then the clients print what they got.
two_listeners() {
    printf 'GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n' >"$scratch/request"
    for i in 1 2; do
        "$client" "$port" <"$scratch/request" >"$scratch/listener.$i" &
        [ $i -eq 1 ] && first=$! || second=$!
    done
    sleep 3.5
    stop || return
    wait "$first" && wait "$second" || return
    for i in 1 2; do
        tr -d '\r' <"$scratch/listener.$i" >"$scratch/lines"
        cat "$scratch/lines"
        grep -x 'Content-Type: text/event-stream' "$scratch/lines" || return
        [ "$(tail -c 5 "$scratch/listener.$i" | tr '\r\n' '..')" = '0....' ] || return
        [ "$(grep -c -x 'event: tick' "$scratch/lines")" -ge 2 ] || return
        [ "$(grep -c -x 'data: [0-2][0-9]:[0-5][0-9]:[0-6][0-9]' "$scratch/lines")" -ge 2 ] || return
        grep '^id: ' "$scratch/lines" | tail -n 2 >"$scratch/ids.$i" # the first may be of one client only
    done
    cmp "$scratch/ids.1" "$scratch/ids.2"
}

test_sse_clock() {
    check 'sse_clock: starts' start "$BUILD/sse_clock" 0
    check 'sse_clock: the page' has_lines 200 '<h1 id="time">...</h1>' 1.1 GET /
    check 'sse_clock: two clients; SIGTERM' two_listeners
}

test_stream
test_upload
test_showcase_upload
test_sse_clock
finish
