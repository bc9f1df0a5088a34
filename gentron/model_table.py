"""What `gentron models` prints: configurations beside the papers', and parameters per component."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rich import box
from rich.table import Table

from gentron.dit import class_conditional_report
from gentron.model import GenTronConfig, ParameterRow, parameter_report
from gentron.presets import PRESETS, paper_parameters

MODELS_PER_TABLE = 5
"""What fits into the 80 columns of a narrow terminal."""
DIT = ("s2", "b2", "l2", "xl2")
"""Presets with the depth, width and heads of a DiT, whose class-conditional count is a check of ours."""


class PaperConfiguration(NamedTuple):
    """A row of table 2 of arXiv 2312.04557."""

    depth: int
    width: int
    mlp_width: int


PAPER_XL, PAPER_G = PaperConfiguration(28, 1152, 4608), PaperConfiguration(48, 1664, 6656)
PAPER_CONFIGURATIONS = {
    **dict.fromkeys(("xl2", "xl2-clip-adaln", "xl2-clip", "xl2-t5", "xl2-t2v"), PAPER_XL),
    **dict.fromkeys(("g2", "g2-t2v"), PAPER_G),
}


def configurations_table() -> Table:
    """Depth, width, MLP width, heads and parameters of every preset, what the papers state beside them."""
    caption = "DiT: class-conditional, a check of the count. paper: sizes, total, difference."
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, caption=caption, caption_justify="left")
    table.add_column("model", no_wrap=True)
    for name in ("depth", "width", "MLP", "heads", "parameters", "paper", "", ""):
        table.add_column(name, justify="right", no_wrap=True)
    for name, preset in PRESETS.items():
        config, stated = preset(), PAPER_CONFIGURATIONS.get(name)
        total = parameter_report(config, paper_parameters=paper_parameters(config))[-1]
        _add_row(table, name, config, total, "" if stated is None else "/".join(map(str, stated)))
    table.add_section()
    for name in DIT:
        config = PRESETS[name]()
        _add_row(table, f"DiT-{name[:-1].upper()}/2", config, class_conditional_report(config)[-1], "")
    return table


def _add_row(table: Table, name: str, config: GenTronConfig, total: ParameterRow, stated: str) -> None:
    sizes = (config.depth, config.hidden_size, config.mlp_size, config.num_heads)
    counts = (millions(total.parameters), stated, millions(total.paper_parameters))
    table.add_row(name, *map(str, sizes), *counts, percent(total.difference_percent))


def components_tables() -> Iterator[Table]:
    """Parameters per component, a column a model, a few models a table."""
    names = list(PRESETS)
    for start in range(0, len(names), MODELS_PER_TABLE):
        yield _components_table(names[start : start + MODELS_PER_TABLE])


def _components_table(names: list[str]) -> Table:
    reports = [parameter_report(PRESETS[name]()) for name in names]
    table = Table("parameters", box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in names:
        table.add_column(name, justify="right")
    *components, totals = zip(*reports, strict=True)
    used = [rows for rows in components if any(row.parameters for row in rows)]
    for rows in (*used, totals):
        cells = [millions(row.parameters) for row in rows]
        table.add_row(rows[0].component, *cells, end_section=rows is used[-1])
    return table


def millions(count: float | None) -> str:
    """As 12.3M; nothing for nothing."""
    return "" if not count else f"{count / 1e6:.1f}M" if count >= 1e6 else f"{count / 1e6:.2f}M"


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f} %"
