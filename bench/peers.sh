# Sourced by run.sh, after lib.sh: how the servers that are measured are started, each as one process with one thread
# for the network, and what they cannot do. start_NAME CPUS sets pid and port. All serve the folder $temp/root.
# shellcheck shell=bash

all_peers=(nginx h2o lighttpd haproxy libmicrohttpd libevent go node)
max_connections=16384
idle_seconds=60

declare -A package=([nginx]=nginx-light [h2o]=h2o [lighttpd]=lighttpd [haproxy]=haproxy
    [libmicrohttpd]=libmicrohttpd-dev [libevent]=libevent-dev [go]=golang-go [node]=nodejs)

# build_peer NAME FLAGS...: a program of bench/peers, if what it needs is there
build_peer() {
    # shellcheck disable=SC2086
    $CC $CFLAGS "$bench/peers/$1.c" "${@:2}" -o "$BUILD/peer-$1" 2>"$temp/err"
}

# has_peer NAME: whether it is there; builds it
has_peer() {
    case $1 in
    libmicrohttpd) build_peer "$1" -lmicrohttpd ;;
    libevent) build_peer "$1" -levent ;;
    go) installed go && GO111MODULE=off go build -o "$BUILD/peer-go" "$bench/peers/server.go" 2>"$temp/err" ;;
    *) installed "$1" ;;
    esac
}

# version NAME
version() {
    case $1 in
    nginx) nginx -v 2>&1 | sed 's/.*nginx\///' ;;
    h2o) h2o --version | sed -n 's/^h2o version //p' ;;
    lighttpd) lighttpd -v | sed 's/^lighttpd\/\([^ ]*\).*/\1/' ;;
    haproxy) haproxy -v | sed -n 's/^HAProxy version \([^ ]*\).*/\1/p' ;;
    libmicrohttpd | libevent) "$BUILD/peer-$1" --version ;;
    go) go env GOVERSION ;;
    node) node --version ;;
    esac
}

# lacks SERVER ROW: prints why this row is not measured; fails if it is
lacks() {
    case $1/$2 in
    httpsrv/* | ceiling/*) return 1 ;;
    */shared | */pool) echo 'it hands nothing to threads beside its loop' ;;
    nginx/echo-* | lighttpd/echo-*) echo 'it sends no body back without a further module' ;;
    haproxy/echo-64k) echo 'it answers with no more than its buffer holds' ;;
    haproxy/file-*) echo 'it serves no files' ;;
    haproxy/idle)
        [ "$(haproxy_connections)" -gt "$IDLE" ] && return 1
        echo 'it reserves two descriptors for each connection, more than the limit of this machine allows'
        ;;
    *) return 1 ;;
    esac
}

start_httpsrv() {
    start_ours pinned "$1" "$BUILD/showcase" --host 127.0.0.1 --quiet --reactors 1 --defer-accept \
        --pool-threads "$threads" --root "$temp/root"
}

# What it sends and takes differs from row to row.
start_ceiling() {
    start_ours pinned "$1" "$BUILD/ceiling" "${ceiling_flags[@]}"
}

# start_nginx of lib.sh with the rows' locations
start_nginx_rows() {
    start_nginx "$1" "
        location = /plaintext { default_type text/plain; return 200 'Hello, World!'; }
        location = /json { default_type application/json; return 200 '{\"message\":\"Hello, World!\"}'; }
        location /files/ { alias $temp/root/; }"
}

# Constants are files, which cost it less than a line of Ruby does.
start_h2o() {
    free_port
    cat >"$temp/h2o.$port" <<CONFIG
user: $(id -un)
num-threads: 1
max-connections: $max_connections
http1-request-timeout: $idle_seconds
error-log: $temp/h2o.log
listen: {host: 127.0.0.1, port: $port}
file.mime.settypes: {text/plain: .txt, application/json: .json, application/octet-stream: .bin}
hosts:
  default:
    paths:
      /plaintext: {file.file: $temp/root/plaintext.txt}
      /json: {file.file: $temp/root/json.json}
      /files: {file.dir: $temp/root}
      /echo:
        mruby.handler: |
          Proc.new { |env| [200, {"content-type" => "application/octet-stream"}, [env["rack.input"].read]] }
CONFIG
    start_on_port pinned "$1" h2o -c "$temp/h2o.$port"
}

start_lighttpd() {
    free_port
    cat >"$temp/lighttpd.$port" <<CONFIG
server.bind = "127.0.0.1"
server.port = $port
server.document-root = "$temp/root"
server.errorlog = "$temp/lighttpd.log"
server.modules = ("mod_alias")
server.max-fds = $(ulimit -Hn)
server.max-connections = $max_connections
server.listen-backlog = 1024
server.max-keep-alive-requests = 65535
server.max-keep-alive-idle = $idle_seconds
mimetype.assign = (".txt" => "text/plain", ".json" => "application/json", "" => "application/octet-stream")
alias.url = ("/plaintext" => "$temp/root/plaintext.txt", "/json" => "$temp/root/json.json", "/files/" => "$temp/root/")
CONFIG
    start_on_port pinned "$1" lighttpd -D -f "$temp/lighttpd.$port"
}

# It wants two descriptors for each, and some more.
haproxy_connections() {
    local most=$((($(ulimit -Hn) - 100) / 2))
    echo $((most < max_connections ? most : max_connections))
}

start_haproxy() {
    free_port
    cat >"$temp/haproxy.$port" <<CONFIG
global
    nbthread 1
    maxconn $(haproxy_connections)
defaults
    mode http
    backlog 1024
    timeout connect 10s
    timeout client ${idle_seconds}s
    timeout server ${idle_seconds}s
frontend bench
    bind 127.0.0.1:$port
    http-request return status 200 content-type text/plain string "Hello, World!" if { path /plaintext }
    http-request return status 200 content-type application/json string "{\"message\":\"Hello, World!\"}" if { path /json }
    http-request wait-for-body time 10s at-least 1m if { path /echo }
    http-request return status 200 content-type application/octet-stream lf-string %[req.body] if { path /echo }
    http-request return status 404
CONFIG
    start_on_port pinned "$1" haproxy -db -f "$temp/haproxy.$port"
}

# start_program CPUS COMMAND...: one of bench/peers, which take port and folder
start_program() {
    free_port
    start_on_port pinned "$@" "$port" "$temp/root"
}

start_libmicrohttpd() {
    start_program "$1" "$BUILD/peer-libmicrohttpd"
}

start_libevent() {
    start_program "$1" "$BUILD/peer-libevent"
}

start_go() {
    start_program "$1" env GOMAXPROCS=1 "$BUILD/peer-go"
}

start_node() {
    start_program "$1" node "$bench/peers/server.js"
}
