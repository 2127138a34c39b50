# Reads the raw figures of a benchmark, for the report that comes after it on awk's command line. Fields are divided by
# tabs, the first says what the line holds:
#
#     what   row  in words
#     time   round  row  server  then the columns below
#     head   row  server  bytes of the answer's head
#     idle   server  bytes of memory for each idle connection
#     none   row  server  why there are no figures

BEGIN {
    FS = "\t"
    PER_CPU = 5; RATE = 6; P50 = 7; P99 = 8; LOAD = 9; ERRORS = 10 # us and % of a CPU
}

function note(row, server) {
    if (!(row in has_row)) row_at[++rows] = row
    if (!(server in has_server)) server_at[++servers] = server
    has_row[row] = has_server[server] = 1
}

$1 == "time" {
    note($3, $4)
    for (column = PER_CPU; column <= NF; column++) value[$3, $4, column, $2] = $column
    errors[$3, $4] += $ERRORS
    if ($2 > rounds) rounds = $2
    measured[$3, $4] = 1
}
$1 == "what" { what[$2] = $3 }
$1 == "head" { note($2, $3); head[$2, $3] = $4 }
$1 == "idle" { note("idle", $2); idle[$2] = $3 }
$1 == "none" { note($2, $3); why[$2, $3] = $4 }

function is_peer(server) {
    return server != "httpsrv" && server != "ceiling"
}

# The middle of list[1..n], which it sorts.
function median(list, n,    i, j, x) {
    for (i = 2; i <= n; i++) {
        x = list[i]
        for (j = i - 1; j > 0 && list[j] > x; j--) list[j + 1] = list[j]
        list[j + 1] = x
    }
    return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
}

function middle(row, server, column,    list, i) {
    for (i = 1; i <= rounds; i++) list[i] = value[row, server, column, i] + 0
    return median(list, rounds)
}

# The median of the ratios round by round; sets `low` and `high` to the least and the greatest. 0: there is none.
function ratio(row, server, other, column,    list, i) {
    low = high = 0
    if (!((row, server) in measured) || !((row, other) in measured)) return 0
    for (i = 1; i <= rounds; i++) {
        list[i] = value[row, other, column, i] > 0 ? value[row, server, column, i] / value[row, other, column, i] : 0
    }
    median(list, rounds)
    low = list[1]
    high = list[rounds]
    return median(list, rounds)
}

# The peer beside which httpsrv looks worst, where more is better or, with sign -1, less; "" if there is none.
function best_peer(row, column, sign,    i, server, here, most, best) {
    best = ""
    for (i = 1; i <= servers; i++) {
        server = server_at[i]
        if (!is_peer(server) || !((row, server) in measured)) continue
        here = -sign * ratio(row, "httpsrv", server, column)
        if (best != "" && here <= most) continue
        best = server
        most = here
    }
    return best
}
