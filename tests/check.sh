# For test scripts, which start with `. tests/check.sh` at the top of the repository: `check NAME COMMAND...`
# runs one test, `skip NAME REASON` leaves one out, `finish` prints the closing line and exits.

passed=0
failed=0
scratch=$(mktemp -d "${TMPDIR:-/tmp}/httpsrv-check.XXXXXX") || exit 2
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

# The command fails with its exit status. What it printed is shown then.
check() {
    name=$1
    shift
    if "$@" >"$scratch/check.log" 2>&1; then
        passed=$((passed + 1))
        echo "ok   $name"
    else
        failed=$((failed + 1))
        echo "FAIL $name"
        sed 's/^/     /' "$scratch/check.log"
    fi
}

skip() {
    echo "SKIP $1"
    echo "     $2"
}

finish() {
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
    exit
}
