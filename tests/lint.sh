#!/bin/sh
# The rules of the rooms, checked in httpsrv.h or in the file given: no private prototypes, calls only
# upwards and never to public functions, names that tell the room, banners, and what the object file shows
# to others. Needs nm and awk.

. tests/check.sh

: "${CC:=cc}"
header=${1:-httpsrv.h}
# The rooms of the back half, from the table of contents in the doc block.
rooms=$(sed -n '/^\/\/ CONTENTS/,/^\/\/ BUILD/p' "$header" | grep -o '>>[a-z]*' | sed 's/>>//' |
    grep -v -x -E 'doc|config|types|api')

# ---- the text, line by line: room, code ----

# Prints the header without comments and the insides of literals; every line stays where it is.
cat >"$scratch/strip.awk" <<'AWK'
{
    out = ""
    n = length($0)
    for (i = 1; i <= n; i++) {
        c = substr($0, i, 1)
        two = substr($0, i, 2)
        if (comment) {
            if (two == "*/") { comment = 0; i++ }
        } else if (quote != "") {
            if (c == "\\") i++
            else if (c == quote) { out = out c; quote = "" }
        } else if (two == "//") {
            break
        } else if (two == "/*") {
            comment = 1; i++
        } else {
            if (c == "\"" || c == "'") quote = c
            out = out c
        }
    }
    print out
}
AWK

# Prints a list of what stands at file level:
#     room NAME LINE         a banner
#     func ROOM LINE NAME    a function with a body
#     proto ROOM LINE NAME   a function without one
#     use ROOM LINE NAME     any other word that begins with hsrv_ or httpsrv_, macros included
# Its input is the header with each line behind its stripped form: "stripped TAB original".
cat >"$scratch/outline.awk" <<'AWK'
function function_name(text) {
    while (match(text, /[A-Za-z_][A-Za-z0-9_]*[ ]*\(/)) {
        name = substr(text, RSTART, RLENGTH - 1)
        text = substr(text, RSTART + RLENGTH)
        sub(/ +$/, "", name)
        if (name !~ /^(__attribute__|_Alignas|_Static_assert|static_assert|H(TTP)?SRV_[A-Z_]+)$/) return name
    }
    return ""
}

function end_of_statement(what) {
    name = function_name(statement)
    if (name != "" && statement !~ /^[ ]*typedef/ && statement !~ /=/) print what, room, NR, name
    statement = ""
}

function list_uses(text) {
    while (match(text, /(hsrv|httpsrv)_[a-z0-9_]+/)) {
        before = RSTART > 1 ? substr(text, RSTART - 1, 1) : " "
        word = substr(text, RSTART, RLENGTH)
        after = substr(text, RSTART + RLENGTH, 1)
        text = substr(text, RSTART + RLENGTH)
        if (before !~ /[A-Za-z0-9_]/ && after !~ /[A-Za-z0-9_]/) print "use", room, NR, word
    }
}

BEGIN { FS = "\t"; room = "none"; rule = "^// =+$" }

{
    if ($2 ~ /^\/\/ >>[a-z]+ / && last ~ rule) {
        room = substr($2, 6)
        sub(/ .*/, "", room)
        print "room", room, NR
    }
    last = $2
    list_uses($1)
}

# C++ has branches of its own, and the brackets of extern "C" are none.
$1 ~ /^ *# *ifdef __cplusplus/ { in_cplusplus = 1; next }
in_cplusplus && $1 ~ /^ *# *(else|endif)/ { in_cplusplus = 0; next }
in_cplusplus { next }
$1 ~ /^ *#/ || directive { directive = ($1 ~ /\\$/); next }

{
    n = length($1)
    for (i = 1; i <= n; i++) {
        c = substr($1, i, 1)
        if (c == "{") {
            if (depth == 0 && statement ~ /\)[ A-Z_]*$/) end_of_statement("func")
            depth++
        } else if (c == "}") {
            depth--
        } else if (depth > 0) {
            continue
        } else if (c == ";") {
            end_of_statement("proto")
        } else {
            statement = statement c
        }
    }
    if (depth == 0) statement = statement " "
}
AWK

awk -f "$scratch/strip.awk" "$header" >"$scratch/stripped"
awk '{ gsub(/\t/, " "); print }' "$header" | paste "$scratch/stripped" - |
    awk -f "$scratch/outline.awk" >"$scratch/outline"

# ---- the rules ----

# report: fails if its input has a line, and shows it
report() {
    ! grep .
}

# The table of contents tells the rooms in their order. There are twenty, so that a misread file cannot pass.
has_all_rooms() {
    awk '$1 == "room" { print $2 }' "$scratch/outline" >"$scratch/found"
    [ "$(echo $rooms | wc -w)" -ge 20 ] && printf '%s\n' config types api $rooms | diff - "$scratch/found"
}

# Three lines: rule, text, rule. A long text may go on in further comment lines.
has_banners() {
    for room in $rooms; do
        awk -v room="$room" '
            index($0, "// >>" room " ") == 1 && last ~ /^\/\/ =+$/ { inside = 1 }
            inside && /^\/\/ =+$/ { exit }
            inside { text = text $0 }
            { last = $0 }
            END {
                if (text !~ /owns: .*thread: .*uses: /) print ">>" room ": banner without owns, thread or uses"
            }
        ' "$header"
    done | report
}

has_no_prototypes() {
    awk '$1 == "proto" && $4 ~ /^hsrv_/ { print "line " $3 ": " $4 " is declared without a body" }' \
        "$scratch/outline" | report
}

# Functions declared in >>api, used in a room that is neither >>public nor in the front half.
calls_no_public_function() {
    awk '
        $1 == "proto" && $2 == "api" && $4 ~ /^httpsrv_/ { is_public[$4] = 1; count++ }
        $1 == "use" && $2 !~ /^(none|config|types|api|public)$/ && $4 in is_public {
            print "line " $3 ": >>" $2 " uses the public " $4
        }
        END { if (count < 40) print "only " count " public functions found" }
    ' "$scratch/outline" | report
}

# hsrv_<room>_<verb>, in the room of that name; hsrv_sys_ is the seam of >>platform; httpsrv_ is defined in
# >>public.
has_names_by_room() {
    awk '
        $1 == "func" && $2 !~ /^(none|config|types|api)$/ {
            count++
            split($4, part, "_")
            home = part[1] == "hsrv" ? part[2] : "no room"
            if (home == "sys") home = "platform"
            if (part[1] == "httpsrv") home = "public"
            if (home != $2) print "line " $3 ": " $4 " stands in >>" $2
        }
        END { if (count < 100) print "only " count " functions found" }
    ' "$scratch/outline" | report
}

# A room calls functions of itself, of the rooms that its banner names after "uses:", and of those that they use
# ("all": of all above).
calls_only_what_it_uses() {
    awk -v outline="$scratch/outline" '
        FILENAME == outline {
            if ($1 == "room") { order[$2] = ++rooms; room_at[rooms] = $2 }
            if ($1 == "func") { home[$4] = $2 }
            if ($1 == "use") { users[$2 " " $4] = $3 }
            next
        }
        /^\/\/ >>[a-z]+ .*owns: / { room = substr($2, 3) }
        room != "" { text[room] = text[room] " " $0 }
        /^\/\/ =+$/ { room = "" }
        # Fills reach[room, other] for each room, from the first to the last, with what its banner leads to.
        function follow_banners(    from, used, to, far, i) {
            for (i = 1; i <= rooms; i++) {
                from = room_at[i]
                used = text[from]
                sub(/.*uses: */, "", used)
                if (used ~ /^all/)
                    for (far in order) reach[from, far] = 1
                while (match(used, />>[a-z]+/)) {
                    to = substr(used, RSTART + 2, RLENGTH - 2)
                    used = substr(used, RSTART + RLENGTH)
                    reach[from, to] = 1
                    for (far in order)
                        if ((to, far) in reach) reach[from, far] = 1
                }
            }
        }
        function check_use(from, name, line,    to) {
            if (!(name in home) || !(from in text)) return
            to = home[name]
            if (from == to || to == "public" || told[from, to]++) return
            if (order[to] > order[from])
                print "line " line ": >>" from " uses " name " of >>" to ", which stands below"
            else if (!((from, to) in reach))
                print "line " line ": >>" from " uses " name ", its banner does not lead to >>" to
        }
        END {
            follow_banners()
            for (user in users) {
                split(user, part, " ")
                check_use(part[1], part[2], users[user])
            }
        }
    ' "$scratch/outline" "$header" | sort | report
}

# ---- the object file ----

# Built without PIC, where constant tables of pointers lie in .rodata and nm tells them from variables.
compile() {
    printf '#define HTTPSRV_IMPLEMENTATION\n#include "%s"\n' "$header" >"$scratch/object.c"
    $CC -std=gnu11 -O1 -fno-pic -fno-pie -I. -pthread "$@" -c "$scratch/object.c" -o "$scratch/object.o" &&
        nm "$scratch/object.o" >"$scratch/symbols"
}

exports_only_httpsrv() {
    compile && grep ' T httpsrv_' "$scratch/symbols" >"$scratch/exported" &&
        grep ' [A-TV-Z] ' "$scratch/symbols" | grep -v ' T httpsrv_' | report
}

has_no_variables() {
    compile "$@" && grep ' [BbCDdGgSsVvWw] ' "$scratch/symbols" | report
}

# No exit, no printing, no signal handlers, no writev (it raises SIGPIPE), no help from libatomic.
calls_nothing_forbidden() {
    forbidden='_?exit|abort|v?f?printf|puts|putchar|fputs|perror|signal|sigaction|writev|__atomic.*'
    compile && grep -E " U ($forbidden)\$" "$scratch/symbols" | report
}

check 'rooms, in order' has_all_rooms
check 'banners' has_banners
check 'no private prototypes' has_no_prototypes
check 'no public function called from a private room' calls_no_public_function
check 'names by room' has_names_by_room
check 'calls only into rooms above that the banner names' calls_only_what_it_uses
check 'only httpsrv_ symbols' exports_only_httpsrv
check 'no variables' has_no_variables
check 'no variables, HTTPSRV_DEBUG' has_no_variables -DHTTPSRV_DEBUG
check 'nothing forbidden called' calls_nothing_forbidden
finish
