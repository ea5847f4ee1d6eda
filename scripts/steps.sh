# shellcheck shell=bash
# Sourced by scripts/test and .ci/run: runs named steps, goes on after a failed one, and sums up at the end.

steps_passed=0
steps_failed=0
steps_report=""

# step NAME COMMAND…
step() {
    local name=$1 began=$SECONDS verdict=ok
    shift
    printf '\n==> %s\n' "$name"
    if "$@" </dev/null; then
        steps_passed=$((steps_passed + 1))
    else
        verdict=FAILED
        steps_failed=$((steps_failed + 1))
    fi
    steps_report+=$(printf '%-6s %4d s  %s' "$verdict" "$((SECONDS - began))" "$name")$'\n'
}

# Prints every step with its time; fails when one of them failed.
steps_sum_up() {
    printf '\n%s%d passed, %d failed\n' "$steps_report" "$steps_passed" "$steps_failed"
    [ "$steps_failed" -eq 0 ]
}
