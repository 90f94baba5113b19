#!/usr/bin/env python3
"""GGUF -> HF folders through transformers' own GGUF loader: a second opinion on fetch_model.py.

  python convert_with_transformers.py FILE.gguf OUT      writes OUT-f32 and OUT-bf16
"""
import argparse, os, time
ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument('gguf'); ap.add_argument('out')
args = ap.parse_args()
gguf, out = args.gguf, args.out
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
t=time.time()
d, f = os.path.split(gguf)
m = AutoModelForCausalLM.from_pretrained(d, gguf_file=f, dtype=torch.float32)
print('loaded', time.time()-t, type(m).__name__, m.config)
# transformers 5.x marks a GGUF load as quantized and refuses to save it: drop the mark (weights are plain f32)
m.hf_quantizer = None; m.is_quantized = False
for a in ('quantization_method',):
    if hasattr(m, a): setattr(m, a, None)
if hasattr(m.config, 'quantization_config'): del m.config.quantization_config
m.save_pretrained(out + '-f32')
m.to(torch.bfloat16).save_pretrained(out + '-bf16')
t=time.time()
tok = AutoTokenizer.from_pretrained(d, gguf_file=f)
print('tok', time.time()-t, type(tok).__name__, len(tok), tok.special_tokens_map)
for s in ('-f32','-bf16'):
    tok.save_pretrained(out+s)
