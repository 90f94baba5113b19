#!/usr/bin/env python3
"""Ten steps of LoRA training of tiny models with PEFT: what `tests/parity/training.rs` compares with.

  python make_tiny_training.py MODELS OUT [CASE ...]

MODELS  folder made by make_tiny_models.py (llama and qwen3 are read)
OUT     gets batches.jsonl (the samples of all steps in order, format `tokens`) and, per case,
        CASE/adapter_config.json, CASE/adapter_model.safetensors   the adapter before step 1
        CASE/final.safetensors                                     its tensors after the last step
        CASE/training.json                                         loss and gradient norm (before clipping) per step
Everything is f32, attention is eager. A batch is right-padded; its loss is the mean over its targets. The rows
have different lengths and different numbers of targets.
"""
import argparse, json, os, pathlib, shutil
os.environ['HF_HUB_OFFLINE'] = '1'; os.environ.setdefault('OMP_NUM_THREADS', '1')
import torch, transformers, peft, bitsandbytes
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
import bnb_portable

NF4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32)
CASES = {
    'llama-lora':     ('llama', {}, None),
    'llama-rslora':   ('llama', dict(use_rslora=True), None),
    'llama-patterns': ('llama', dict(rank_pattern={'q_proj': 2, 'layers.1.mlp.down_proj': 6}, alpha_pattern={'v_proj': 16, 'layers.1.mlp.down_proj': 3}), None),
    'llama-nf4':      ('llama', {}, NF4),
    'qwen3-lora':     ('qwen3', {}, None),
}
ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument('models'); ap.add_argument('out'); ap.add_argument('cases', nargs='*', metavar='CASE', help='all by default')
args = ap.parse_args()
if set(args.cases) - set(CASES): ap.error(f'unknown case {sorted(set(args.cases) - set(CASES))[0]}; there are {" ".join(CASES)}')
bnb_portable.use()
torch.set_num_threads(int(os.environ['OMP_NUM_THREADS'])); torch.use_deterministic_algorithms(True, warn_only=True)
STEPS, ROWS, LONGEST, LR, DECAY, CLIP = 10, 4, 24, 1e-3, 0.01, 1.0
TARGETS = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']
OUT = pathlib.Path(args.out); OUT.mkdir(parents=True, exist_ok=True)
VOCAB = min(json.loads((pathlib.Path(args.models) / m / 'config.json').read_text())['vocab_size'] for m in ('llama', 'qwen3'))

g = torch.Generator().manual_seed(20)
def sample():
    n = int(torch.randint(6, LONGEST + 1, (1,), generator=g)); masked = int(torch.randint(0, n - 1, (1,), generator=g))
    ids = torch.randint(3, VOCAB, (n,), generator=g).tolist()
    return dict(input_ids=ids, labels=[-100] * masked + ids[masked:])
steps = [[sample() for _ in range(ROWS)] for _ in range(STEPS)]
(OUT / 'batches.jsonl').write_text(''.join(json.dumps(s) + '\n' for step in steps for s in step))

def batch(rows):
    ids = torch.zeros(len(rows), LONGEST, dtype=torch.long); mask = torch.zeros_like(ids); labels = torch.full_like(ids, -100)
    for i, r in enumerate(rows):
        n = len(r['input_ids']); ids[i, :n] = torch.tensor(r['input_ids']); labels[i, :n] = torch.tensor(r['labels']); mask[i, :n] = 1
    return dict(input_ids=ids, attention_mask=mask, labels=labels)

for name in args.cases or CASES:
    model, lora, quantization = CASES[name]
    m = AutoModelForCausalLM.from_pretrained(pathlib.Path(args.models) / model, dtype=torch.float32, attn_implementation='eager', quantization_config=quantization)
    torch.manual_seed(42)
    m = get_peft_model(m, LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, bias='none', task_type='CAUSAL_LM', target_modules=TARGETS, **lora))
    m.train()   # no dropout anywhere; in eval mode bitsandbytes on the CPU repacks 4-bit weights
    m.peft_config['default'].base_model_name_or_path = model
    d = OUT / name; shutil.rmtree(d, ignore_errors=True)
    m.save_pretrained(d); (d / 'README.md').unlink(missing_ok=True)
    cfg = d / 'adapter_config.json'; c = json.loads(cfg.read_text()); c['target_modules'].sort(); cfg.write_text(json.dumps(c, indent=2))   # a set
    trained = [p for p in m.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(trained, lr=LR, betas=(.9, .999), eps=1e-8, weight_decay=DECAY)
    rec = dict(model=model, lr=LR, weight_decay=DECAY, max_grad_norm=CLIP, rows=ROWS, loss=[], grad_norm=[])
    for rows in steps:
        loss = m(**batch(rows)).loss; loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, CLIP)
        rec['loss'].append(loss.item()); rec['grad_norm'].append(norm.item())
        opt.step(); opt.zero_grad()
    save_file({k: v.contiguous() for k, v in get_peft_model_state_dict(m).items()}, d / 'final.safetensors')
    rec['versions'] = dict(torch=torch.__version__, transformers=transformers.__version__, peft=peft.__version__, bitsandbytes=bitsandbytes.__version__)
    (d / 'training.json').write_text(json.dumps(rec, indent=1))
    print(name, [round(x, 4) for x in rec['loss']], [round(x, 3) for x in rec['grad_norm']], flush=True)
