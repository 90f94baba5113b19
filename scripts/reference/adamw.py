"""Prints the numbers in kernels/src/adamw/tests.rs: torch.optim.AdamW and clip_grad_norm_ on the CPU.

Run: python scripts/reference/adamw.py   (torch 2.x)
"""
import torch

def values(x):
    return "[" + ", ".join(str(v) for v in x.numpy()) + "]"

p = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5, 3.0, -0.25]))
grads = [
    torch.tensor([0.1, -0.2, 0.3, 0.0, 1e-6]),
    torch.tensor([-0.5, 0.25, 1e-4, 2.0, 1e-6]),
    torch.tensor([10.0, -20.0, 30.0, -40.0, 0.0]),
]
optim = torch.optim.AdamW([p], lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, foreach=False)
for step, (grad, lr) in enumerate(zip(grads, (0.01, 0.02, 0.005)), start=1):
    optim.param_groups[0]["lr"] = lr
    p.grad = grad.clone()
    optim.step()
    state = optim.state[p]
    print("step", step, "params", values(p.detach()))
    print("   m", values(state["exp_avg"]), "v", values(state["exp_avg_sq"]))

a, b = torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(2))
a.grad, b.grad = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([-4.0, 0.5])
norm = torch.nn.utils.clip_grad_norm_([a, b], 1.5)
print("norm", norm.numpy(), "clipped", values(a.grad), values(b.grad))
