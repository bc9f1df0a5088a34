"""The planner's memory against real training steps, in a process of its own for each configuration.

    OMP_NUM_THREADS=1 python benchmarks/plan_memory.py [--only 0,3] [--json FILE]

Measured is the growth of the peak resident memory (VmHWM, set back before the model is built) over two whole
steps on the CPU: model, average and AdamW as the loop has them, a step of warm-up for the moments, then the
step that counts. glibc is told to take every tensor straight from the system and to hand it back when it is
freed, so that the peak is what was alive and not what the allocator kept. Beside it stands the peak of
torch's own allocations in the same step (the profiler's allocation and release events): exact to the byte,
without the scratch space of the matrix kernels. Resident memory is what a machine runs out of; the second
number tells a wrong formula from a kernel's scratch.
Text encoders and autoencoder are left out here: they are frozen, and their sizes are tested by themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

MEBIBYTE = 1 << 20
NO_KEEPING = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_TOP_PAD_": "0"}


@dataclass(frozen=True, kw_only=True)
class Case:
    depth: int
    batch: int
    policy: str
    precision: str = "fp32"
    width: int = 192
    latent_side: int = 16
    num_frames: int = 1
    micro_batches: int = 1


CASES = (  # wide and few samples: weights; narrow and many: activations
    Case(depth=8, batch=4, policy="none", width=512),
    Case(depth=8, batch=4, policy="full", width=512, micro_batches=2),
    Case(depth=4, batch=32, policy="none"),
    Case(depth=8, batch=32, policy="none"),
    Case(depth=8, batch=32, policy="selective"),
    Case(depth=8, batch=64, policy="full"),
    Case(depth=8, batch=32, policy="none", micro_batches=2),
    Case(depth=8, batch=32, policy="none", precision="bf16"),
    Case(depth=8, batch=32, policy="selective", precision="bf16"),
    Case(depth=8, batch=64, policy="full", precision="bf16"),
    Case(depth=4, batch=4, policy="none", num_frames=8),
    Case(depth=6, batch=4, policy="selective", num_frames=8),
)


def model_config(case: Case):
    from gentron.model import GenTronConfig, TemporalConfig

    return GenTronConfig(
        hidden_size=case.width,
        depth=case.depth,
        num_heads=8,
        clip_width=256,
        t5_width=512,
        pooled_width=256,
        temporal=TemporalConfig(num_frames=case.num_frames, fps=4.0) if case.num_frames > 1 else None,
    )


def planned(case: Case) -> float:
    """Bytes, as `gentron plan` has them."""
    from gentron.plan import SampleShape, Setting, peak_memory

    setting = Setting(
        shape=SampleShape(latent_side=case.latent_side, num_frames=case.num_frames),
        policy=case.policy,  # type: ignore[arg-type]
        precision=case.precision,  # type: ignore[arg-type]
        accumulates=case.micro_batches > 1,
        encodes=False,
    )
    return sum(peak_memory(model_config(case), setting, micro_batch=case.batch).values())


class Steps:
    """A model in training on made-up samples."""

    def __init__(self, case: Case) -> None:
        import torch

        from gentron.model import GenTron
        from gentron.train.ema import make_ema

        self.case = case
        torch.manual_seed(0)
        self.model = GenTron(model_config(case)).train()
        self.model.gradient_checkpointing = case.policy  # type: ignore[assignment]
        self.average = make_ema(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)

    def step(self, case: Case | None = None) -> None:
        import torch
        from torch import nn

        from gentron.train.ema import update_ema

        case = case or self.case
        for _ in range(case.micro_batches):
            latents, timesteps, prompt_embeds = made_up(case)
            is_bf16 = case.precision == "bf16"
            with torch.autocast("cpu", torch.bfloat16) if is_bf16 else nullcontext():
                model_output = self.model(latents, timesteps, prompt_embeds)
            (model_output.float() - latents).square().mean().backward()
            del model_output
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        update_ema(self.average, self.model, decay=0.999, non_finite=torch.zeros(()))


def made_up(case: Case):
    import torch

    from gentron.text import PromptEmbeds

    frames = () if case.num_frames == 1 else (case.num_frames,)
    latents = torch.randn(case.batch, *frames, 4, case.latent_side, case.latent_side)
    masks = [torch.ones(case.batch, length, dtype=torch.bool) for length in (77, 120)]
    embeds = [torch.randn(case.batch, 77, 256), torch.randn(case.batch, 120, 512)]
    pooled = torch.randn(case.batch, 256)
    prompt_embeds = PromptEmbeds(embeds[0], masks[0], embeds[1], masks[1], pooled)
    return latents, torch.randint(0, 1000, (case.batch,)), prompt_embeds


def measure(case: Case) -> dict[str, float]:
    """Peak of a step in bytes: of resident memory, and of torch's allocations."""
    warm_up = Steps(Case(depth=2, batch=1, policy=case.policy, precision=case.precision, width=64))
    warm_up.step()  # every kernel and thread there is; what they keep is not the model's
    del warm_up
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM := VmRSS
    before = status("VmRSS")
    steps = Steps(case)
    steps.step(replace(case, batch=1, micro_batches=1))  # the moments are there from now on
    steps.step()
    resident = status("VmHWM") - before
    return {"resident": resident, "allocated": allocated_in_a_step(steps)}


def status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * int(next(line for line in lines if line.startswith(field)).split()[1])


def allocated_in_a_step(steps: Steps) -> float:
    """Weights, average and moments, and on top the highest level of torch's allocations in a step."""
    from torch.profiler import profile

    parameters = sum(p.numel() for p in steps.model.parameters())
    with profile(profile_memory=True) as recorded:
        steps.step()
    level = peak = 0
    assert recorded.profiler is not None and recorded.profiler.kineto_results is not None
    events: list[Any] = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        level += event.nbytes()
        peak = max(peak, level)
    return 4 * 4 * parameters + peak


def measure_apart(case: Case) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", json.dumps(asdict(case))]
    environment = {**os.environ, **NO_KEEPING, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", help="numbers of cases, 0 the first")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(Case(**json.loads(arguments.measure)))))
        return
    chosen = range(len(CASES)) if arguments.only is None else map(int, arguments.only.split(","))
    rows = []
    print("MiB: planned, resident, torch's own; planned against each")
    for index in chosen:
        case = CASES[index]
        row = {**asdict(case), "planned": planned(case), **measure_apart(case)}
        rows.append(row)
        sizes = [row[name] / MEBIBYTE for name in ("planned", "resident", "allocated")]
        ratios = [row["planned"] / row[name] - 1 for name in ("resident", "allocated")]
        print(
            f"{index:2} depth {case.depth:2} batch {case.batch:2} x {case.num_frames} {case.policy:9}"
            f" {case.precision} passes {case.micro_batches}"
            f" {sizes[0]:7.0f} {sizes[1]:7.0f} {sizes[2]:7.0f} {ratios[0]:+7.1%} {ratios[1]:+7.1%}",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
