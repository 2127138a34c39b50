#!/bin/sh
# Runs the examples of filters and files, middleware, files and assets, and looks at what they answer.

. tests/examples.sh

# ---- asking ----

# ask METHOD TARGET [FIELD...]
ask() {
    {
        printf '%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n' "$1" "$2"
        shift 2
        [ $# -eq 0 ] || printf '%s\r\n' "$@"
        printf '\r\n'
    } >"$scratch/request"
    exchange
}

# says STATUS TEXT ASK...: the same with the body as a text
says() {
    printf '%s\n' "$2" >"$scratch/said"
    said_status=$1
    shift 2
    answers "$said_status" "$scratch/said" "$@"
}

# has_status STATUS ASK...
has_status() {
    want_status=$1
    shift
    ask "$@" && grep "^HTTP/1.1 $want_status " "$scratch/head"
}

# has_fields STATUS FIELDS ASK...: the head has these lines; those that begin with "!" are names that it has not
has_fields() {
    want_status=$1 want=$2
    shift 2
    has_status "$want_status" "$@" || return
    printf '%s\n' "$want" | while read -r line; do
        case $line in
        '!'*) ! grep -i "^${line#!}:" "$scratch/head" || exit 1 ;;
        *) grep -F -x -e "$line" "$scratch/head" || exit 1 ;;
        esac
    done
}

# field NAME: its value in the last answer
field() {
    sed -n "s/^$1: //p" "$scratch/head"
}

# fails_with TEXT COMMAND...: exit status 1 and the text in what it says
fails_with() {
    told=$1
    shift
    exits 1 "$@" && grep -F -e "$told" "$scratch/err"
}

# ---- middleware ----

ada='Authorization: Basic YWRhOmxvdmVsYWNl'
origin='Origin: https://app.example'

makes_ids() {
    ask GET / && first=$(field X-Request-Id) && ask GET / && second=$(field X-Request-Id) || return
    printf '%s\n' "$first" "$second" | grep -c -x '[0-9a-f]\{32\}' | grep -x 2 && [ "$first" != "$second" ]
}

# is_logged LINE: an extended regular expression, for the whole of a line
is_logged() {
    wait_for 10 grep -E -x -e "$1" "$scratch/out" || {
        cat "$scratch/out"
        return 1
    }
}

# Many requests at once on one connection. The bucket holds ten, and five come in each second.
limits_the_rate() {
    i=1
    while [ $i -le 60 ]; do
        [ $i -lt 60 ] || last='Connection: close\r\n'
        printf "GET /api/time HTTP/1.1\r\nHost: localhost\r\n${last-}\r\n"
        i=$((i + 1))
    done >"$scratch/request"
    "$client" "$port" <"$scratch/request" | tr -d '\r' >"$scratch/head" || return
    grep -c '^HTTP/1.1 200 ' "$scratch/head" >"$scratch/let-in"
    grep -c '^HTTP/1.1 429 ' "$scratch/head" >"$scratch/kept-out"
    echo "$(cat "$scratch/let-in") let in, $(cat "$scratch/kept-out") not"
    [ "$(cat "$scratch/kept-out")" -ge 1 ] && [ "$(grep -c '^Retry-After: [1-9]' "$scratch/head")" -ge 1 ] || return
    sleep 1
    wait_for 10 has_status 200 GET /api/time
}

test_middleware() {
    check 'middleware: starts' start "$BUILD/middleware" 0
    check 'middleware: /' says 200 'Hello, whoever you are!' GET /
    check 'middleware: security headers' has_fields 200 "X-Frame-Options: DENY
X-Content-Type-Options: nosniff
Referrer-Policy: no-referrer
Content-Security-Policy: default-src 'self'
!Strict-Transport-Security
!Access-Control-Allow-Origin" GET /
    check 'middleware: ids' makes_ids
    check 'middleware: the id of a proxy' has_fields 200 'X-Request-Id: mine-1' GET / 'X-Request-Id: mine-1'
    check 'middleware: a line in the log' is_logged 'mine-1 127\.0\.0\.1 "GET /" 200, [1-9][0-9]* bytes'
    check 'middleware: /admin, without a name' has_fields 401 'WWW-Authenticate: Basic realm="admin", charset="UTF-8"
X-Frame-Options: DENY' GET /admin 'X-Request-Id: stranger'
    check 'middleware: refusals are logged' is_logged 'stranger 127\.0\.0\.1 "GET /admin" 401, [1-9][0-9]* bytes'
    check 'middleware: /admin' says 200 'Hello, ada!' GET /admin "$ada"
    check 'middleware: /admin, wrong password' has_status 401 GET /admin 'Authorization: Basic YWRhOmxvdmVsYWNs'
    check 'middleware: /%61dmin' has_status 401 GET /%61dmin
    check 'middleware: nothing is said about what is in /admin' has_status 401 GET /admin/nowhere
    check 'middleware: beneath /admin' has_status 404 GET /admin/nowhere "$ada"
    check 'middleware: /api/time' has_fields 200 'Access-Control-Allow-Origin: https://app.example
Content-Type: application/json' GET /api/time "$origin"
    check 'middleware: a preflight' has_fields 204 'Access-Control-Allow-Origin: https://app.example
Access-Control-Allow-Methods: GET' OPTIONS /api/time "$origin" 'Access-Control-Request-Method: GET'
    check 'middleware: another origin' has_fields 200 '!Access-Control-Allow-Origin' GET /api/time \
        'Origin: https://evil.example'
    check 'middleware: 404' has_fields 404 'X-Request-Id: lost' GET /nowhere 'X-Request-Id: lost'
    check 'middleware: 404 is logged' is_logged 'lost 127\.0\.0\.1 "GET /nowhere" 404, [1-9][0-9]* bytes'
    check 'middleware: too many requests' limits_the_rate
    check 'middleware: / is not limited' has_status 200 GET /
    check 'middleware: SIGTERM' stop
}

# ---- files ----

lists() {
    has_fields 200 'Content-Type: text/html; charset=utf-8' GET / || return
    cat "$scratch/body"
    grep -E 'href="(\./)?page\.html"' "$scratch/body" && grep -E 'href="(\./)?sub/"' "$scratch/body" &&
        grep -F '&lt;b&gt;&amp;.txt' "$scratch/body" && ! grep -F '<b>' "$scratch/body" && ! grep hidden "$scratch/body"
}

is_unmodified() {
    ask GET /page.html && tag=$(field ETag) && [ -n "$tag" ] || return
    : >"$scratch/nothing"
    answers 304 "$scratch/nothing" GET /page.html "If-None-Match: $tag" && has_fields 304 "ETag: $tag" GET /page.html \
        "If-None-Match: $tag"
}

is_a_range() {
    tail -c +11 "$scratch/www/page.html" | head -c 10 >"$scratch/part"
    answers 206 "$scratch/part" GET /page.html 'Range: bytes=10-19' &&
        [ "$(field Content-Range)" = "bytes 10-19/$(($(wc -c <"$scratch/www/page.html")))" ]
}

make_tree() {
    mkdir -p "$scratch/www/sub" && echo secret >"$scratch/secret" && ln -s ../secret "$scratch/www/link"
    echo '<!doctype html><title>A page</title>' >"$scratch/www/page.html"
    echo 'int main(void) {}' >"$scratch/www/main.c"
    echo '<!doctype html><title>Sub</title>' >"$scratch/www/sub/index.html"
    echo 'a { color: red }' >"$scratch/www/a.css"
    echo 'as if it were compressed' >"$scratch/www/a.css.gz"
    echo hidden >"$scratch/www/.hidden"
    : >"$scratch/www/<b>&.txt"
    dd if=/dev/urandom of="$scratch/www/large.bin" bs=100000 count=30 2>/dev/null
}

test_files() {
    make_tree
    check 'files: starts' start "$BUILD/files" "$scratch/www" 0
    check 'files: a page' answers 200 "$scratch/www/page.html" GET /page.html
    check 'files: its fields' has_fields 200 'Content-Type: text/html; charset=utf-8
X-Content-Type-Options: nosniff
Accept-Ranges: bytes
Cache-Control: no-cache' GET /page.html
    check 'files: a type of its own' has_fields 200 'Content-Type: text/plain; charset=utf-8' GET /main.c
    check 'files: a large file' answers 200 "$scratch/www/large.bin" GET /large.bin
    check 'files: compressed' answers 200 "$scratch/www/a.css.gz" GET /a.css 'Accept-Encoding: gzip'
    check 'files: not compressed' answers 200 "$scratch/www/a.css" GET /a.css
    check 'files: a range' is_a_range
    check 'files: not modified' is_unmodified
    check 'files: a list' lists
    check 'files: an index' answers 200 "$scratch/www/sub/index.html" GET /sub/
    check 'files: a directory without its slash' has_fields '30[18]' 'Location: /sub/' GET /sub
    for target in /nowhere /.hidden /link /sub%2Findex.html /page.html/ /sub/%2e%2e%2fsecret; do
        check "files: $target" has_status 404 GET "$target"
    done
    check 'files: above the root' has_status 400 GET /../secret
    check 'files: POST' has_status 405 POST /page.html
    check 'files: SIGTERM' stop
    check 'files: no such directory' fails_with "$scratch/nowhere" "$BUILD/files" "$scratch/nowhere" 0
}

# ---- assets ----

# The bytes that are in the program are those of the file, also through gzip.
is_inside() {
    answers 200 "examples/assets$2" GET "$1" || return
    has_fields 200 'Vary: Accept-Encoding' GET "$1" 'Accept-Encoding: gzip' || return
    [ "$(field Content-Encoding)" = gzip ] || return
    gzip -dc <"$scratch/body" | cmp - "examples/assets$2"
}

is_tagged() {
    ask GET "$1" && tag=$(field ETag) && [ -n "$tag" ] && has_status 304 GET "$1" "If-None-Match: $tag" &&
        has_status 200 GET "$1" 'If-None-Match: "another"'
}

# What is compressed is not the same bytes, so it must not have the same tag.
tags_differ() {
    ask GET /logo.svg && plain=$(field ETag) && ask GET /logo.svg 'Accept-Encoding: gzip' && [ "$plain" != "$(field ETag)" ]
}

test_assets() {
    check 'assets: starts' start "$BUILD/assets" 0
    if ! command -v gzip >/dev/null; then
        skip 'assets: bytes' 'gzip is not installed'
    else
        check 'assets: /' is_inside / /index.html
        for name in /index.html /style.css /logo.svg; do
            check "assets: $name" is_inside $name $name
        done
        check 'assets: two forms, two tags' tags_differ
    fi
    check 'assets: HTML' has_fields 200 'Content-Type: text/html; charset=utf-8' GET /
    check 'assets: CSS' has_fields 200 'Content-Type: text/css; charset=utf-8' GET /style.css
    check 'assets: SVG' has_fields 200 'Content-Type: image/svg+xml' GET /logo.svg
    check 'assets: not modified' is_tagged /style.css
    check 'assets: 404' has_status 404 GET /nowhere
    check 'assets: 405' has_status 405 POST /
    check 'assets: SIGTERM' stop
}

test_middleware
test_files
test_assets
finish
