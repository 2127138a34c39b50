#!/bin/sh
# Forms as real clients write them: posted to the showcase's /upload, which tells what it has found, and compared with
# what was sent. Also slowly, in chunks, and with everything that RFC 2046 permits around the parts.
#
#     tests/interop_forms.sh                 build/showcase, which `make` builds
#     tests/interop_forms.sh PROGRAM         another server that answers as `POST /upload` does
#
# Needs python3, for the comparison, and the Debian packages of the clients: curl, nodejs, chromium. What is missing is
# skipped. RATES="50k 10k" sets the speeds at which curl sends.

cd "$(dirname "$0")/.." || exit 2
. tests/check.sh

program=${1:-${BUILD:-build}/showcase}
: "${RATES:=400k 40k}"
forms=$scratch/forms.py
server=

trap '[ -z "$server" ] || kill -KILL "$server"; rm -rf "$scratch"' EXIT

[ -x "$program" ] || {
    echo "$program is missing: make it first" >&2
    exit 2
}

installed() {
    command -v "$1" >/dev/null
}

# What is sent, and what of it has to arrive. Names are those of the one who fills in the form; how they are escaped
# depends on the client: browsers and curl write %22 for a quote, which the server leaves as it is; the others write a
# backslash in front of it, which the server takes away.
cat >"$forms" <<'END'
import email.generator, email.policy, html, http.client, io, json, os, random, re, sys, time, urllib.request, zlib
from email.mime.multipart import MIMEMultipart
from email.mime.nonmultipart import MIMENonMultipart

folder = os.path.dirname(os.path.abspath(__file__))

def data_of(name):
    return open(os.path.join(folder, name), "rb").read()

def make_files():
    rng = random.Random(7)
    pieces = [b"\r\n--", b"\r", b"\n", b"--", b"\0", b"\r\n------WebKitFormBoundary", b"\r\n--------", b"x" * 50]
    files = {"plain.txt": b"Hello,\r\nWorld!\r\n", "empty.bin": b"", "long.txt": b"0123456789" * 1000,
             "bytes.bin": rng.randbytes(100000), "trap.bin": b"".join(rng.choice(pieces) for _ in range(5000))}
    for name, data in files.items():
        open(os.path.join(folder, name), "wb").write(data)

# name, filename, type, content
def plain():
    return [("a", None, None, b"1"), ("empty", None, None, b""), ("long", None, None, data_of("long.txt"))]

def files():
    return plain() + [("f", "plain.txt", "text/plain", data_of("plain.txt")),
                      ("f", "bytes.bin", "application/octet-stream", data_of("bytes.bin")),
                      ("f", "trap.bin", "application/octet-stream", data_of("trap.bin")),
                      ("none", "empty.bin", "image/png", b"")]

def names():
    return [('quo"te', None, None, b"1"), ("semi;colon", None, None, b"2"), ("back\\slash", None, None, b"3"),
            ("blank blank", None, None, b"4"), ("%22", None, None, b"5"), ("\u00fcml\u00e4ut", None, None, b"6"),
            ("\u65e5\u672c", '\u20ac "x"; y=z.txt', "text/plain", data_of("plain.txt")),
            ("path", "..\\dir\\..//file", "text/plain", data_of("plain.txt"))]

def ascii_names():
    return [part for part in names() if (part[0] + (part[1] or "")).isascii()]

def percent(text):
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")

def as_sent(parts, escape):
    return [(escape(n), None if f is None else escape(f), t, data) for n, f, t, data in parts]

def described(parts):
    return [{"name": n, "filename": f, "type": t, "size": len(d), "crc32": zlib.crc32(d)} for n, f, t, d in parts]

def found(answer):
    try:
        parts = json.loads(answer)
    except ValueError:
        sys.exit("no list of parts: %.300r" % answer)
    for part in parts:
        crc = part.get("crc32")
        part["crc32"] = int(crc, 16) if isinstance(crc, str) else crc
    return [{key: part.get(key) for key in ("name", "filename", "type", "size", "crc32")} for part in parts]

def compare(expected, answer):
    expected, actual = described(expected), found(answer)
    for i in range(max(len(expected), len(actual))):
        e, a = (x[i] if i < len(x) else None for x in (expected, actual))
        if e != a:
            sys.exit("part %d\n  sent   %s\n  found  %s" % (i, e, a))

# ---- encoders ----

def encode(parts, boundary, escape, preamble=b"", epilogue=b"\r\n", padding=b""):
    out = [preamble]
    for i, (name, filename, kind, data) in enumerate(parts):
        head = 'Content-Disposition: form-data; name="%s"' % escape(name)
        head += "" if filename is None else '; filename="%s"' % escape(filename)
        head += "" if kind is None else "\r\nContent-Type: " + kind
        out += [b"\r\n" if i or preamble else b"", b"--", boundary, padding, b"\r\n", head.encode(), b"\r\n\r\n", data]
    return b"".join(out + [b"\r\n--", boundary, b"--", padding, epilogue])

def encode_by_email(parts):
    form = MIMEMultipart("form-data")
    for name, filename, kind, data in parts:
        part = MIMENonMultipart(*(kind or "text/plain").split("/"))
        part.set_payload(data.decode())
        texts = {"name": name} if filename is None else {"name": name, "filename": filename}
        part.add_header("Content-Disposition", "form-data", **texts)
        form.attach(part)
    out = io.BytesIO()
    email.generator.BytesGenerator(out, policy=email.policy.HTTP).flatten(form)
    text = out.getvalue()
    return text[text.index(b"\r\n\r\n") + 4:], form["Content-Type"]

# ---- posting ----

def post(port, body, kind, chunked=False, step=None):
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    def pieces():
        for at in range(0, len(body), step or len(body) or 1):
            yield body[at:at + (step or len(body))]
            time.sleep(0.001 if step else 0)
    headers = {"Content-Type": kind}
    if not chunked:
        headers["Content-Length"] = str(len(body))
    conn.request("POST", "/upload", body=pieces(), headers=headers, encode_chunked=chunked)
    answer = conn.getresponse()
    text = answer.read()
    if answer.status != 200:
        sys.exit("%d %s" % (answer.status, text))
    return text

def post_by_urllib(port, body, kind):
    request = urllib.request.Request("http://127.0.0.1:%d/upload" % port, data=body, headers={"Content-Type": kind})
    return urllib.request.urlopen(request, timeout=60).read()

def python(port, what):
    kind, backslash = "multipart/form-data; boundary=xYzZY", lambda s: s.replace("\\", "\\\\").replace('"', '\\"')
    same = lambda s: s
    if what == "http.client":
        compare(files(), post(port, encode(files(), b"xYzZY", percent), kind))
    if what == "names":
        compare(as_sent(names(), percent), post(port, encode(names(), b"xYzZY", percent), kind))
    if what == "backslashes":
        compare(names(), post(port, encode(names(), b"xYzZY", backslash), kind))
    if what == "urllib":
        compare(files(), post_by_urllib(port, encode(files(), b"xYzZY", percent), kind))
    if what == "pieces":
        compare(files(), post(port, encode(files(), b"xYzZY", percent), kind, step=997))
    if what == "chunked":
        compare(files(), post(port, encode(files(), b"xYzZY", percent), kind, chunked=True, step=1499))
    if what == "surroundings":
        body = encode(files(), b"xYzZY", percent, b"preamble\r\n--xYzZ\r\n", b"\r\n--xYzZY\r\nepilogue", b" \t ")
        compare(files(), post(port, body, kind))
    if what == "boundaries":
        for boundary in (b"-", b"'()+_,-./:=? x", b"-" * 70, b"0123456789" * 7):
            body = encode(plain(), boundary, percent)
            compare(plain(), post(port, body, 'multipart/form-data; boundary="%s"' % boundary.decode()))
    if what == "email":
        parts = [(n, f, t or "text/plain", d) for n, f, t, d in plain() + ascii_names()]
        compare(parts, post(port, *encode_by_email(parts)))
    if what == "none":
        compare([], post(port, b"--xYzZY--\r\n", kind))

# ---- clients that run scripts ----

# Slashes in the name of a file are left to the clients that let one write them.
def scripted():
    return [part for part in files() + names() if part[0] != "path"]

def script():
    lines = ["const form = new FormData();"]
    for name, filename, kind, data in scripted():
        octets = "new Uint8Array([%s])" % ",".join(map(str, data))
        if filename is None:
            lines.append("form.append(%s, %s);" % (json.dumps(name), json.dumps(data.decode())))
        else:
            args = (json.dumps(name), octets, json.dumps(filename), json.dumps(kind))
            lines.append("form.append(%s, new File([%s], %s, {type: %s}));" % args)
    return "\n".join(lines)

def node_script(port):
    print("const {File} = require('buffer');\n" + script())
    print("fetch('http://127.0.0.1:%d/upload', {method: 'POST', body: form})" % port)
    print("    .then(answer => answer.text()).then(text => console.log(text));")

# A form of the page itself, with files as if somebody had chosen them.
def page(port):
    print("<!DOCTYPE html><meta charset=utf-8>")
    print("<form method=post enctype=multipart/form-data action=http://127.0.0.1:%d/upload></form>" % port)
    print("<script>\n" + script() + """
const target = document.querySelector('form');
for (const [name, value] of form) {
    const input = document.createElement('input');
    input.name = name;
    if (value instanceof File) {
        const chosen = new DataTransfer();
        chosen.items.add(value);
        input.type = 'file';
        input.files = chosen.files;
    } else {
        input.type = 'hidden';
        input.value = value;
    }
    target.append(input);
}
target.submit();
</script>""")

def answered(port, what):
    text = sys.stdin.read()
    if what == "page":
        text = html.unescape(re.search(r"\[.*\]", re.sub(r"<[^>]*>", "", text), re.S).group(0))
    sets = {"files": files(), "names": as_sent(names(), percent), "names-backslash": names(),
            "script": as_sent(scripted(), percent), "page": as_sent(scripted(), percent)}
    compare(sets[what], text)

commands = {"python": python, "answered": answered, "files": lambda *_: make_files(),
            "node": lambda port, _: node_script(port), "page": lambda port, _: page(port)}
commands[sys.argv[1]](int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
END

# ---- the server ----

start() {
    "$program" --port 0 >"$scratch/out" 2>"$scratch/err" &
    server=$!
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        port=$(sed -n 's/^listening on .*:\([0-9]*\)\/*$/\1/p' "$scratch/out")
        [ "${port:-0}" -gt 0 ] && return
        sleep 0.25
    done
    cat "$scratch/out" "$scratch/err"
    return 1
}

stop() {
    kill -TERM "$server"
    wait "$server"
    code=$?
    server=
    cat "$scratch/err"
    [ "$code" -eq 0 ]
}

# ---- clients ----

python_posts() {
    python3 "$forms" python "$port" "$1"
}

# curl_posts SET ARGUMENT...: curl's answer tells of that set of parts
curl_posts() {
    set_of_parts=$1
    shift
    (cd "$scratch" && curl -sS --fail-with-body --max-time 100 "$@" "http://127.0.0.1:$port/upload") \
        >"$scratch/answer" || {
        cat "$scratch/answer"
        return 1
    }
    python3 "$forms" answered "$port" "$set_of_parts" <"$scratch/answer"
}

curl_files() {
    curl_posts files -F a=1 -F empty= -F 'long=<long.txt' -F 'f=@plain.txt' -F 'f=@bytes.bin' \
        -F 'f=@trap.bin;type=application/octet-stream' -F 'none=@empty.bin;type=image/png' "$@"
}

curl_names() {
    curl_posts "$@" -F 'quo"te=1' -F 'semi;colon=2' -F 'back\slash=3' -F 'blank blank=4' -F '%22=5' -F 'ümläut=6' \
        -F '日本=@plain.txt;filename="€ \"x\"; y=z.txt"' -F 'path=@plain.txt;filename="..\\dir\\..//file"'
}

curl_knows() {
    curl --help all | grep -q -e "$1"
}

node_posts() {
    python3 "$forms" node "$port" >"$scratch/post.js" &&
        node "$scratch/post.js" >"$scratch/answer" &&
        python3 "$forms" answered "$port" script <"$scratch/answer"
}

node_has_forms() {
    [ "$(node -p 'typeof fetch === "function" && typeof FormData === "function"' 2>/dev/null)" = true ]
}

chromium_posts() {
    python3 "$forms" page "$port" >"$scratch/page.html" &&
        timeout 90 chromium --headless --no-sandbox --disable-gpu --user-data-dir="$scratch/profile" \
            --virtual-time-budget=20000 --dump-dom "file://$scratch/page.html" >"$scratch/answer" &&
        python3 "$forms" answered "$port" page <"$scratch/answer"
}

# ---- all of them ----

test_python() {
    for way in http.client names backslashes urllib pieces chunked surroundings boundaries email none; do
        check "python3: $way" python_posts "$way"
    done
}

test_curl() {
    check 'curl: files' curl_files
    check 'curl: in chunks' curl_files -H 'Transfer-Encoding: chunked'
    check 'curl: waits for 100 (Continue)' curl_files -H 'Expect: 100-continue'
    check 'curl: HTTP/1.0' curl_files --http1.0
    for rate in $RATES; do
        check "curl: $rate bytes per second" curl_files --limit-rate "$rate"
    done
    if curl_knows '--form-escape'; then
        check 'curl: odd names' curl_names names
        check 'curl: odd names with backslashes' curl_names names-backslash --form-escape
    else
        skip 'curl: odd names' 'this curl is older than 7.81'
    fi
}

test_node() {
    if ! node_has_forms; then
        skip 'node: FormData' 'this node is older than 18'
        return
    fi
    check 'node: FormData' node_posts
}

installed python3 || {
    skip 'all' 'python3 is missing: install the package python3'
    finish
}
python3 "$forms" files 0
check 'the server starts' start
[ -n "$port" ] || finish
test_python
if installed curl; then test_curl; else skip 'curl' 'install the package curl'; fi
if installed node; then test_node; else skip 'node' 'install the package nodejs'; fi
if installed chromium; then
    check 'chromium: a form of a page' chromium_posts
else
    skip 'chromium' 'install the package chromium'
fi
check 'the server ends' stop
finish
