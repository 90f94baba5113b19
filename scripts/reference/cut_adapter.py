#!/usr/bin/env python3
"""Cuts two adapters that peft 0.21.2 saved down to fixtures of a few kilobytes.

usage: cut_adapter.py REFERENCE_FOLDER   (holds adapter_final_lora and adapter_final_rslora, which
make_reference.py trains on SmolLM2-135M-Instruct)

Keeps the k and v projections of layer 0 byte by byte and the configuration file as it is. expected.json
holds sums and single values taken by numpy, to compare what Rust reads.
"""
import json, pathlib, shutil, sys
from safetensors.numpy import load_file, save_file

out = pathlib.Path(__file__).resolve().parents[2] / 'tests/fixtures/peft'
expected = {}
for name in ['adapter_final_lora', 'adapter_final_rslora']:
    source, target = pathlib.Path(sys.argv[1]) / name, out / name
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / 'adapter_config.json', target / 'adapter_config.json')
    kept = {k: v for k, v in load_file(source / 'adapter_model.safetensors').items()
            if 'layers.0.self_attn.k_proj' in k or 'layers.0.self_attn.v_proj' in k}
    save_file(kept, target / 'adapter_model.safetensors', metadata={'format': 'pt'})
    expected[name] = {k: dict(shape=list(v.shape), sum=float(v.astype('f8').sum()), last=float(v.flat[-1])) for k, v in sorted(kept.items())}
(out / 'expected.json').write_text(json.dumps(expected, indent=1) + '\n')
