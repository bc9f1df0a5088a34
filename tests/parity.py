"""The parity table: every comparison with an independent implementation, recorded as it is asserted.

A test that takes the fixture `parity` compares ours with a reference's values. With `--parity=FILE` pytest
runs just these tests, slow ones too, and writes what was measured. A row cannot be in the table without the
assertion that holds it.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

HEAD = """# Parity

Every scorer and metric against the original implementation, on shared random weights and fixed inputs. Made
by

    OMP_NUM_THREADS=1 .venv/bin/python -m pytest --parity=docs/parity.md

Each row is an assertion of a test, with the largest difference that was measured and the one that is allowed.
Where the original cannot be installed beside current libraries, its outputs were stored once by the `make.py`
in the folder of `tests/golden` that the test reads, which takes the folder of the fetched original.

The detections were compared at full size too, once, by `tests/golden/unidet/make.py --full`: R50 and RS200 on
four pictures, boxes, scores and classes equal to the bit; so were the depth maps, by
`tests/golden/depth/make.py --full`: at most 1.0e-6 of their range. With other numbers of threads sums round
otherwise: with two, boxes of the small detectors move by up to 2e-4 pixels and scores by 1e-6.

Made with {versions}.

"""
PACKAGES = ("torch", "numpy", "scipy", "transformers", "open_clip_torch")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A comparison. difference, allowed: absolute, or relative to the reference's values."""

    of: str
    what: str
    against: str
    values: int
    difference: float
    allowed: float
    relative: bool
    test: str

    def cells(self) -> list[str]:
        kind = " rel." if self.relative else ""
        measured = f"{self.difference:.1e}{kind}" if self.difference else "equal"
        bound = f"{self.allowed:.0e}{kind}" if self.allowed else "equal"
        return [self.of, self.what, self.against, f"{self.values:,}", measured, bound, f"`{self.test}`"]


Compare = Callable[..., None]
"""parity(of, what, ours, reference, against=..., atol=... | rtol=...); neither: equal to the bit."""


def compare(rows: list[Row], test: str) -> Compare:
    """The function that tests call; it asserts, and records in `rows` what held."""

    def parity(
        of: str,
        what: str,
        ours: object,
        reference: object,
        *,
        against: str,
        atol: float = 0.0,
        rtol: float = 0.0,
    ) -> None:
        if atol and rtol:
            raise ValueError("give atol or rtol, not both")
        a, b = np.asarray(ours), np.asarray(reference)
        assert a.shape == b.shape, f"{of}, {what}: shapes {a.shape} and {b.shape}"
        assert a.size, f"{of}, {what}: nothing was compared"
        difference = 0.0
        if atol or rtol:
            apart = np.abs(a.astype(np.float64) - b.astype(np.float64))
            difference = float((apart / np.abs(b.astype(np.float64))).max() if rtol else apart.max())
            assert difference <= (rtol or atol), f"{of}, {what}: {difference:.3g} > {rtol or atol:.3g}"
        else:
            assert (a == b).all(), f"{of}, {what}: {int((a != b).sum())} of {a.size} values differ"
        row = Row(
            of=of, what=what, against=against, values=a.size, difference=difference,
            allowed=rtol or atol, relative=bool(rtol), test=test,
        )  # fmt: skip
        rows.append(row)

    return parity


def table(rows: Sequence[Row]) -> str:
    """docs/parity.md."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    where = (
        f"Python {platform.python_version()}, {packages}, on a CPU with {torch.get_num_threads()} thread(s)"
    )
    lines = [HEAD.format(versions=where).rstrip(), ""]
    titles = ["scorer or metric", "what", "against", "values", "largest difference", "allowed", "test"]
    lines.append("| " + " | ".join(titles) + " |")
    lines.append("|" + "---|" * len(titles))
    order = {of: place for place, of in enumerate(dict.fromkeys(row.of for row in rows))}
    for row in sorted(rows, key=lambda row: order[row.of]):
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row.cells()) + " |")
    return "\n".join(lines) + "\n"


# ---- the pytest side -------------------------------------------------------------------------------------

ROWS = pytest.StashKey[list[Row]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--parity", metavar="FILE", help="run the comparisons with originals and write their table"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []
    if config.getoption("--parity"):
        config.option.markexpr = ""  # slow ones too; pytest_collection_modifyitems keeps only comparisons


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--parity"):
        items[:] = [item for item in items if "parity" in getattr(item, "fixturenames", ())]


@pytest.fixture
def parity(request: pytest.FixtureRequest) -> Compare:
    file = Path(request.node.path).relative_to(request.config.rootpath).as_posix()
    return compare(request.config.stash[ROWS], f"{file}::{request.node.originalname}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    file = session.config.getoption("--parity")
    if file and exitstatus == 0:
        rows = session.config.stash[ROWS]
        Path(file).write_text(table(rows), encoding="utf-8")
