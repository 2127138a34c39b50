# Instructions by room of httpsrv.h, from what callgrind has counted (with names and positions in full), of which -v
# program=PATH is the object. Arguments: httpsrv.h, then one file. Prints lines of room, own instructions, and those of
# the C library where the room calls it.
#
# An instruction belongs to the room in whose lines it was written, wherever the compiler has put it: a function that
# became part of another one counts where it is defined. What a header of the system has put into one of ours counts with
# the line of ours before it.

FILENAME == ARGV[1] {
    if (/^\/\/ >>/) mark = substr($2, 3)
    room[FNR] = mark
    next
}

/^ob=/ { object = called_object = substr($0, 4); next }
/^cob=/ { called_object = substr($0, 5); next }
/^(fl|fi|fe)=/ {
    is_ours = $0 ~ /\/?httpsrv\.h$/
    if (/^fl=/) function_is_ours = is_ours
    next
}
/^fn=/ { here = ""; next }
/^calls=/ { is_call = 1; next }
/^[0-9]/ {
    if (is_ours) here = room[$1]
    if (function_is_ours || is_ours) {
        if (!is_call) own[here] += $2
        else if (called_object != program) library[here] += $2
    }
    if (is_call) called_object = object
    is_call = 0
}

END {
    for (mark in own) printf "%s %d %d\n", mark, own[mark], library[mark]
}
