# Draws what bench/run.sh measured as SVG: requests per second of server CPU as a ratio to the ceiling's, a panel of bars
# for each row. -v about=TEXT says on what; figures.awk comes before it.

BEGIN {
    PANELS = 3 # side by side
    PANEL_WIDTH = 330; NAMES = 96; VALUES = 40; BAR = 15; TITLE = 30; GAP = 24; TOP = 64; MARGIN = 24; LINE = 16
}

function escape(text) {
    gsub(/&/, "\\&amp;", text)
    gsub(/</, "\\&lt;", text)
    return text
}

function write_text(x, y, anchor, size, color, text) {
    printf "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" font-size=\"%d\" fill=\"%s\">%s</text>\n", x, y, anchor, size,
        color, escape(text)
}

function draw_line(x, y, to_x, to_y, color) {
    printf "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", x, y, to_x, to_y, color
}

# The servers of a row that have figures beside the ceiling's, the best first, into `ranked` and their ratios into
# `ratios`, `lows` and `highs`. How many there are.
function rank(row,    i, k, n, server, r) {
    n = 0
    for (i = 1; i <= servers; i++) {
        server = server_at[i]
        if (server == "ceiling" || (r = ratio(row, server, "ceiling", PER_CPU)) <= 0) continue
        for (k = n++; k > 0 && ratios[ranked[k]] < r; k--) ranked[k + 1] = ranked[k]
        ranked[k + 1] = server
        ratios[server] = r
        lows[server] = low
        highs[server] = high
    }
    return n
}

function on_scale(r) {
    return (r < scale ? r : scale) * (PANEL_WIDTH - NAMES - VALUES) / scale
}

function draw_panel(row, x, y, n,    k, server, color, base) {
    write_text(x + NAMES, y + 10, "start", 13, "#1c2024", row)
    write_text(x + PANEL_WIDTH, y + 10, "end", 10, "#444a52", what[row])
    for (k = 1; k <= n; k++) {
        server = ranked[k]
        color = server == "httpsrv" ? "#0b5cad" : "#a8adb5"
        base = y + TITLE + k * BAR - 7
        write_text(x + NAMES - 6, base, "end", 11, server == "httpsrv" ? color : "#444a52", server)
        printf "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", x + NAMES, base - 9,
            on_scale(ratios[server]), BAR - 4, color
        draw_line(x + NAMES + on_scale(lows[server]), base - 3.5, x + NAMES + on_scale(highs[server]), base - 3.5,
            "#1c2024")
        write_text(x + PANEL_WIDTH, base, "end", 11, "#1c2024", sprintf("%.2f", ratios[server]))
    }
    draw_line(x + NAMES, y + TITLE - 6, x + NAMES, y + TITLE + n * BAR, "#444a52")
    draw_line(x + NAMES + on_scale(1), y + TITLE - 6, x + NAMES + on_scale(1), y + TITLE + n * BAR, "#c0392b")
    write_text(x + NAMES + on_scale(1), y + TITLE - 9, "middle", 10, "#c0392b", "1.0")
}

# The scale that all panels have, and how many bars the longest one has.
function measure_panels(    i, k, n) {
    scale = 1.1
    for (i = 1; i <= rows; i++) {
        n = rank(row_at[i])
        if (n == 0) continue
        panel_of[++panels] = row_at[i]
        bars[panels] = n
        for (k = 1; k <= n; k++) if (ratios[ranked[k]] * 1.05 > scale) scale = ratios[ranked[k]] * 1.05
    }
}

END {
    measure_panels()
    width = 2 * MARGIN + PANELS * PANEL_WIDTH + (PANELS - 1) * GAP
    lines = split(about, line, "\n")
    top = TOP + lines * LINE
    for (i = 1; i <= panels; i++) {
        at_x[i] = MARGIN + (i - 1) % PANELS * (PANEL_WIDTH + GAP)
        at_y[i] = top
        if (bars[i] > tallest) tallest = bars[i]
        if (i % PANELS && i < panels) continue
        top += TITLE + tallest * BAR + GAP
        tallest = 0
    }
    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" " \
        "font-family=\"system-ui, sans-serif\">\n", width, top, width, top
    printf "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n"
    write_text(MARGIN, 30, "start", 17, "#1c2024", "Requests per second of server CPU, as a ratio to the ceiling (red)")
    write_text(MARGIN, 50, "start", 12, "#444a52", "Medians of the rounds' ratios; the thin lines go from the least to the " \
        "greatest. More is better.")
    for (i = 1; i <= lines; i++) write_text(MARGIN, 50 + i * LINE, "start", 11, "#444a52", line[i])
    for (i = 1; i <= panels; i++) draw_panel(panel_of[i], at_x[i], at_y[i], rank(panel_of[i]))
    print "</svg>"
}
