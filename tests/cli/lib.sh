# What the scripts beside this file share: checks that count, and the closing line. Sourced, with the repository as the
# working folder; $S is the command, $T an empty folder that is removed at the end.
BUILD=${BUILD:-build}
S=$PWD/$BUILD/sumi
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
p=0 f=0 s=0
good() { p=$((p + 1)) && echo "ok      $*"; }
bad() { f=$((f + 1)) && echo "FAILED  $*"; }
skip() { s=$((s + 1)) && echo "skipped $*"; }
check() { # NAME COMMAND...: good when the command is
    local name=$1
    shift
    if "$@" >"$T/.out" 2>&1 </dev/null; then good "$name"; else tail -n 5 "$T/.out"; bad "$name"; fi
}
same() { if [ "$2" = "$3" ]; then good "$1"; else echo "  '$2' is not '$3'" && bad "$1"; fi; }
# STATUS PATTERN ARGUMENTS...: the command ends with the status, says nothing on standard output, and exactly one line that
# begins with "sumi: " and matches the pattern on standard error.
refuses() {
    local want=$1 pattern=$2 rc
    shift 2
    "$S" "$@" >"$T/.out" 2>"$T/.err" </dev/null
    rc=$?
    if [ $rc = "$want" ] && [ ! -s "$T/.out" ] && [ "$(wc -l <"$T/.err")" = 1 ] && grep -qE "^sumi: .*($pattern)" "$T/.err"; then
        good "refuses: $(printf '%.60s' "$*" | tr '\n' ' ')"
    else
        echo "  status $rc, wanted $want; standard error (wanted: $pattern):" && head -n 5 "$T/.err" | cut -c 1-300
        bad "refuses: $(printf '%.60s' "$*" | tr '\n' ' ')"
    fi
}
have_model() { ls models/*/*.safetensors >/dev/null 2>&1; }
done_testing() {
    if [ $s = 0 ]; then echo "$p passed, $f failed"; else echo "$p passed, $f failed, $s skipped"; fi
    [ $f = 0 ]
}
