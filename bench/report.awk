# Makes the tables of bench/run.sh, as text or Markdown (-v format=text|markdown); figures.awk comes before it.

# ---- tables: cells first, then all of them, so that columns of text can be as wide as they must be ----

function begin_table(title) {
    caption = title
    lines = columns = 0
}

function cell(text) {
    cells[lines, ++column_at] = text
    if (column_at > columns) columns = column_at
}

function next_line(first) {
    lines++
    column_at = 0
    cell(first)
}

function pad(text, width, to_left) {
    return sprintf("%" (to_left ? "-" : "") width "s", text)
}

# The first column and those that hold words are set to the left.
function end_table(words,    i, k, width, line) {
    print format == "markdown" ? "**" caption "**" : caption
    print ""
    for (k = 1; k <= columns; k++) {
        width[k] = 0
        for (i = 1; i <= lines; i++) if (length(cells[i, k]) > width[k]) width[k] = length(cells[i, k])
    }
    for (i = 1; i <= lines; i++) {
        line = format == "markdown" ? "|" : ""
        for (k = 1; k <= columns; k++) {
            if (format == "markdown") line = line " " cells[i, k] " |"
            else line = line pad(cells[i, k], width[k], k == 1 || index(words, "," k ",")) "  "
        }
        sub(/ *$/, "", line)
        print line
        if (format != "markdown" || i > 1) continue
        line = "|---|"
        for (k = 2; k <= columns; k++) line = line (index(words, "," k ",") ? "---|" : "--:|")
        print line
    }
    print ""
    for (i in cells) delete cells[i]
}

# ---- what is in them ----

function has_figures(row,    i) {
    for (i = 1; i <= servers; i++) if ((row, server_at[i]) in measured) return 1
    return 0
}

# wrk says 0 where its histogram does not reach, as it happens with pipelining.
function latency(us) {
    return us > 0 ? sprintf("%.0f", us) : "-"
}

function with_range(r) {
    return r > 0 ? sprintf("%.2f (%.2f-%.2f)", r, low, high) : "-"
}

# The ratio to the best peer of a row, and who that is.
function cells_of_best(row, column, sign,    best) {
    best = best_peer(row, column, sign)
    cell(best == "" ? "-" : with_range(ratio(row, "httpsrv", best, column)))
    cell(best == "" ? "-" : best)
}

function ratios_to_ceiling(    i, k, r) {
    begin_table("Requests per second of server CPU, as a ratio to the ceiling's: median of the rounds (least-greatest)")
    next_line("row")
    cell("which is")
    cell("httpsrv")
    cell("to the best peer")
    cell("that is")
    for (k = 1; k <= servers; k++) if (is_peer(server_at[k])) cell(server_at[k])
    for (i = 1; i <= rows; i++) {
        if (!has_figures(row_at[i])) continue
        next_line(row_at[i])
        cell(what[row_at[i]])
        cell(with_range(ratio(row_at[i], "httpsrv", "ceiling", PER_CPU)))
        cells_of_best(row_at[i], PER_CPU, 1)
        for (k = 1; k <= servers; k++) {
            if (!is_peer(server_at[k])) continue
            r = ratio(row_at[i], server_at[k], "ceiling", PER_CPU)
            cell(r > 0 ? sprintf("%.2f", r) : "-")
        }
    }
    end_table(",2,5,")
}

function latencies(    i, k) {
    begin_table("Latency in us, p50 / p99")
    next_line("row")
    cell("p50 to the best peer's")
    cell("that is")
    for (k = 1; k <= servers; k++) cell(server_at[k])
    for (i = 1; i <= rows; i++) {
        if (row_at[i] !~ /^(hello|varied|c1|c1000)$/ || !has_figures(row_at[i])) continue
        next_line(row_at[i])
        cells_of_best(row_at[i], P50, -1)
        for (k = 1; k <= servers; k++) {
            if (!((row_at[i], server_at[k]) in measured)) cell("-")
            else cell(latency(middle(row_at[i], server_at[k], P50)) " / " latency(middle(row_at[i], server_at[k], P99)))
        }
    }
    if (lines > 1) end_table(",3,")
}

function idle_memory(    k, server) {
    begin_table("Idle connections that have been served once: bytes of memory for each")
    next_line("")
    for (k = 1; k <= servers; k++) cell(server_at[k])
    next_line("idle")
    for (k = 1; k <= servers; k++) cell(server_at[k] in idle ? idle[server_at[k]] : "-")
    if ("idle" in has_row) end_table("")
}

# What it costs to hand a request to a pool and the answer back.
function pool_beside_inline(    list, i) {
    if (!(("pool", "httpsrv") in measured) || !(("shared", "httpsrv") in measured)) return
    for (i = 1; i <= rounds; i++) {
        list[i] = value["pool", "httpsrv", PER_CPU, i] / value["shared", "httpsrv", PER_CPU, i]
    }
    printf "httpsrv, pool / shared, requests per second of CPU: %.2f\n\n", median(list, rounds)
}

function all_figures(    i, k, n, row, server, title) {
    begin_table("All figures: medians; head: bytes of the answer's head")
    next_line("row")
    n = split("server,req/s of CPU,to the ceiling,req/s,p50 us,p99 us,CPU %,head,errors", title, ",")
    for (k = 1; k <= n; k++) cell(title[k])
    for (i = 1; i <= rows; i++)
        for (k = 1; k <= servers; k++) {
            row = row_at[i]
            server = server_at[k]
            if (!((row, server) in measured)) continue
            next_line(row)
            cell(server)
            cell(sprintf("%.0f", middle(row, server, PER_CPU)))
            cell(with_range(ratio(row, server, "ceiling", PER_CPU)))
            cell(sprintf("%.0f", middle(row, server, RATE)))
            cell(latency(middle(row, server, P50)))
            cell(latency(middle(row, server, P99)))
            cell(sprintf("%.0f", middle(row, server, LOAD)))
            cell(head[row, server])
            cell(errors[row, server] ? errors[row, server] " (!)" : 0)
        }
    end_table(",2,")
}

function join(list, text) {
    return list (list == "" ? "" : ", ") text
}

# Rows that servers lack, told once for all servers that lack the same ones for the same reason.
function what_is_missing(    i, k, key, of, rows_of, told, n, list) {
    for (k = 1; k <= servers; k++) {
        for (i = 1; i <= rows; i++) {
            key = why[row_at[i], server_at[k]]
            if (key != "") rows_of[k, key] = join(rows_of[k, key], row_at[i])
        }
        for (i = 1; i <= rows; i++) {
            key = rows_of[k, why[row_at[i], server_at[k]]] ": " why[row_at[i], server_at[k]]
            if (key == ": " || ((k, key) in told)) continue
            told[k, key] = 1
            if (!(key in of)) list[++n] = key
            of[key] = join(of[key], server_at[k])
        }
    }
    if (n > 0) print "Not measured:\n"
    for (i = 1; i <= n; i++) printf "%s%s: %s\n", format == "markdown" ? "- " : "    ", of[list[i]], list[i]
    if (n > 0) print ""
}

END {
    if (rounds > 0) {
        ratios_to_ceiling()
        pool_beside_inline()
        latencies()
    }
    idle_memory()
    if (rounds > 0) all_figures()
    what_is_missing()
}
