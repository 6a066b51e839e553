# Shared by the scripts beside it: where the tree is, the virtual environment, Debian's packages.
# Sourced with `set -euo pipefail` in force; defines functions and ROOT, and does nothing by itself.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ME=scripts/$(basename "$0")

say() { printf '%s: %s\n' "$ME" "$*"; }

die() {
    printf '%s: %s\n' "$ME" "$*" >&2
    exit 1
}

# The first Python on PATH that is new enough; PYTHON=... picks one.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    die "no Python 3.11 or newer on PATH; install one, or name it: PYTHON=/path/to/python3.11 $ME"
}

# use_environment EXTRAS: have `$python` be an interpreter with this project and EXTRAS ("" or "test,check") installed.
# .venv is made once and left alone while pyproject.toml stays the same. VENV=... names an environment of your own,
# which is used as it is: nothing is installed into it.
use_environment() {
    local extras=$1 venv stamp wanted
    if [ -n "${VENV:-}" ]; then
        [ -x "$VENV/bin/python" ] || die "VENV=$VENV is no virtual environment: $VENV/bin/python is missing"
        python=$VENV/bin/python
        return
    fi
    venv=$ROOT/.venv
    python=$venv/bin/python
    stamp=$venv/installed${extras:+-${extras//,/-}}
    # The path is part of it: an environment does not survive its folder being moved.
    wanted="$(cksum <"$ROOT/pyproject.toml") $venv"
    if [ -x "$python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    make_environment "$venv"
    say "installing ${extras:+with the extras $extras }into .venv (once; about a minute)"
    "${pip[@]}" install --disable-pip-version-check --editable "$ROOT${extras:+[$extras]}"
    printf '%s\n' "$wanted" >"$stamp"
}

# make_environment DIR: an empty virtual environment and, in `pip`, the command that installs into it.
# Debian's Python has no ensurepip without python3-venv; then the Python's own pip installs into the environment.
make_environment() {
    local venv=$1 base
    pip=("$venv/bin/python" -m pip)
    if "${pip[@]}" --version >/dev/null 2>&1 && [ "$("$venv/bin/python" -c 'import sys; print(sys.prefix)')" = "$venv" ]; then
        return
    fi
    base=$(find_python)
    say "making .venv with $base ($("$base" -c 'import platform; print(platform.python_version())'))"
    if "$base" -c 'import ensurepip' 2>/dev/null; then
        "$base" -m venv --clear "$venv"
        return
    fi
    "$base" -m venv --clear --without-pip "$venv"
    "$base" -m pip --version >/dev/null 2>&1 || die "$base has no pip; install it: sudo apt-get install -y python3-pip"
    pip=("$base" -m pip --python "$venv/bin/python")
}

# The servers and tools the tests run against, as `program:package`; tests/services/requirements.py holds the same list.
SERVERS=(
    mariadbd:mariadb-server mariadb-install-db:mariadb-server nginx:nginx-light haproxy:haproxy
    wrk:wrk ab:apache2-utils valgrind:valgrind perf:linux-perf openssl:openssl gcc:build-essential
    apache2:libapache2-mod-wsgi-py3 curl:curl javac:default-jdk-headless java:default-jdk-headless
)

# Install the packages whose programs are missing. Without root: say which single command does it and go on (the tests
# that need them are then skipped); with CI=true a missing package is an error.
install_servers() {
    local pair missing=() command
    for pair in "${SERVERS[@]}"; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    has_headers || missing+=(python3-dev)
    [ ${#missing[@]} -gt 0 ] || return 0
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
    command="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "missing: ${missing[*]}; the tests that need them are skipped. To install them: sudo sh -c '$command'"
        [ "${CI:-}" != true ] || die "with CI=true nothing may be missing"
        return 0
    fi
    say "installing Debian packages: ${missing[*]}"
    keep_services_stopped sh -c "$command" || die "apt-get failed; see above"
}

# Whether the Python in use can compile extension modules. Only Debian's has its headers in a package of their own.
has_headers() {
    local base
    base=${VENV:+$VENV/bin/python}
    "${base:-$(find_python)}" - <<'EOF_PYTHON'
import os, sys, sysconfig
found = os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))
sys.exit(not found and sys.base_prefix == "/usr")
EOF_PYTHON
}

# Run a command while Debian's packages do not start the servers they bring: the tests start their own, and a server
# on port 80 or 3306 is nothing a test run should leave behind.
keep_services_stopped() {
    local policy=/usr/sbin/policy-rc.d status=0
    if [ -e "$policy" ]; then
        DEBIAN_FRONTEND=noninteractive "$@" </dev/null || status=$?
        return $status
    fi
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    DEBIAN_FRONTEND=noninteractive "$@" </dev/null || status=$?
    rm -f "$policy"
    trap - EXIT
    return $status
}

# Format, lint, types: what scripts/check and scripts/test have in common.
static_checks() {
    say "format (ruff format --check)"
    "$python" -m ruff format --check --quiet . || die "badly formatted files; to mend them: $python -m ruff format"
    say "lint (ruff check)"
    "$python" -m ruff check --quiet .
    say "types (mypy --strict)"
    "$python" -m mypy
}
