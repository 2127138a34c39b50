#!/bin/sh
# Explores the models in tests/model with spin (package spin), every state of them: first as httpsrv.h is, then with
# each of the mistakes that a model lists, which has to be found out as the thing it is. Needs spin and a C compiler.
#
#     tests/model.sh                     all
#     tests/model.sh parking             what begins with these words
#     tests/model.sh 'wakeup LOOK'       likewise; the steps that lead to a mistake are shown with -v in front
#
# A run takes at most 1.5 GB of memory.

cd "$(dirname "$0")/.." || exit 2
command -v spin >/dev/null || {
    echo 'spin is missing: apt-get install spin' >&2
    exit 2
}
. tests/check.sh

: "${CC:=cc}"
verbose=
[ "$1" != -v ] || { verbose=1 && shift; }
only=${1:-}
models=$PWD/tests/model

# ---- one run ----

# explore MODEL SPIN-FLAGS CC-FLAGS PAN-FLAGS: leaves the verifier's report in $scratch/run/out
explore() {
    rm -rf "$scratch/run" && mkdir "$scratch/run" && cd "$scratch/run" || exit 2
    : >out
    spin -P"$CC -E -x c" $2 -a "$models/$1.pml" >log 2>&1 && ! grep -qi error log &&
        $CC $3 -w -DCOLLAPSE -DMEMLIM=1500 -o pan pan.c >>log 2>&1 && ./pan -m100000 $4 >out 2>>log
    cd "$models/../.." || exit 2
}

# What the run has found: the property that does not hold, "nothing", or "?" when it did not go to its end.
found() {
    run=$scratch/run/out
    name=$(sed -n 's/^pan:1: assertion violated  *!( *\([a-z]*\) *).*/\1/p' "$run")
    if [ -n "$name" ]; then
        echo "$name"
    elif grep -q '^pan:1: invalid end state' "$run"; then
        echo stuck
    elif grep -q '^pan:1: non-progress cycle' "$run"; then
        echo endless
    elif grep -q 'errors: 0$' "$run" && ! grep -qi -e '^pan:1' -e 'not completed' -e 'too small' "$run"; then
        echo nothing
    else
        echo '?'
    fi
}

states() {
    sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' "$scratch/run/out"
}

# Steps that were never taken, but for the last one of a process without an end. There should be none: a property of
# what never happens says nothing.
unreached() {
    sed -n 's/^\t.*:\([0-9]*\), state [0-9]*, "\(.*\)"$/line \1: never reached: \2/p' "$scratch/run/out" |
        grep -v -e '"-end-"' -e ' -end-$'
}

# The way to the mistake in the models' own lines, behind the process and its number.
show_steps() {
    spin -P"$CC -E -x c" $2 -k "$scratch/run/$1.pml.trail" -t -p "$models/$1.pml" 2>&1 | sed -n \
        's|^ *[0-9]*:.proc *\([0-9]*\) (\([a-z]*\):1) .*/\([a-z_]*\.pml\):\([0-9]*\) .*|\2 \1 \3 \4|p' | uniq |
        awk -v models="$models" '
            function load(file,    path, n) {
                path = models "/" file
                while ((getline text[file, ++n] < path) > 0) {}
                loaded[file] = 1
            }
            {
                if (!($3 in loaded)) load($3)
                sub(/^ +/, "", text[$3, $4])
                printf "     %-11s %-20s %s\n", $1 " " $2, $3 ":" $4, text[$3, $4]
            }
        '
}

pass() {
    passed=$((passed + 1))
    printf 'ok   %-34s %10s states, %s\n' "$1" "$(states)" "$2"
}

fail() {
    failed=$((failed + 1))
    printf 'FAIL %-34s %10s states, %s\n' "$1" "$(states)" "$2"
    cat "$scratch/run/log"
}

wanted() {
    case $1 in
    "$only"*) ;;
    *) return 1 ;;
    esac
}

# ---- as it is ----

safety='-O2 -DSAFETY'
liveness='-O2 -DNP -DNFAIR=3'

# holds NAME MODEL SPIN-FLAGS: nothing is found, and every step of the model was taken
holds() {
    wanted "$1" || return
    explore "$2" "$3" "$safety" ''
    what=$(found)
    never=$(unreached)
    if [ "$what" = nothing ] && [ -z "$never" ]; then
        pass "$1" 'all is well'
    else
        fail "$1" "found: $what"
        [ -z "$never" ] || echo "$never"
        [ "$what" = nothing ] || show_steps "$2" "$3"
    fi
}

# ends NAME MODEL SPIN-FLAGS: whoever gets turns comes to an end
ends() {
    wanted "$1" || return
    explore "$2" "$3" "$liveness" '-l -f'
    what=$(found)
    if [ "$what" = nothing ]; then
        pass "$1" 'it ends'
    else
        fail "$1" "found: $what"
        show_steps "$2" "$3"
    fi
}

# ---- broken ----

# broken NAME MODEL SPIN-FLAGS PROPERTY: the property, and no other, is found not to hold
broken() {
    wanted "$1" || return
    if [ "$4" = endless ]; then
        explore "$2" "$3" '-O0 -DNP -DNFAIR=3' '-l -f -w20'
    else
        explore "$2" "$3" '-O0 -DSAFETY' -w20
    fi
    what=$(found)
    if [ "$what" = "$4" ]; then
        pass "$1" "found: $what"
    else
        fail "$1" "found: $what, wanted: $4"
    fi
    [ -z "$verbose" ] || show_steps "$2" "$3"
}

# variants MODEL WAY: "NAME NUMBER PROPERTY" of each, without those for another way
variants() {
    sed -n 's|^#define \([A-Z_]*\) *\([0-9]*\) *// \([a-z]*\)\( ([a-z]*)\)*: .*|\1 \2 \3\4|p' "$models/$1.pml" |
        awk -v way="($2)" 'NF == 3 || $4 == way { print $1, $2, $3 }'
}

# all_broken NAME MODEL WAY SPIN-FLAGS FEW: FEW makes the model smaller where the search is a long one
all_broken() {
    variants "$2" "$3" >"$scratch/variants"
    while read -r variant number property <&3; do
        size=
        [ "$property" != endless ] || size=$5
        broken "$1 $variant" "$2" "$4 $size -DVARIANT=$number" "$property"
    done 3<"$scratch/variants"
}

few='-DPRODUCERS=1 -DJOBS=2'
holds 'parking' parking ''
holds 'parking, ring of 2' parking '-DRING=2'
holds 'parking, 3 workers' parking '-DWORKERS=3 -DJOBS=1'
holds 'parking, stopped amid' parking '-DSTOP_AMID -DJOBS=1'
ends 'parking, fair' parking "-DRING=2 $few"
all_broken 'parking' parking '' '' "$few"

holds 'parking, batches' parking '-DBATCH=2'
holds 'parking, batches, ring of 2' parking '-DBATCH=2 -DRING=2'
broken 'parking, batches OFFERS_FORGOTTEN' parking '-DBATCH=3 -DRING=2 -DPRODUCERS=1 -DJOBS=3 -DVARIANT=21' stranded

few='-DPRODUCERS=1 -DMESSAGES=1'
holds 'wakeup' wakeup ''
ends 'wakeup, fair' wakeup "$few"
all_broken 'wakeup' wakeup own -DMESSAGES=1 -DPRODUCERS=1
holds 'wakeup by host' wakeup -DHOST
ends 'wakeup by host, fair' wakeup "-DHOST $few"
all_broken 'wakeup by host' wakeup host '-DHOST -DMESSAGES=1' -DPRODUCERS=1

few='-DREACTORS=1 -DREQUESTS=5'
holds 'room' room ''
holds 'room, 1 worker' room '-DWORKERS=1 -DREQUESTS=3'
ends 'room, fair' room "$few"
all_broken 'room' room '' '' "$few"
finish
