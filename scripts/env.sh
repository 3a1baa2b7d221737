# Sourced by the scripts beside this file. Makes .venv once, with nothing but Python and pip:
#
#   prepare [EXTRA...]   afterwards $venv/bin holds tvm_qat with these extras; seconds if it did before
#
# PYTHON names the interpreter to use; else the newest suitable one on PATH is taken.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"

say() { printf 'tvm-qat: %s\n' "$*" >&2; }

suitable() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

find_python() {
    local name
    for name in ${PYTHON:-} python3.13 python3.12 python3.11 python3.10 python3 python; do
        if suitable "$name"; then
            printf '%s\n' "$name"
            return
        fi
    done
    say "needs Python 3.10 to 3.13, and none is on PATH"
    say "install one (https://www.python.org/downloads), or name it: PYTHON=/path/to/python $0"
    return 1
}

make_venv() {
    local python
    python="$(find_python)" || return 1
    say "setting up $venv with $("$python" --version) (a few minutes the first time)"
    rm -rf "$venv"
    # Debian splits ensurepip off: there an outer pip puts one into the environment.
    if "$python" -c 'import ensurepip' >/dev/null 2>&1; then
        "$python" -m venv "$venv"
    else
        "$python" -m venv --without-pip "$venv" &&
            "$python" -m pip --python "$venv/bin/python" --disable-pip-version-check install -q pip
    fi || { say "cannot make $venv; on Debian: apt-get install python3-venv python3-pip"; return 1; }
}

# The extras that .venv was made with, and pyproject.toml as it was then.
stamp_of() {
    printf '%s\n' "$@" | sort -u
    cat "$root/pyproject.toml"
}

install() {
    "$venv/bin/python" -m pip install --disable-pip-version-check --upgrade pip &&
        "$venv/bin/python" -m pip install --disable-pip-version-check -e "$root${1:+[${1// /,}]}"
}

prepare() {
    local stamp="$venv/tvm_qat.stamp" extras
    if ! suitable "$venv/bin/python"; then
        make_venv || return 1
    fi
    # What an earlier call asked for stays in.
    extras="$(printf '%s\n' "$@" $(cat "$venv/tvm_qat.extras" 2>/dev/null) | sort -u | tr '\n' ' ')"
    extras="${extras# }" && extras="${extras% }"
    if [ -f "$stamp" ] && stamp_of $extras | cmp -s - "$stamp"; then
        return 0
    fi
    say "installing tvm_qat${extras:+ with ${extras// /, }}"
    if ! install "$extras" >"$venv/install.log" 2>&1; then
        cat "$venv/install.log" >&2
        say "the installation failed, see above"
        return 1
    fi
    printf '%s\n' $extras >"$venv/tvm_qat.extras"
    stamp_of $extras >"$stamp"
}
