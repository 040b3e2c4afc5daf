#!/bin/bash
# Installs the programs that sumi is compared with into a throw-away folder: `tools/peers/build.sh [--torch PYTHON] DIR
# [PEER...]`.
# Peers: torch, onnx, openvino, sdcpp, libs; all of them without a name. By hand only, never by make; DIR can be deleted at any
# time.
# What one peer's part fails at is said and the others go on; the exit status tells.
#
# DIR takes some 14 GB: torch's default wheel with its CUDA libraries 5.7 (--torch PYTHON re-uses torch, diffusers and safetensors
# of another environment's interpreter; PyTorch's own index has a wheel without CUDA, 1 GB: PIP_EXTRA_INDEX_URL), the other
# packages 0.7, the model of SD 1.5's shapes in f16 2.1, its ONNX form in f32 3.6, the int8 form 1, stable-diffusion.cpp 0.3.
# Leave the export 8 GB of memory; stable-diffusion.cpp has a source file of vocabularies with 130 MB, which takes a compiler long
# and some GB too.
# Variables: NICE=19 how nicely the compilers run, JOBS=1 how many of them, SUMI_BUILD=build where bigtest is.
set -u
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
SDCPP=0.4.7 # of stable-diffusion-cpp-python: its header is what sdcpp.c is written against
reuse=
if [ "${1:-}" = --torch ]; then
    reuse=$2
    shift 2
fi
[ $# -ge 1 ] || { sed -n '2,4p' "$0" >&2; exit 2; }
mkdir -p "$1" && dir=$(cd "$1" && pwd) || exit 1
shift
[ $# -gt 0 ] || set -- torch onnx openvino sdcpp libs
py=$dir/venv/bin/python
nicely() { nice -n "${NICE:-19}" "$@"; }
pip() { nicely "$py" -m pip --disable-pip-version-check install -q "$@"; }

model() { # full-size weights by a formula (tests/big/bigmodel.h), in diffusers' layout
    [ -s "$dir/model/vae/diffusion_pytorch_model.safetensors" ] && return
    local prog=${SUMI_BUILD:-$top/build}/bigtest
    [ -x "$prog" ] || { echo "peers: no $prog: make build/bigtest first" >&2; return 1; }
    "$prog" make sd15 "$dir/model"
}

environment() {
    [ -x "$py" ] && return
    nicely "${reuse:-python3}" -m venv "$dir/venv" || return 1
    [ -n "$reuse" ] || return 0
    local site='import site; print(*site.getsitepackages(), sep="\n")'
    "$reuse" -c "$site" >"$("$py" -c "$site" | head -n 1)/reused.pth"
}

build_torch() {
    environment || return 1
    "$py" -c 'import torch, diffusers, safetensors, accelerate' 2>/dev/null || pip torch diffusers transformers safetensors accelerate
}

export_onnx() { # the decoder's file is written last
    [ -s "$dir/onnx/vae/model.onnx" ] || nicely env OMP_NUM_THREADS=1 "$py" "$here/peer.py" export "$dir/model" "$dir/onnx"
}
build_onnx() { build_torch && pip onnx onnxscript onnxruntime && export_onnx; }

# int8 is that of nncf's weight compression, which needs no data. --no-deps: openvino-telemetry would report to its makers.
build_openvino() {
    build_torch && pip onnx onnxscript && pip --no-deps openvino nncf &&
        pip 'networkx<=3.6.1' 'ninja<1.14' 'pydot<=4.0.1' packaging psutil rich safetensors scikit-learn scipy tabulate && export_onnx || return 1
    [ -s "$dir/onnx/vae/int8.xml" ] || nicely "$py" "$here/peer.py" int8 "$dir/onnx"
}

# A library for each option of ggml, and sdcpp.c linked to it.
build_sdcpp() {
    local src=$dir/sdcpp/vendor/stable-diffusion.cpp name option to launcher=
    if [ ! -d "$src" ]; then
        environment && nicely "$py" -m pip --disable-pip-version-check download -q --no-deps --no-binary stable-diffusion-cpp-python \
            "stable-diffusion-cpp-python==$SDCPP" -d "$dir/dl" || return 1
        mkdir -p "$dir/sdcpp" && tar xzf "$dir/dl/stable_diffusion_cpp_python-$SDCPP.tar.gz" -C "$dir/sdcpp" --strip-components=1 || return 1
    fi
    command -v ccache >/dev/null && launcher="-DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache"
    for name in stock llamafile; do
        [ $name = llamafile ] && option=ON || option=OFF
        to=$dir/build-sdcpp-$name
        {
            nicely cmake -S "$src" -B "$to" -DCMAKE_BUILD_TYPE=Release -DSD_BUILD_SHARED_LIBS=ON -DSD_BUILD_EXAMPLES=OFF \
                -DGGML_LLAMAFILE=$option $launcher &&
                nicely cmake --build "$to" -j "${JOBS:-1}" &&
                gcc -O2 -Wall -I"$src/include" -o "$to/peer" "$here/sdcpp.c" -L"$to/bin" -lstable-diffusion -Wl,-rpath,"$to/bin"
        } >"$to.log" 2>&1 || { echo "peers: see $to.log" >&2; return 1; }
    done
}

# Debian's OpenBLAS, BLIS and oneDNN, unpacked but not installed: LD_LIBRARY_PATH=DIR/libs build/bench_rivals
build_libs() {
    local deb x=$dir/libs/deb/x
    mkdir -p "$dir/libs/deb" && (cd "$dir/libs/deb" && apt-get download -q libopenblas0-pthread libblis4-pthread libdnnl2 \
        libgfortran5 libgomp1 ocl-icd-libopencl1 >/dev/null 2>&1) || return 1
    for deb in "$dir"/libs/deb/*.deb; do dpkg-deb -x "$deb" "$x" || return 1; done
    find "$x" -regex '.*/lib\(openblas\|blis\|dnnl\|gfortran\|gomp\|OpenCL\)[^/]*\.so[^/]*' ! -name '*.gz' -exec cp -P {} "$dir/libs/" \;
}

failed=0
for peer in "$@"; do
    case $peer in torch | onnx | openvino | sdcpp | libs) ;; *) echo "peers: no peer $peer: torch, onnx, openvino, sdcpp, libs" >&2; exit 2 ;; esac
    if { [ "$peer" = libs ] || model; } && "build_$peer"; then
        echo "peers: $peer is there"
    else
        echo "peers: $peer FAILED" >&2
        failed=1
    fi
done
exit $failed
