# Makes the tables of bench/run.sh from its raw figures, as text or Markdown (-v format=text|markdown). Each
# line:
#     round, row, requests per second of server CPU, requests/s, p50 and p99 in microseconds, CPU in %, errors

BEGIN {
    FS = "\t"
    PER_CPU = 3; RATE = 4; P50 = 5; P99 = 6; LOAD = 7; ERRORS = 8
}

{
    if (!($2 in seen)) order[++rows] = $2
    seen[$2] = 1
    if ($1 > rounds) rounds = $1
    for (column = PER_CPU; column <= ERRORS; column++) value[$2, column, $1] = $column
    errors[$2] += $ERRORS
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

function median_of(row, column,    list, i) {
    for (i = 1; i <= rounds; i++) list[i] = value[row, column, i] + 0
    return median(list, rounds)
}

function line(a, b, c, d, e, f, g) {
    if (format == "markdown") printf "| %s | %s | %s | %s | %s | %s | %s |\n", a, b, c, d, e, f, g
    else printf "%-14s %12s %12s %8s %8s %7s %8s\n", a, b, c, d, e, f, g
}

# wrk says 0 where its histogram does not reach, as it happens with pipelining.
function latency(us) {
    return us > 0 ? sprintf("%.0f", us) : "-"
}

# The ratio of two rows round by round and its median.
function compare(a, b, column, unit,    list, text, i) {
    if (!(a in seen) || !(b in seen)) return
    for (i = 1; i <= rounds; i++) {
        list[i] = value[b, column, i] > 0 ? value[a, column, i] / value[b, column, i] : 0
        text = text sprintf(" %.2f", list[i])
    }
    if (format == "markdown") printf "| %s / %s | %s | %.2f | %s |\n", a, b, unit, median(list, rounds), text
    else printf "%-28s %-14s %6.2f   %s\n", a " / " b, unit, median(list, rounds), text
}

END {
    line("row", "req/s of CPU", "req/s", "p50 us", "p99 us", "CPU %", "errors")
    if (format == "markdown") print "|---|--:|--:|--:|--:|--:|--:|"
    for (i = 1; i <= rows; i++) {
        row = order[i]
        line(row, sprintf("%.0f", median_of(row, PER_CPU)), sprintf("%.0f", median_of(row, RATE)),
             latency(median_of(row, P50)), latency(median_of(row, P99)),
             sprintf("%.0f", median_of(row, LOAD)), errors[row] ? errors[row] " (!)" : 0)
    }
    print ""
    if (format == "markdown") print "| ratio | of | median | rounds |\n|---|---|--:|---|"
    else print "ratio                        of             median    rounds"
    compare("inline", "nginx", PER_CPU, "req/s of CPU")
    compare("inline", "ceiling", PER_CPU, "req/s of CPU")
    compare("inline-x16", "nginx-x16", PER_CPU, "req/s of CPU")
    compare("inline-x16", "ceiling-x16", PER_CPU, "req/s of CPU")
    compare("pool-shared", "inline-shared", PER_CPU, "req/s of CPU")
    compare("pool-shared", "inline-shared", RATE, "req/s")
}
