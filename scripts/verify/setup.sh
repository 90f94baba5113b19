#!/usr/bin/env bash
# Makes a virtual environment with the libraries that our exports must load in.
#
#   scripts/verify/setup.sh [FOLDER]     default: ~/.cache/seedcorn/venv-verify
#
# PyPI's torch brings CUDA libraries (about 3 GB on disk). Where the smaller CPU build can be reached:
#   TORCH_INDEX=https://download.pytorch.org/whl/cpu scripts/verify/setup.sh
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/seedcorn/venv-verify}
case "$(realpath -m "$folder")/" in
"$repository"/*)
    echo "error: \`$folder\` is inside the repository; choose a folder outside" >&2
    exit 2
    ;;
esac

"${PYTHON:-python3}" -m venv "$folder"
pip=("$folder/bin/python" -m pip --disable-pip-version-check install --quiet)
if [ -n "${TORCH_INDEX:-}" ]; then
    "${pip[@]}" --index-url "$TORCH_INDEX" torch
else
    "${pip[@]}" torch
fi
"${pip[@]}" transformers==5.23.0 peft==0.21.2 safetensors numpy 'cyclonedx-python-lib[json-validation]==11.12.0'
"$folder/bin/python" -c 'import torch, transformers, peft
print("torch", torch.__version__, "transformers", transformers.__version__, "peft", peft.__version__)'
echo "run the checks with $folder/bin/python"
