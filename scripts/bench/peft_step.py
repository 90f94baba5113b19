"""The peer: LoRA steps with transformers and PEFT, as a user of these libraries writes them.

Prints one JSON object a step. `cpu_seconds` counts all threads from the start of the process, so that a
reader can take the difference of any two steps.
"""
import argparse
import json
import resource
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="Hugging Face folder")
    parser.add_argument("tokens", help="JSONL with `input_ids`, all of one length")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--micro-batch", type=int, default=4, help="sequences a step")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--quantize", choices=["none", "nf4"], default="none", help="nf4: bitsandbytes, double")
    parser.add_argument("--lora-dtype", choices=["float32", "base"], default="float32", help="PEFT's default: float32")
    parser.add_argument("--checkpointing", action="store_true", help="recompute the blocks in the backward pass")
    parser.add_argument("--compile", action="store_true", help="torch.compile the model")
    return parser.parse_args()


def load(args):
    dtype = getattr(torch, args.dtype)
    quantization = None
    if args.quantize == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype, quantization_config=quantization)
    model.config.use_cache = False
    if args.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    config = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, config, autocast_adapter_dtype=args.lora_dtype == "float32")


def batches(args):
    with open(args.tokens, encoding="utf-8") as file:
        rows = [json.loads(line)["input_ids"] for line in file]
    for start in range(0, args.steps * args.micro_batch, args.micro_batch):
        picked = [rows[(start + i) % len(rows)] for i in range(args.micro_batch)]
        yield torch.tensor(picked)


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main():
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = load(args)
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4, weight_decay=0.0)
    step_model = torch.compile(model) if args.compile else model

    for step, ids in enumerate(batches(args), start=1):
        started = time.perf_counter()
        loss = step_model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        row = {"step": step, "loss": loss.item(), "tokens": ids.numel(),
               "seconds": time.perf_counter() - started, "cpu_seconds": cpu_seconds()}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
