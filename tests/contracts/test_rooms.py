"""What import-linter cannot say of the rooms of bench: which of them work without torch."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import bench

ROOT = Path(__file__).parents[2]
TORCH_FREE = ("results", "compare", "report", "humaneval", "prompts")
HEAVY = ("torch", "transformers", "diffusers")


def modules(*rooms: str) -> list[str]:
    """Every module in these rooms."""
    folders = [str(Path(bench.__path__[0]) / room) for room in rooms]
    names = [
        module.name
        for folder, room in zip(folders, rooms, strict=True)
        for module in pkgutil.walk_packages([folder], f"bench.{room}.")
    ]
    return [*(f"bench.{room}" for room in rooms), *names]


def test_results_are_read_compared_and_reported_without_torch() -> None:
    """A machine that judges and shows results, or hands out a study, needs no network and no accelerator."""
    names = modules(*TORCH_FREE)
    assert "bench.compare.gate" in names and "bench.report.html.page" in names
    code = (
        f"import importlib, sys\n"
        f"for name in {names}: importlib.import_module(name)\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_few_files_stand_at_the_top_of_bench() -> None:
    assert len(list((ROOT / "bench").glob("*.py"))) <= 6
