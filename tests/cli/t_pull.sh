#!/bin/bash
# sumi pull and sumi models against the test hub: what is printed, the statuses, stopping and going on, the cache's edges. What
# the library does with each fault is in tests/t_hub_pull.c.
. tests/cli/lib.sh
export HF_HUB_CACHE=$T/none SUMI_CACHE=$T/cache SUMI_MODEL=$T/none.safetensors no_proxy=127.0.0.1,localhost
unset HF_TOKEN

"$BUILD/hubserver" "$T/log" >"$T/ports" &
hub=$!
trap 'kill $hub 2>/dev/null; rm -rf "$T"' EXIT
for _ in $(seq 100); do [ -s "$T/ports" ] && break; sleep 0.05; done
read -r port storage <"$T/ports"
export HF_ENDPOINT=http://127.0.0.1:$port/

"$S" models >"$T/out" 2>"$T/err"
same "no models: status 0" $? 0
check "no models: says how to get one" grep -q 'sumi pull' "$T/err"
same "no models: an empty list" "$("$S" models --json | tr -d '\n')" "[]"

"$S" pull acme/one >"$T/out" 2>"$T/err"
same "pull" $? 0
same "prints the path alone" "$(cat "$T/out")" \
    "$SUMI_CACHE/hub/models--acme--one/snapshots/0000000000000000000000000000000000000001/model.safetensors"
same "the digest that sha256sum computes" "$(basename "$(ls "$SUMI_CACHE"/hub/models--acme--one/blobs/*)")" \
    "$(sha256sum <"$(cat "$T/out")" | cut -d ' ' -f 1)"
check "progress in plain lines with amounts" grep -qE '^pull .*B/300 kB' "$T/err"
check "what it took" grep -q '^1 file, 300 kB$' "$T/err"
"$S" pull acme/one 2>"$T/err" >/dev/null
check "a second time nothing" grep -q '0 B of it fetched now' "$T/err"
same "--quiet" "$("$S" pull acme/folder --quiet 2>&1 | wc -l)" 1
check "--list fetches nothing" test -z "$("$S" pull acme/part --list | grep -v ' [a-z_]*\.')" \
    -a ! -e "$SUMI_CACHE/hub/models--acme--part"
check "a model by its page's address" "$S" pull "${HF_ENDPOINT}acme/many/blob/main/c.ckpt"
check "an address" "$S" pull "http://localhost:$storage/files/one/model.safetensors?key=secret"

"$S" models >"$T/out"
same "models: four of them" "$(wc -l <"$T/out")" 4
check "models: a folder's line" grep -qE '^acme/folder +[0-9.]+ kB .*/snapshots/0+1$' "$T/out"
check "models: an address" grep -qE "^http://localhost:$storage/files/one/model-[0-9a-f]{8}\.safetensors" "$T/out"
same "models --json: the same" "$("$S" models --json | grep -cE '^ \{"name": "[^"]+", "family": "[^"]*", "bytes": [0-9]+, "files": [0-9]+, "finished": true, "shared": false, "path": "[^"]+"\},?$')" 4
"$S" models rm acme/folder acme/many 2>"$T/err"
same "models rm" $? 0
check "models rm says what it freed" grep -qE '^[0-9.]+ kB freed$' "$T/err"
same "models: two are left" "$("$S" models | wc -l)" 2
refuses 1 'not in the cache' models rm acme/folder
refuses 2 'built-in' models rm built-in
refuses 2 'no model' models rm ../../etc
refuses 2 'needs a model' models rm
refuses 2 'neither' models list

refuses 2 'needs a model' pull
refuses 2 'too many' pull a/b c/d
refuses 2 "no model's name" pull model.safetensors
refuses 2 'hexadecimal' pull http://localhost:$storage/x --sha256 12
refuses 2 'with an address' pull acme/one --sha256 "$(printf '%064d' 0)"
refuses 2 'one file' pull http://localhost:$storage/x --variant fp16
refuses 2 'out of range' pull acme/one --tries 0
refuses 2 'insecure-http' pull http://192.0.2.7/x.safetensors
refuses 2 'did you mean --variant' pull acme/one --varient fp16
refuses 2 'name one' pull acme/many --quiet
refuses 1 'not found' pull acme/nothing
refuses 1 'accept' pull acme/gated
refuses 1 '\.\./\.\./x.*refused' pull acme/evil-dotdot
refuses 1 'wrong content' pull acme/wrong --quiet
HF_ENDPOINT=ftp://x refuses 2 'HF_ENDPOINT' pull acme/one
HF_TOKEN='two words' refuses 2 'HF_TOKEN' pull acme/one
HF_ENDPOINT=http://127.0.0.1:1 refuses 1 'no connection' pull acme/one --quiet

# The token: to the hub alone, printed nowhere.
HF_TOKEN=hf_tokenForTests "$S" pull acme/private >"$T/out" 2>"$T/err"
same "private: with the token" $? 0
check "private: the storage did not get the token" bash \
    -c "grep -q '^1 /cdn/private.*auth=0' '$T/log' && ! grep -q '^1 .*auth=1' '$T/log'"
HF_TOKEN=hf_somebodyElse "$S" pull acme/private >>"$T/out" 2>>"$T/err"
check "tokens are not printed" bash -c "! grep -qE 'hf_tokenForTests|hf_somebodyElse' '$T/out' '$T/err'"
check "no token in the cache" bash -c "! grep -rqE 'hf_tokenForTests|hf_somebodyElse' '$SUMI_CACHE'"

# Stopped by a signal, killed, and gone on.
for sig in INT TERM KILL; do
    rm -rf "$SUMI_CACHE/hub/models--acme--slow"
    "$S" pull acme/slow --quiet >"$T/out" 2>"$T/err" &
    job=$!
    part=
    for _ in $(seq 100); do
        part=$(find "$SUMI_CACHE/hub/models--acme--slow" -name '*.part' -size +40k 2>/dev/null)
        [ -n "$part" ] && break
        sleep 0.02
    done
    kill -$sig $job
    wait $job 2>/dev/null
    same "SIG$sig: status" $? $((128 + $(kill -l $sig)))
    [ $sig = KILL ] || check "SIG$sig: one line that says how to go on" bash \
        -c "[ \$(wc -l <'$T/err') = 1 ] && grep -q '^sumi: stopped; the same command goes on' '$T/err'"
    check "SIG$sig: leaves the part" test -s "$part"
    check "SIG$sig: the list says so" grep -qE '^acme/slow .*not finished' <("$S" models)
    "$S" pull acme/slow 2>"$T/err" >"$T/out"
    check "SIG$sig: the next pull goes on" bash -c "grep -qE 'kB of it fetched now' '$T/err' && cmp '$(cat "$T/out")' '$SUMI_CACHE/hub/models--acme--one/snapshots/0000000000000000000000000000000000000001/model.safetensors'"
done

# Disks that do not take it.
(trap '' XFSZ; ulimit -f 100; SUMI_CACHE=$T/small "$S" pull acme/one --quiet >"$T/out" 2>"$T/err")
same "a file that cannot grow: status" $? 1
check "a file that cannot grow: one line" bash -c "[ \$(wc -l <'$T/err') = 1 ] && grep -q 'File too large' '$T/err'"
check "more room, and it goes on" env SUMI_CACHE="$T/small" "$S" pull acme/one --quiet
refuses 1 'GB are free' pull acme/huge --quiet
touch "$T/file"
SUMI_CACHE=$T/file refuses 1 'SUMI_CACHE' pull acme/one --quiet
SUMI_CACHE=/proc/x refuses 1 'SUMI_CACHE' pull acme/one --quiet
if [ "$(id -u)" != 0 ]; then
    mkdir "$T/locked" && chmod 555 "$T/locked"
    SUMI_CACHE=$T/locked refuses 1 'Permission denied.*SUMI_CACHE' pull acme/one --quiet
else
    skip "a cache without the right to write: root may write anywhere"
fi

# A server whose certificate nobody vouches for.
if command -v openssl >/dev/null; then
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext 'subjectAltName=DNS:localhost' \
        -keyout "$T/key" -out "$T/cert" 2>/dev/null
    mkdir "$T/www" && echo weights >"$T/www/x.bin"
    (cd "$T/www" && exec openssl s_server -WWW -accept 127.0.0.1:0 -key "$T/key" -cert "$T/cert") >"$T/tls" 2>&1 &
    tls=$!
    trap 'kill $hub $tls 2>/dev/null; rm -rf "$T"' EXIT
    tls_port=
    for _ in $(seq 100); do
        tls_port=$(sed -n 's/^ACCEPT.*:\([0-9]*\)$/\1/p' "$T/tls")
        [ -n "$tls_port" ] && break
        sleep 0.05
    done
    if [ -n "$tls_port" ]; then
        refuses 1 'certificate is not trusted' pull "https://localhost:$tls_port/x.bin" --quiet
        same "a certificate that is vouched for" \
            "$(SSL_CERT_FILE=$T/cert "$S" pull "https://localhost:$tls_port/x.bin" --quiet --tries 2 | xargs cat)" weights
        SSL_CERT_FILE=$T/cert refuses 1 'certificate is not trusted' pull "https://127.0.0.1:$tls_port/x.bin" --quiet
    else
        skip "certificates: the server's port is not known"
    fi
else
    skip "certificates: openssl is missing"
fi
done_testing
