#!/bin/sh
# Compression as other programs do it: curl and python3 decode what the server of tests/gzip.c compresses, and it decodes
# what gzip and python3 have compressed. What comes is compared with what comes uncompressed, or with what was sent.
#
#     tests/interop_gzip.sh                 build/tests/gzip, which `make gzip` builds
#
# Needs curl, python3 and gzip; what is missing is skipped with a notice.

cd "$(dirname "$0")/.." || exit 2
. tests/examples.sh

program=$BUILD/tests/gzip
[ -x "$program" ] || {
    echo "$program is missing: make gzip builds it" >&2
    exit 2
}

installed() {
    command -v "$1" >/dev/null
}

# fetch TARGET ARGUMENT...: what curl makes of the answer; the head goes to $scratch/head
fetch() {
    target=$1
    shift
    curl -sS --fail --max-time 60 -D "$scratch/head" "$@" "http://127.0.0.1:$port$target"
}

has_field() {
    tr -d '\r' <"$scratch/head" | grep -i -x "$1" || {
        cat "$scratch/head"
        return 1
    }
}

# ---- answers ----

# curl_decodes TARGET: the same by --compressed and without, and fewer bytes
curl_decodes() {
    fetch "$1" >"$scratch/plain" || return
    fetch "$1" -H 'Accept-Encoding: gzip' >"$scratch/raw" || return
    has_field 'content-encoding: gzip' && has_field 'vary: .*accept-encoding' || return
    fetch "$1" --compressed >"$scratch/decoded" || return
    cmp "$scratch/plain" "$scratch/decoded" || return
    [ "$(wc -c <"$scratch/raw")" -lt $(($(wc -c <"$scratch/plain") / 2)) ]
}

curl_heads() {
    fetch "$1" -H 'Accept-Encoding: gzip' -H 'Connection: close' >"$scratch/raw" || return
    grep -iv '^date:' "$scratch/head" >"$scratch/of-get"
    fetch "$1" -I -H 'Accept-Encoding: gzip' -H 'Connection: close' >"$scratch/raw" || return
    grep -iv '^date:' "$scratch/head" | diff "$scratch/of-get" -
}

# What the program gzip says of it, which looks at the CRC and the size.
gzip_decodes() {
    fetch "$1" >"$scratch/plain" || return
    fetch "$1" -H 'Accept-Encoding: gzip' >"$scratch/raw.gz" || return
    gzip -t "$scratch/raw.gz" && gzip -dc "$scratch/raw.gz" | cmp "$scratch/plain" -
}

# ---- bodies ----

# curl_sends FILE ARGUMENT...: the server sends the decoded body back, whole and as it comes
curl_sends() {
    file=$1
    shift
    for target in /echo /cat; do
        fetch "$target" --compressed -H 'Content-Encoding: gzip' --data-binary "@$file" "$@" >"$scratch/back" || return
        cmp "$scratch/plain" "$scratch/back" || return
    done
}

curl_pipes() {
    gzip -c "$scratch/plain" | curl -sS --fail --max-time 60 --compressed -T - -X POST -H 'Expect:' \
        -H 'Content-Encoding: gzip' "http://127.0.0.1:$port/cat" | cmp "$scratch/plain" -
}

# curl_gets STATUS FILE CODING: a body that is not taken
curl_gets() {
    code=$(curl -sS --max-time 60 -o "$scratch/back" -D "$scratch/head" -w '%{http_code}' --data-binary "@$2" \
        -H "Content-Encoding: $3" "http://127.0.0.1:$port/echo")
    echo "status $code"
    [ "$code" = "$1" ]
}

curl_is_told() {
    curl_gets 415 "$scratch/plain" br && has_field 'accept-encoding: gzip'
}

# python_talks: bodies of many sizes there and back, coded by Python's gzip on its side
python_talks() {
    python3 - "$port" <<'END'
import gzip, http.client, random, sys

server = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=60)
rng = random.Random(7)
words = [rng.randbytes(rng.randint(1, 9)) for _ in range(300)]
sizes = [0, 1, 2, 1000, 1023, 1024, 5000, 65535, 65536, 65537, 200000, 3000000]

def body_of(size):
    text = b"".join(rng.choice(words) for _ in range(size // 3 + 1))
    return text[:size] if rng.random() < 0.7 else rng.randbytes(size)

def members(body, number):
    cuts = sorted(rng.randint(0, len(body)) for _ in range(number - 1))
    edges = [0] + cuts + [len(body)]
    return b"".join(gzip.compress(body[a:b], rng.choice([1, 6, 9])) for a, b in zip(edges, edges[1:]))

def pieces(data):
    at = 0
    while at < len(data):
        step = rng.randint(1, 60000)
        yield data[at:at + step]
        at += step

def decoded(answer):
    data = answer.read()
    return gzip.decompress(data) if answer.getheader("Content-Encoding") == "gzip" else data

for target in "/echo", "/cat":
    for size in sizes:
        for number in 1, 3:
            body = body_of(size)
            coded = members(body, number)
            fields = {"Content-Encoding": "gzip", "Accept-Encoding": "gzip"}
            chunked = rng.random() < 0.5
            server.request("POST", target, pieces(coded) if chunked else coded, fields, encode_chunked=chunked)
            answer = server.getresponse()
            assert answer.status == 200, (target, size, answer.status)
            assert decoded(answer) == body, (target, size, number)
END
}

# ---- all of them ----

start "$program" --serve || exit 2

if installed curl; then
    for way in reply later lent pieces declared work-reply work-pieces work-declared; do
        check "curl decodes the answer of /$way" curl_decodes "/$way/0/300000/0"
        check "curl sees the same fields by HEAD, /$way" curl_heads "/$way/0/300000/0"
        if installed gzip; then check "gzip decodes it, /$way" gzip_decodes "/$way/0/300000/0"; fi
    done
    fetch /reply/0/300000/0 >"$scratch/plain"
    check 'curl is told what is taken' curl_is_told
    check 'curl gets 400 for what is not gzip' curl_gets 400 "$scratch/plain" gzip
else
    skip 'answers to curl' 'needs curl'
fi

if installed curl && installed gzip; then
    for level in 1 6 9; do
        gzip -c "-$level" "$scratch/plain" >"$scratch/coded"
        check "curl sends a file of gzip -$level" curl_sends "$scratch/coded"
        check "the same in chunks" curl_sends "$scratch/coded" -H 'Transfer-Encoding: chunked'
    done
    { head -c 1000 "$scratch/plain" | gzip -c && tail -c +1001 "$scratch/plain" | gzip -9c; } >"$scratch/coded"
    check 'curl sends two files of gzip, one after the other' curl_sends "$scratch/coded"
    check 'curl sends what gzip writes' curl_pipes
    head -c 1000 "$scratch/coded" >"$scratch/cut"
    check 'curl gets 400 for half a file' curl_gets 400 "$scratch/cut" gzip
else
    skip 'bodies from curl' 'needs curl and gzip'
fi

if installed python3; then
    check 'python3 talks in gzip' python_talks
else
    skip 'bodies from python3' 'needs python3'
fi

check 'the server ends in order' stop
finish
