#!/bin/sh
# Conditional and range requests by curl to three servers with the same folder: the showcase (/files/*), Debian's nginx
# and `python3 -m http.server`. Each row of the table below is one request; the answers are compared by status, by the
# fields that the request is about, and by the bytes. Where another server differs the row names the section of RFC 9110
# that explains it; a difference without an explanation fails. The list of them is printed at the end.
#
#     tests/interop_files.sh                 build/showcase, which `make` builds
#     tests/interop_files.sh PROGRAM         another server that takes --root and serves it at /files/
#
# Needs curl; nginx (Debian package nginx-light) and python3 are left out with a notice where they are missing.

cd "$(dirname "$0")/.." || exit 2
. tests/check.sh

program=${1:-${BUILD:-build}/showcase}
root=$scratch/root
ours='' nginx='' python='' # addresses
servers=

clean_up() {
    for server in $servers; do
        kill "$server" 2>/dev/null
    done
    rm -rf "$scratch"
}
trap clean_up EXIT

installed() {
    command -v "$1" >/dev/null
}

# ---- the requests ----

# name | method, file | fields, separated by "; " | why nginx differs | why python3 differs
#
# {etag} is the server's own entity tag ("none" if it sends none), {weak} that as a weak one, {date} the file's date,
# {rfc850} and {asctime} the same in the obsolete formats, {before} and {after} an hour off. The whys are keys of the
# list below.
cat >"$scratch/table" <<'END'
whole file | GET k1.bin | | |
larger file | GET m3.bin | | |
head | HEAD k1.bin | | |
empty file | GET empty.bin | | |
missing file | GET none.bin | | |
If-None-Match, same | GET k1.bin | If-None-Match: {etag} | | tags
If-None-Match, same, HEAD | HEAD k1.bin | If-None-Match: {etag} | | tags
If-None-Match, weak | GET k1.bin | If-None-Match: {weak} | | tags
If-None-Match, list | GET k1.bin | If-None-Match: "x", {etag}, "y" | | tags
If-None-Match, other | GET k1.bin | If-None-Match: "x" | |
If-None-Match: * | GET k1.bin | If-None-Match: * | | tags
If-None-Match, missing file | GET none.bin | If-None-Match: * | |
If-Match, same | GET k1.bin | If-Match: {etag} | |
If-Match, weak | GET k1.bin | If-Match: {weak} | | match
If-Match, list | GET k1.bin | If-Match: "x", {etag} | |
If-Match, other | GET k1.bin | If-Match: "x" | | match
If-Match: * | GET k1.bin | If-Match: * | |
If-Modified-Since, same | GET k1.bin | If-Modified-Since: {date} | |
If-Modified-Since, later | GET k1.bin | If-Modified-Since: {after} | exact |
If-Modified-Since, earlier | GET k1.bin | If-Modified-Since: {before} | |
If-Modified-Since, RFC 850 | GET k1.bin | If-Modified-Since: {rfc850} | |
If-Modified-Since, asctime | GET k1.bin | If-Modified-Since: {asctime} | |
If-Modified-Since, malformed | GET k1.bin | If-Modified-Since: yesterday | |
If-Unmodified-Since, same | GET k1.bin | If-Unmodified-Since: {date} | |
If-Unmodified-Since, later | GET k1.bin | If-Unmodified-Since: {after} | |
If-Unmodified-Since, earlier | GET k1.bin | If-Unmodified-Since: {before} | | since
If-Unmodified-Since, malformed | GET k1.bin | If-Unmodified-Since: yesterday | date |
If-None-Match before If-Modified-Since | GET k1.bin | If-None-Match: "x"; If-Modified-Since: {date} | |
If-None-Match before an earlier date | GET k1.bin | If-None-Match: {etag}; If-Modified-Since: {before} | first | tags
If-Match before If-Unmodified-Since | GET k1.bin | If-Match: {etag}; If-Unmodified-Since: {before} | second |
If-Match before If-None-Match | GET k1.bin | If-Match: "x"; If-None-Match: {etag} | | match
condition before range | GET k1.bin | If-None-Match: {etag}; Range: bytes=0-1 | | tags
condition before a range of nothing | GET k1.bin | If-Match: "x"; Range: bytes=5000- | | match
first bytes | GET k1.bin | Range: bytes=0-99 | | whole
one byte | GET k1.bin | Range: bytes=0-0 | | whole
open end | GET k1.bin | Range: bytes=1000- | | whole
last bytes | GET k1.bin | Range: bytes=-24 | | whole
more last bytes than there are | GET k1.bin | Range: bytes=-5000 | | whole
end beyond the file | GET k1.bin | Range: bytes=1000-5000 | | whole
all of it | GET k1.bin | Range: bytes=0- | | whole
beyond the file | GET k1.bin | Range: bytes=1024- | | whole
no last bytes | GET k1.bin | Range: bytes=-0 | | whole
end before begin | GET k1.bin | Range: bytes=5-4 | invalid |
no numbers | GET k1.bin | Range: bytes=a-b | invalid |
no range | GET k1.bin | Range: bytes= | |
other unit | GET k1.bin | Range: items=0-1 | |
unit in capitals | GET k1.bin | Range: BYTES=0-1 | | whole
blanks | GET k1.bin | Range: bytes=0-1 , 4-5 | | whole
number beyond 64 bits | GET k1.bin | Range: bytes=0-99999999999999999999 | large | whole
range of HEAD | HEAD k1.bin | Range: bytes=0-1 | get |
range of an empty file | GET empty.bin | Range: bytes=0- | |
last bytes of an empty file | GET empty.bin | Range: bytes=-1 | |
two ranges | GET k1.bin | Range: bytes=0-1,4-5 | | whole
two ranges of a larger file | GET m3.bin | Range: bytes=0-99999,1000000-1999999 | | whole
three ranges, one of nothing | GET k1.bin | Range: bytes=0-1,5000-,4-5 | | whole
two ranges, one of nothing | GET k1.bin | Range: bytes=0-1,5000- | | whole
two ranges of nothing | GET k1.bin | Range: bytes=5000-,6000- | | whole
ranges backwards | GET k1.bin | Range: bytes=4-5,0-1 | | whole
overlapping ranges | GET k1.bin | Range: bytes=0-9,5-14 | overlap |
the same range thrice | GET k1.bin | Range: bytes=0-,0-,0- | |
If-Range, same | GET k1.bin | Range: bytes=0-1; If-Range: {etag} | | whole
If-Range, weak | GET k1.bin | Range: bytes=0-1; If-Range: {weak} | |
If-Range, other | GET k1.bin | Range: bytes=0-1; If-Range: "x" | |
If-Range, same date | GET k1.bin | Range: bytes=0-1; If-Range: {date} | | whole
If-Range, later date | GET k1.bin | Range: bytes=0-1; If-Range: {after} | |
If-Range, earlier date | GET k1.bin | Range: bytes=0-1; If-Range: {before} | |
If-Range, malformed | GET k1.bin | Range: bytes=0-1; If-Range: x | |
If-Range, other, and a range of nothing | GET k1.bin | Range: bytes=5000-; If-Range: "x" | |
If-Range without a range | GET k1.bin | If-Range: "x" | |
END

# What the keys in the table stand for: sections of RFC 9110.
cat >"$scratch/reasons" <<'END'
exact    13.1.3: 304 for any date that is not earlier; nginx wants the very date (if_modified_since exact)
date     13.1.4: MUST ignore what is no valid date; nginx takes it for one that is long ago
first    13.1.3: MUST ignore If-Modified-Since where there is If-None-Match; nginx wants both to hold
second   13.1.4: MUST ignore If-Unmodified-Since where there is If-Match; nginx wants both to hold
invalid  14.2: an invalid range may be ignored, as here, or refused, as by nginx
large    14.1.2: MUST anticipate large numbers; nginx refuses them
get      14.2: MUST ignore Range for all methods but GET; nginx does not for HEAD
overlap  14.2: overlapping ranges may be ignored, as here, or served, as by nginx
tags     13.1.2: 304; python3 has no entity tags (8.8.3 SHOULD) and ignores the field
match    13.1.1: 412; python3 has no entity tags and ignores the field
since    13.1.4: 412; python3 ignores the field
whole    14.2: a server may ignore Range, as python3 does
END

# ---- servers ----

# wait_for COMMAND...: until it succeeds, for some seconds
wait_for() {
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
        "$@" && return
        sleep 0.2
    done
    return 1
}

port_in() {
    port=$(sed -n "s/$2/\\1/p" "$1" | head -n 1)
    [ -n "$port" ]
}

answers() {
    curl -s -o /dev/null --max-time 5 "$1/k1.bin"
}

start_ours() {
    "$program" --host 127.0.0.1 --port 0 --quiet --root "$root" >"$scratch/ours.out" 2>&1 &
    servers="$servers $!"
    wait_for port_in "$scratch/ours.out" '^listening on .*:\([0-9]*\)\/*$' || {
        cat "$scratch/ours.out"
        return 1
    }
    ours=http://127.0.0.1:$port/files
}

nginx_config() {
    cat <<CONFIG
daemon off;
master_process off;
worker_processes 1;
pid $scratch/nginx.pid;
error_log $scratch/nginx.log;
events { worker_connections 64; }
http {
    access_log off;
    types { text/plain txt; }
    default_type application/octet-stream;
    client_body_temp_path $scratch/body;
    proxy_temp_path $scratch/proxy;
    fastcgi_temp_path $scratch/fastcgi;
    uwsgi_temp_path $scratch/uwsgi;
    scgi_temp_path $scratch/scgi;
    server {
        listen 127.0.0.1:$1;
        location /files/ { alias $root/; }
    }
}
CONFIG
}

# A port that was free a moment ago.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])' 2>/dev/null ||
        awk 'BEGIN { srand(); print 20000 + int(rand() * 10000) }'
}

start_nginx() {
    port=$(free_port)
    nginx_config "$port" >"$scratch/nginx.conf"
    nginx -p "$scratch" -e "$scratch/nginx.log" -c "$scratch/nginx.conf" >"$scratch/nginx.out" 2>&1 &
    servers="$servers $!"
    nginx=http://127.0.0.1:$port/files
    wait_for answers "$nginx" || {
        cat "$scratch/nginx.out" "$scratch/nginx.log"
        return 1
    }
}

start_python() {
    ln -s . "$root/files"
    PYTHONUNBUFFERED=1 python3 -m http.server --bind 127.0.0.1 --directory "$root" 0 >"$scratch/python.out" 2>&1 &
    servers="$servers $!"
    wait_for port_in "$scratch/python.out" '^Serving HTTP on .* port \([0-9]*\) .*' || {
        cat "$scratch/python.out"
        return 1
    }
    python=http://127.0.0.1:$port
    wait_for answers "$python"
}

# ---- files ----

make_files() {
    mkdir "$root" && chmod 755 "$scratch" "$root" &&
        awk 'BEGIN { for (i = 0; i < 1024; i++) printf "%c", 33 + (i * 7 + int(i / 89)) % 90 }' >"$root/k1.bin" &&
        : >"$root/empty.bin" && head -c 3000000 /dev/urandom >"$root/m3.bin" &&
        TZ=UTC touch -t 202401020304.05 "$root/k1.bin" "$root/empty.bin" "$root/m3.bin"
}

# ---- one request ----

# header FILE NAME: the value of that field
header() {
    tr -d '\r' <"$1" | sed -n "s/^$2: *//Ip" | tail -n 1
}

etag_of() {
    curl -sS -I --max-time 20 "$1" -o "$scratch/etag"
    etag=$(header "$scratch/etag" ETag)
    echo "${etag:-\"none\"}"
}

# filled FIELDS ADDRESS: what stands for facts replaced by them
filled() {
    etag=$(etag_of "$2" | sed 's/[&\\|]/\\&/g')
    printf '%s\n' "$1" | sed -e "s|{etag}|$etag|g" -e "s|{weak}|W/$etag|g" \
        -e 's|{date}|Tue, 02 Jan 2024 03:04:05 GMT|g' -e 's|{before}|Tue, 02 Jan 2024 02:04:05 GMT|g' \
        -e 's|{after}|Tue, 02 Jan 2024 04:04:05 GMT|g' -e 's|{rfc850}|Tuesday, 02-Jan-24 03:04:05 GMT|g' \
        -e 's|{asctime}|Tue Jan  2 03:04:05 2024|g'
}

# ask BASE METHOD FILE FIELDS: head and body to $scratch/head and $scratch/content
ask() {
    address=$1/$3 method=$2
    fields=$(filled "$4" "$address")
    printf '%s\n' "$fields" | sed 's/; /\n/g' | grep . >"$scratch/fields"
    set -- -sS --max-time 20 -D "$scratch/head" -o "$scratch/content"
    [ "$method" = HEAD ] && set -- "$@" -I
    : >"$scratch/content"
    curl "$@" -H @"$scratch/fields" "$address"
}

# What is compared of the answer: status, the fields of ranges, and the bytes. The boundary is the server's choice.
summary() {
    status=$(sed -n '1s/^[^ ]* \([0-9]*\).*/\1/p' "$scratch/head" | tr -d '\r')
    echo "status $status"
    echo "Content-Range: $(header "$scratch/head" Content-Range)"
    case $status in
    200 | 206) ;;
    *) return ;;
    esac
    boundary=$(header "$scratch/head" Content-Type | sed -n 's/^multipart\/byteranges; *boundary="*\([^"]*\)"*$/\1/p')
    if [ -n "$boundary" ]; then
        echo 'multipart/byteranges'
        tr -d '\r' <"$scratch/content" | sed "s/$boundary/BOUNDARY/" | grep -a . | grep -a -v -i '^content-type:' |
            sed 's/^[Cc]ontent-[Rr]ange/Content-Range/' | cksum
        return
    fi
    echo "Content-Length: $(header "$scratch/head" Content-Length)"
    [ "$method" = HEAD ] || cksum <"$scratch/content"
}

# compared NAME OTHER METHOD FILE FIELDS WHY: the answers of ours and the other
compared() {
    ask "$ours" "$3" "$4" "$5" && summary >"$scratch/a" || return
    ask "$2" "$3" "$4" "$5" && summary >"$scratch/b" || return
    if cmp -s "$scratch/a" "$scratch/b"; then
        [ -z "$6" ] || echo "$1: answered alike" >>"$scratch/alike" # another version of that server
        return 0
    fi
    printf '%s\n  %s %s  %s\n  here   %s\n  there  %s\n  %s\n' "$1" "$3" "$4" "$5" "$(paste -s -d ' ' "$scratch/a")" \
        "$(paste -s -d ' ' "$scratch/b")" "${6:-unexplained}" | tee -a "$scratch/differences"
    [ -n "$6" ]
}

# The text of a key in the table; nothing for none.
reason() {
    [ -z "$1" ] || sed -n "s/^$1  *//p" "$scratch/reasons"
}

trimmed() {
    printf '%s\n' "$1" | sed 's/^ *//; s/ *$//'
}

# all_rows NAME ADDRESS COLUMN: the whole table against one other server
all_rows() {
    while IFS='|' read -r name request fields of_nginx of_python; do
        why=$of_nginx
        [ "$3" = python ] && why=$of_python
        why=$(reason "$(trimmed "$why")") name=$(trimmed "$name") request=$(trimmed "$request")
        check "$1: $name" compared "$1: $name" "$2" "${request% *}" "${request#* }" "$(trimmed "$fields")" "$why"
    done <"$scratch/table"
}

[ -x "$program" ] || {
    echo "$program is missing: make it first" >&2
    exit 2
}
installed curl || {
    skip 'all' 'curl is missing: install the package curl'
    finish
}
make_files || exit 2
check 'the showcase starts' start_ours
[ -n "$ours" ] || finish
if installed nginx; then
    check 'nginx starts' start_nginx
    all_rows nginx "$nginx" nginx
else
    skip 'nginx' 'install the package nginx-light'
fi
if installed python3; then
    check 'python3 starts' start_python
    all_rows python3 "$python" python
else
    skip 'python3' 'install the package python3'
fi
[ ! -s "$scratch/differences" ] || {
    echo
    echo 'Differences, and the section of RFC 9110 that explains each:'
    sed 's/^/    /' "$scratch/differences"
    echo
}
[ ! -s "$scratch/alike" ] || {
    echo 'Differences that were expected and are none:'
    sed 's/^/    /' "$scratch/alike"
    echo
}
finish
