#!/usr/bin/env bash
# Installs the libzmq releases that the interoperability tests talk to: DIR/VERSION/libzmq-*.so, with its libsodium beside it.
# They are the libraries inside Linux wheels of the Python binding, of which nothing else is kept. Does nothing that is done
# already.
set -euo pipefail

dir=${1:?usage: setup-libzmq.sh DIR}
python=${PYTHON:-python3}

# libzmq, wheel, tags of the wheel (Python, ABI, platform), sha256 of the wheel
releases='
4.3.5 pyzmq==27.3.0 312 abi3  manylinux_2_28_x86_64  858fe25231e0fd8612da142efde019faa5ef63fa150a821a27870e791b38c798
4.3.4 pyzmq==22.3.0 39  cp39  manylinux2010_x86_64   cf98fd7a6c8aaa08dbc699ffae33fd71175696d78028281bc7b832b26f00ca57
4.3.2 pyzmq==19.0.2 38  cp38  manylinux1_x86_64      654d3e06a4edc566b416c10293064732516cf8871a4522e0a2ba00cc2a2e600c
4.2.5 pyzmq==17.1.2 37  cp37m manylinux1_x86_64      76ea493bfab18dcb090d825f3662b5612e2def73dffc196d51a5194b0294a81d
4.1.6 pyzmq==16.0.4 36  cp36m manylinux1_x86_64      5f4c356d278a1017caeec91194b499f550a2c16cf2cb0c6a5ce7f1b3dff8d323
'

if [[ $(uname -sm) != "Linux x86_64" ]]; then
    echo "The old releases of libzmq exist as wheels for Linux on x86-64 only; this is $(uname -sm)." >&2
    exit 1
fi

while read -r version wheel tag abi platform sum; do
    [[ -z $version || -d $dir/$version ]] && continue
    echo "installing libzmq $version into $dir"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    echo "$wheel --hash=sha256:$sum" >"$work/requirements"
    # Wheels for more recent systems carry several platforms; any of them names the same file.
    if ! "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
        --implementation cp --python-version "$tag" --abi "$abi" --platform "$platform" \
        --requirement "$work/requirements" --dest "$work"; then
        echo "Could not download $wheel. With a package index within reach, run this again:" >&2
        echo "  $0 $dir" >&2
        exit 1
    fi
    "$python" -m zipfile -e "$work"/*.whl "$work/content"
    mkdir -p "$work/$version" "$dir"
    find "$work/content" \( -name 'libzmq*.so*' -o -name 'libsodium*.so*' \) -exec mv {} "$work/$version" \;
    # In place at once and whole, so that a run that was stopped is begun again.
    cp -r "$work/$version" "$dir/.$version.$$"
    mv "$dir/.$version.$$" "$dir/$version"
    rm -rf "$work"
done <<<"$releases"
