"""The planner's arithmetic against torch: parameters, FLOPs, kept activations, the peak of a step."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner, Result

from benchmarks.plan_memory import Case, Steps, allocated_in_a_step, planned
from gentron import plan
from gentron.autoencoder import SD_AUTOENCODER
from gentron.checkpointing import CheckpointPolicy
from gentron.cli import app
from gentron.model import GenTron, GenTronConfig, TemporalConfig, parameter_report
from gentron.plan import (
    GIB,
    PAPER_STAGES,
    POLICIES,
    Machine,
    SampleShape,
    Setting,
    Stage,
    count_flops,
    count_parameters,
    largest_micro_batch,
    make_plan,
    peak_memory,
)
from gentron.presets import PRESETS
from gentron.text import CLIP_L, T5_XXL, PromptEmbeds
from tests.bad_input import refused

VIDEO = TemporalConfig(num_frames=8, fps=4.0)
SMALL = GenTronConfig(
    hidden_size=48, depth=3, num_heads=4, sample_size=8, clip_width=24, t5_width=40, pooled_width=24
)
VARIANTS = {
    "both": SMALL,
    "clip": replace(SMALL, t5_width=None),
    "t5": replace(SMALL, clip_width=None, qk_norm=True),
    "adaln": replace(SMALL, t5_width=None, conditioning="adaln"),
    "video": replace(SMALL, temporal=VIDEO),
}


def gentron(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


# ---- parameters and FLOPs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_are_the_reports(name: str) -> None:
    config = PRESETS[name]()
    for variant in (config, replace(config, temporal=VIDEO, qk_norm=True)):
        assert count_parameters(variant).total == parameter_report(variant)[-1].parameters


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_flops_are_those_that_torch_counts(config: GenTronConfig) -> None:
    frames = VIDEO.num_frames if config.temporal else 1
    shape = SampleShape(latent_side=16, num_frames=frames, clip_tokens=5, t5_tokens=7)
    size = (1, 4, 16, 16) if frames == 1 else (1, frames, 4, 16, 16)
    mask = {length: torch.ones(1, length, dtype=torch.bool) for length in (5, 7)}
    prompts = PromptEmbeds(torch.randn(1, 5, 24), mask[5], torch.randn(1, 7, 40), mask[7], torch.randn(1, 24))
    model = GenTron(config)
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:  # the fused kernels of the CPU are not in torch's counter
        output = model(torch.randn(size), torch.tensor([3]), prompts)
        forward = counter.get_total_flops()
        output.square().sum().backward()
    counted = count_flops(config, shape)
    assert counted.forward == forward
    assert counted.backward == counter.get_total_flops() - forward


@pytest.mark.parametrize(
    ("name", "latent_side", "frames", "teraflops"),
    [
        ("xl2", 32, 1, 0.297),
        ("xl2", 64, 1, 1.23),
        ("g2", 32, 1, 1.05),
        ("g2", 64, 1, 4.25),
        ("xl2", 32, 8, 2.86),
        ("xl2", 64, 8, 12.2),
    ],
)
def test_flops_agree_with_the_figures_for_pixart_s_layout(
    name: str, latent_side: int, frames: int, teraflops: float
) -> None:
    """The published figures: text projected to the model's width beforehand, 120 tokens, no adapters.

    GenTron's own K/V read 768 and 4096 channels: 0.318 T where this is 0.297.
    """
    config = PRESETS[name]()
    width = config.hidden_size
    config = replace(config, clip_width=width, t5_width=width, temporal=VIDEO if frames > 1 else None)
    shape = SampleShape(latent_side=latent_side, num_frames=frames, clip_tokens=120)
    flops = sum(p.forward for p in plan.products(config, shape) if p.part != "token adapters")
    assert flops / 1e12 == pytest.approx(teraflops, rel=0.005)
    if (name, latent_side, frames) == ("xl2", 32, 1):
        assert count_flops(PRESETS[name](), SampleShape(latent_side=32)).forward == pytest.approx(
            0.318e12, rel=2e-3
        )


def test_full_checkpointing_costs_the_blocks_once_more() -> None:
    shape = SampleShape(latent_side=32)
    none, selective, full = (count_flops(PRESETS["xl2"](), shape, policy) for policy in POLICIES)
    assert none == selective and full.model == none.model
    assert full.recomputed / none.forward == pytest.approx(0.99, abs=0.01)


def test_the_frozen_networks_have_their_sizes() -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    with torch.device("meta"):
        autoencoder: Any = AutoencoderKL(**SD_AUTOENCODER)
        networks = {
            plan.CLIP_L: CLIPTextModel(CLIPTextConfig(**CLIP_L)),
            plan.T5_XXL: T5EncoderModel(T5Config(**T5_XXL)),
        }
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            autoencoder.encode(torch.empty(1, 3, 128, 128))
    assert sum(p.numel() for p in autoencoder.parameters()) == plan.AUTOENCODER_PARAMETERS
    assert counter.get_total_flops() == pytest.approx(plan.autoencoder_flops(128), rel=0.01)
    for size, network in networks.items():
        parameters = sum(p.numel() for p in network.parameters())
        assert size.parameters == pytest.approx(parameters, rel=2e-3), size.name


# ---- memory ------------------------------------------------------------------------------------------------

CASES = (
    Case(depth=3, batch=2, policy="none", width=192),
    Case(depth=3, batch=2, policy="full", width=192, micro_batches=2),
    Case(depth=2, batch=8, policy="none", width=96),
    Case(depth=4, batch=8, policy="none", width=96),
    Case(depth=4, batch=8, policy="selective", width=96),
    Case(depth=4, batch=12, policy="full", width=96),
    Case(depth=4, batch=8, policy="none", width=96, precision="bf16"),
    Case(depth=4, batch=8, policy="selective", width=96, precision="bf16"),
    Case(depth=3, batch=2, policy="selective", width=96, num_frames=8),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.policy}-{case.depth}-{case.batch}")
def test_the_peak_of_a_step_is_within_ten_percent(case: Case) -> None:
    """Of torch's own allocations, exact to the byte; benchmarks/plan_memory.py has resident memory."""
    steps = Steps(case)
    steps.step(replace(case, batch=1))
    assert planned(case) == pytest.approx(allocated_in_a_step(steps), rel=0.10)


def test_states_are_shared_out_among_the_gpus() -> None:
    config, shape = PRESETS["g2"](), SampleShape(latent_side=64)
    one, many = (
        peak_memory(config, Setting(shape=shape, policy="full", gpus=gpus, encodes=False), micro_batch=1)
        for gpus in (1, 64)
    )
    for kind in ("weights", "optimizer", "EMA"):
        assert one[kind] == pytest.approx(64 * many[kind])
    assert one["weights"] == 4 * count_parameters(config).total
    assert many["gradients"] <= one["gradients"]


def test_the_largest_micro_batch_fits_and_one_more_does_not() -> None:
    config, budget = PRESETS["xl2"](), 40 * GIB
    setting = Setting(shape=SampleShape(latent_side=32), policy="none", gpus=8, accumulates=True)
    largest = largest_micro_batch(config, setting, budget=budget, most=1000)
    used = [sum(peak_memory(config, setting, micro_batch=largest + more).values()) for more in (0, 1)]
    assert used[0] <= budget < used[1]
    assert largest_micro_batch(config, setting, budget=budget, most=8) == 8
    assert largest_micro_batch(config, setting, budget=GIB, most=8) == 0


# ---- the plan ----------------------------------------------------------------------------------------------


def test_forty_percent_of_an_h100_is_the_target_of_images_a_second() -> None:
    """At 40 % MFU and 3 x 0.297 TFLOPs an image 445 images/s; GenTron's own layout has 0.318."""
    machine = Machine(gpus=1, memory=80, peak=989e12, utilization=0.4)
    made = make_plan(
        PRESETS["xl2"](),
        SampleShape(latent_side=32),
        machine,
        stage=PAPER_STAGES[256],
        encodes=False,
    )
    none = made.options[0]
    assert none.samples_per_second == pytest.approx(445 * 0.297 / 0.318, rel=0.01)
    assert none.mfu == pytest.approx(0.4)
    assert none.days == pytest.approx(2048 * 500_000 / none.samples_per_second / 86_400)
    assert none.gpu_hours == pytest.approx(24 * (none.days or 0))
    assert none.micro_batch * none.passes >= 2048 and made.advice == "none"


def test_more_gpus_share_the_batch() -> None:
    options = {}
    for gpus in (8, 32):
        machine = Machine(gpus=gpus, memory=80, peak=989e12, utilization=0.25)
        made = make_plan(PRESETS["g2"](), SampleShape(latent_side=64), machine, stage=PAPER_STAGES[512])
        options[gpus] = made.options[1]
        share = -(-784 // gpus)
        assert made.options[1].micro_batch * made.options[1].passes >= share
    # 784 on 32 GPUs: 24.5 each, so the slowest has 25
    ratio = options[32].samples_per_second / options[8].samples_per_second
    assert ratio == pytest.approx(4 * 24.5 / 25)


def test_what_does_not_fit_is_said() -> None:
    machine = Machine(gpus=1, memory=24, peak=165e12, utilization=0.25)
    made = make_plan(PRESETS["g2"](), SampleShape(latent_side=64), machine, stage=Stage(784, 10))
    assert made.advice is None
    assert [(option.micro_batch, option.days) for option in made.options] == [(0, None)] * 3


def test_planning_needs_no_torch() -> None:
    code = "import sys, gentron.plan, gentron.plan_cli; print(*{'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""


def test_the_policies_are_those_of_the_model() -> None:
    assert POLICIES == CheckpointPolicy.__args__  # type: ignore[attr-defined]


# ---- the command -------------------------------------------------------------------------------------------


def test_the_command_prints_what_one_decides_by() -> None:
    result = gentron("plan", "--model", "g2", "--resolution", 512, "--gpus", 8, "--memory", 80)
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    for part in (
        "g2, 512 px: 3,081.5M parameters; 784 images a step, 300,000 steps",
        "8 x h100: 80 GiB, 989 TFLOP/s",
        "none * selective full",
        "weights 1.4 1.4 1.4",
        "GPU-hours",
        "* take none: micro-batch",
    ):
        assert part in text


def test_json_holds_the_same_numbers() -> None:
    arguments = ("plan", "--model", "xl2", "--frames", 8, "--resolution", 512, "--steps", 1000, "--json")
    result = gentron(*arguments)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["shape"]["num_frames"] == 8 and told["batch"] == 128 and told["steps"] == 1000
    config = replace(PRESETS["xl2"](), temporal=TemporalConfig(num_frames=8, fps=4.0))
    assert told["parameters"] == parameter_report(config)[-1].parameters
    assert set(told["policies"]) == set(POLICIES)
    assert told["policies"]["full"]["mfu"] < told["policies"]["none"]["mfu"]


def test_a_checkpoint_folder_is_planned_by_its_config(tiny_checkpoint: Path) -> None:
    result = gentron("plan", "--model", tiny_checkpoint, "--batch", 4, "--gpus", 1, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["resolution"] == 32


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model", "huge"], "unknown model 'huge'; known: mini"),
        (["--model", ""], "unknown model ''"),
        (["--gpu", "abacus"], "unknown GPU 'abacus'; known: a100"),
        (["--gpus", "0"], "'--gpus'"),
        (["--memory", "-1"], "memory must be a positive number, got -1.0"),
        (["--memory", "nan"], "memory must be a positive number, got nan"),
        (["--mfu", "0"], "utilization must be in (0, 1], got 0.0"),
        (["--mfu", "1.5"], "got 1.5"),
        (["--resolution", "250"], "resolution must be a positive multiple of 16 up to 4096, got 250"),
        (["--resolution", "-256"], "got -256"),
        (["--resolution", "1000000000000"], "up to 4096"),
        (["--resolution", "1024"], "the paper has no stage at 1024 px: give --batch"),
        (["--frames", "1"], "'--frames'"),
        (["--batch", "0"], "'--batch'"),
        (["--steps", "-3"], "'--steps'"),
        (["--precision", "fp16"], "'--precision'"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], expected: str) -> None:
    refused(gentron("plan", *arguments), expected)
