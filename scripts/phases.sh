# Sourced by scripts/test and .ci/run: runs a step under a headline and remembers how long it took.

phase_report=""

# phase NAME COMMAND...: the first failure ends the caller, after the times so far were printed.
phase() {
    local name=$1 began ended status=0
    shift
    printf '\n==> %s\n' "$name"
    began=$(date +%s)
    "$@" || status=$?
    ended=$(date +%s)
    phase_report+=$(printf '%6d s  %s' $((ended - began)) "$name")$'\n'
    if [ "$status" -ne 0 ]; then
        printf '\n==> %s failed with exit code %d\n' "$name" "$status" >&2
        phase_times
        exit "$status"
    fi
    printf '==> %s: %d s\n' "$name" $((ended - began))
}

# phase_times: one line per phase that ran.
phase_times() {
    printf '\nTime by phase (%s):\n%s' "${0##*/}" "$phase_report"
}
