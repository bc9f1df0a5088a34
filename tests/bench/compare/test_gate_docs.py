"""What docs/gate.md and the composite action show is what the programs take."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.core import TyperGroup

from bench.cli import app
from bench.compare.gate import GateConfig, read_gate_file
from benchmarks import simulate_gate
from tests.bench.compare.measured import noisy, write_scores

ROOT = Path(__file__).resolve().parents[3]
GUIDE = (ROOT / "docs" / "gate.md").read_text("utf-8")
ACTION = yaml.safe_load((ROOT / ".github" / "actions" / "gentron-gate" / "action.yml").read_text("utf-8"))
STEPS: dict[str, dict[str, Any]] = {step.get("name", "python"): step for step in ACTION["runs"]["steps"]}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.S)


SHOWN = [
    line.split("#")[0].strip()
    for block in blocks("bash")
    for line in block.splitlines()
    if line.startswith("gentron-bench ")
]


def test_the_guide_shows_every_command() -> None:
    assert {line.split()[1] for line in SHOWN} >= {"compare", "gate", "calibrate", "accept", "compbench"}


@pytest.mark.parametrize("line", SHOWN)
def test_a_documented_command_parses(line: str) -> None:
    _, name, *words = shlex.split(line)
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    command = group.get_command(group.make_context("gentron-bench", [], resilient_parsing=True), name)
    assert command is not None, f"no such command: {name}"
    command.make_context(name, words)


def test_the_documented_gate_file_is_one(tmp_path: Path) -> None:
    (tmp_path / "gate.yaml").write_text(blocks("yaml")[0])
    assert read_gate_file(tmp_path / "gate.yaml") == GateConfig(
        family=["color", "shape", "texture"],
        tolerances={"texture": 0.05},
        default_tolerance=0.03,
        band="band.json",
    )


def test_the_documented_workflow_uses_what_the_action_takes() -> None:
    workflow = yaml.safe_load(blocks("yaml")[1])
    (step,) = [s for s in workflow["jobs"]["gate"]["steps"] if "gentron-gate" in s.get("uses", "")]
    assert set(step["with"]) <= set(ACTION["inputs"])
    required = {name for name, given in ACTION["inputs"].items() if given.get("required")}
    assert required <= set(step["with"])
    assert "steps.gate.outputs.folder" in GUIDE and "folder" in ACTION["outputs"]


def test_inputs_never_become_part_of_a_script() -> None:
    for step in STEPS.values():
        assert "${{" not in step.get("run", "")
    used = {
        name
        for step in STEPS.values()
        for value in step.get("env", {}).values()
        for name in re.findall(r"inputs\.([\w-]+)", value)
    }
    assert used | {"install"} == set(ACTION["inputs"])


def test_the_simulations_command_parses() -> None:
    shown = re.findall(
        r"^    python benchmarks/simulate_gate.py (.*?)(?:  .*)?$", simulate_gate.__doc__ or "", re.M
    )
    assert len(shown) == 2
    for line in shown:
        simulate_gate.parser().parse_args(shlex.split(line))


# ---- the action's own shell, run as a runner runs it -----------------------------------------------------


def runner(tmp_path: Path, name: str, program: str, **inputs: str) -> tuple[subprocess.CompletedProcess, str]:
    """Run a step with a `gentron-bench` of our choice on the PATH; returns it and what it put out."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    (tools / "gentron-bench").write_text(f"#!/bin/bash\n{program}\n")
    (tools / "gentron-bench").chmod(0o755)
    output = tmp_path / "github_output"
    output.write_text("")
    variables = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_OUTPUT": str(output),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "GITHUB_ACTIONS": "true",
        **{variable: "" for variable in STEPS[name]["env"]},
        **inputs,
    }
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEPS[name]["run"]],
        env=variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    return done, output.read_text()


def test_the_measuring_step_passes_names_on_as_they_are(tmp_path: Path) -> None:
    nasty = 'runs/$(touch owned) "it\'s"; x'
    done, output = runner(
        tmp_path, "Measure", 'printf "%s\\n" "$@"', MODEL=nasty, PROTOCOL="p", SUITE="all", LIMIT="100"
    )
    assert done.returncode == 0, done.stderr
    folder = output.strip().removeprefix("folder=")
    assert done.stdout.splitlines() == [
        *("compbench", "--model", nasty, "--protocol", "p", "--suite", "all"),
        *("--out", f"{folder}/results", "--work", f"{folder}/work", "--limit", "100"),
    ]
    assert Path(folder).is_dir() and not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("code", "allow", "expected"),
    [
        (0, "false", 0),
        (1, "true", 1),
        (2, "true", 2),
        (3, "false", 3),
        (3, "true", 0),
        (4, "true", 4),
        (5, "true", 5),
    ],
)
def test_only_the_inconclusive_can_be_allowed(tmp_path: Path, code: int, allow: str, expected: int) -> None:
    done, output = runner(tmp_path, "Gate", f"exit {code}", FOLDER=str(tmp_path), ALLOW_INCONCLUSIVE=allow)
    assert done.returncode == expected and output == f"exit-code={code}\n"


def test_the_gate_step_judges_and_writes_the_summary(tmp_path: Path) -> None:
    scores = noisy(1, {"color": 40, "shape": 40})
    base = write_scores(tmp_path / "base", scores)
    scores["color"][:25] = 0
    write_scores(tmp_path / "out" / "results", scores, digest="b")
    program = f'exec "{sys.executable}" -m bench "$@"'
    done, output = runner(
        tmp_path,
        "Gate",
        program,
        FOLDER=str(tmp_path / "out"),
        BASELINE=str(base),
        BASELINES="none.yaml",
        TOLERANCES="color=0.05\n\nshape=0.1\n",
        ALLOW_INCONCLUSIVE="true",
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert output == "exit-code=1\n"
    assert "::error title=color%3A regression::" in done.stdout
    assert "gate: regression" in (tmp_path / "summary.md").read_text()
    assert (tmp_path / "out" / "junit.xml").is_file() and (tmp_path / "out" / "verdict.json").is_file()
