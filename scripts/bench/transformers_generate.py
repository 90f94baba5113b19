"""The peer of `seedcorn generate`: greedy generation with transformers' key/value cache.

Prints a JSON object when the first token is there, and one with the time of the tokens after it.
"""
import argparse
import json
import resource
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.generation.streamers import BaseStreamer


class Clock(BaseStreamer):
    """Notes wall and processor time whenever tokens arrive; the prompt is the first arrival."""

    def __init__(self):
        self.arrivals = []

    def put(self, value):
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.arrivals.append((time.perf_counter(), usage.ru_utime + usage.ru_stime))
        if len(self.arrivals) == 2:
            print(json.dumps({"first": True}), flush=True)

    def end(self):
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="Hugging Face folder")
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--new-tokens", type=int, default=128, help="tokens after the first")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=getattr(torch, args.dtype)).eval()
    inputs = AutoTokenizer.from_pretrained(args.model)(args.prompt, return_tensors="pt")
    clock, count = Clock(), args.new_tokens + 1
    with torch.inference_mode():
        model.generate(**inputs, do_sample=False, max_new_tokens=count, min_new_tokens=count, streamer=clock)
    (start, start_cpu), (end, end_cpu) = clock.arrivals[1], clock.arrivals[-1]
    assert len(clock.arrivals) == 1 + count, len(clock.arrivals)
    print(json.dumps({"seconds": end - start, "cpu_seconds": end_cpu - start_cpu}), flush=True)


if __name__ == "__main__":
    main()
