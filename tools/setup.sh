#!/bin/bash
# Installs the Debian packages that sumi needs and this machine lacks: `tools/setup.sh build` or `tools/setup.sh build test`.
# This is the one place that lists them. Without the build set nothing can be made, so that it cannot be installed is an
# error; without the test set the parts of the suite that need it are skipped, and counted as skipped.
set -u
build="gcc libc6-dev make libpng-dev libjpeg62-turbo-dev libwebp-dev libcjson-dev zlib1g-dev libcurl4-openssl-dev libssl-dev"
test="gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user clang libclang-rt-14-dev pkg-config"

missing() { # of the packages given, those not installed
    local p
    for p in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || echo -n "$p "
    done
}

become_root() { # prints the words that run a command as root; fails where nobody may
    if [ "$(id -u)" = 0 ]; then
        echo env
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        echo sudo -n
    elif command -v sudo >/dev/null && [ -t 0 ] && [ -t 2 ]; then
        echo sudo
    else
        return 1
    fi
}

apt() { # as_root... -- packages...: the lists may be older than the archive, so a failure asks for new ones and tries again
    local as="$1" get="DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3"
    shift
    $as $get install -y --no-install-recommends "$@" </dev/null >"$log" 2>&1 && return 0
    $as $get update </dev/null >>"$log" 2>&1
    $as $get install -y --no-install-recommends "$@" </dev/null >>"$log" 2>&1
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
for set in "${@:-build}"; do
    case $set in build) want=$build ;; test) want=$test ;; *) echo "setup: unknown set $set (build, test)" >&2; exit 2 ;; esac
    if ! command -v dpkg-query >/dev/null; then
        echo "setup: not a Debian system; sumi needs what these Debian packages hold: $want" >&2
        continue
    fi
    lack=$(missing $want)
    [ -n "$lack" ] || continue
    why="this user may not install packages"
    if as=$(become_root); then
        echo "setup: installing $lack" >&2
        [ "$as" != env ] && as="$as env"
        apt "$as" $lack
        lack=$(missing $want)
        [ -n "$lack" ] || continue
        why="apt-get says: $(grep -m1 '^E:' "$log" || tail -n1 "$log")"
    fi
    echo "setup: missing packages: ${lack% } ($why); as root: apt-get install ${lack% }" >&2
    [ "$set" = test ] || exit 1
done
exit 0
