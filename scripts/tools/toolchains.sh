#!/usr/bin/env bash
# Installs bubblewrap and the toolchains that Debian and Ubuntu have, by apt:
#   scripts/tools/toolchains.sh            all languages of the table (about 11 GB)
#   scripts/tools/toolchains.sh --small    those that the default tests use
#   scripts/tools/toolchains.sh Lua R      some
# What is installed already is left alone, so that a second run changes nothing and needs no rights.
set -euo pipefail
cd "$(dirname "$0")/../.."

python=.venv/bin/python
[ -x "$python" ] || python=python3
packages=$(PYTHONPATH=evals "$python" -m opencoder_eval toolchains --packages "$@")
command -v bwrap >/dev/null || packages="bubblewrap $packages"
if [ -z "${packages// /}" ]; then
    exit 0
fi

if ! command -v apt-get >/dev/null; then
    echo "error: no apt-get here: install these or what your system calls them: $packages" >&2
    exit 2
fi
if [ "$(id -u)" = 0 ]; then
    root=()
elif sudo -n true 2>/dev/null; then
    root=(sudo -n)
else
    echo "error: needs root to install: run 'sudo apt-get install $packages'" >&2
    exit 2
fi
export DEBIAN_FRONTEND=noninteractive
# Lists of packages may be new, old or absent; what they do not have is said by the installation.
"${root[@]}" apt-get update -qq || echo "warning: apt-get update failed; going on with the lists that are there" >&2
# shellcheck disable=SC2086  # a list of words
"${root[@]}" apt-get install -y -qq --no-install-recommends $packages >/dev/null
