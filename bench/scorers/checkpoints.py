"""Published weights of the detector and the depth network: read safely, and loaded only where every name and
shape is right."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gentron.errors import UserError

COUNTER = "num_batches_tracked"  # of batch norms in training; some files have it, some do not


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A state dict in float32 and, in files made for rehearsals, the sizes of the small network it fits."""

    path: Path
    state: dict[str, Tensor]
    architecture: dict[str, Any] | None


def read_checkpoint(path: Path) -> Checkpoint:
    """The weights in a .pth or .pt file, which holds a state dict or has one as its `model`.

    UserError for a file that is damaged or holds something else. Nothing in it is executed.
    """
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except (
        RuntimeError,
        EOFError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        KeyError,
        ValueError,
    ) as error:
        raise UserError(
            f"cannot read weights from '{path}': {_first_line(error)};"
            " the file is damaged or not a PyTorch file: get it again"
        ) from error
    state = data["model"] if isinstance(data, dict) and isinstance(data.get("model"), dict) else data
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"cannot read weights from '{path}': expected a state dict or one under 'model'")
    architecture = data.get("architecture") if state is not data else None
    floats = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    return Checkpoint(path, floats, architecture)


def load(network: nn.Module, checkpoint: Checkpoint, *, what: str, is_other: Callable[[str], bool]) -> None:
    """Put the weights into a network made on the meta device; UserError unless names and shapes all agree.

    what: the network in words.   is_other: whether a key that it has not is known to be no part of it.
    """
    wanted = network.state_dict()
    counters = {key: torch.zeros((), dtype=torch.int64) for key in wanted if key.endswith(COUNTER)}
    given = counters | {key: value for key, value in checkpoint.state.items() if key in wanted}
    missing = [key for key in wanted if key not in given]
    strange = [
        key
        for key in checkpoint.state
        if key not in wanted and not key.endswith(COUNTER) and not is_other(key)
    ]
    wrong = [key for key in given if given[key].shape != wanted[key].shape]
    if missing or strange or wrong:
        raise UserError(f"'{checkpoint.path}' is not {what}: {_difference(missing, strange, wrong)}")
    network.load_state_dict(given, assign=True)


def _difference(missing: list[str], strange: list[str], wrong: list[str]) -> str:
    parts = [
        f"{len(keys)} of its tensors {said}, such as '{keys[0]}'"
        for keys, said in (
            (missing, "are missing"),
            (strange, "belong to no part of it"),
            (wrong, "have another shape"),
        )
        if keys
    ]
    return "; ".join(parts)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


class Divided(Protocol):
    """A network class whose widths can be divided, for rehearsals."""

    def __call__(self, *, divisor: int) -> Any: ...


def read_divided(path: Path, network_class: Divided, *, name: str, what: str, may_be_small: bool) -> Any:
    """Such a network from a weights file, in eval mode; UserError unless names and shapes are all right.

    name: of the published file.   may_be_small: take the divisor that a file made for rehearsals carries.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.architecture is not None and not may_be_small:
        raise UserError(f"'{path}' holds random weights for rehearsals, not the published ones of '{name}'")
    sizes = checkpoint.architecture or {"divisor": 1}
    if set(sizes) != {"divisor"} or not isinstance(sizes["divisor"], int) or not 1 <= sizes["divisor"] <= 16:
        raise UserError(f"'{path}': the architecture must be a divisor from 1 to 16, got {sizes}")
    with torch.device("meta"):
        network = network_class(divisor=sizes["divisor"])
    load(network, checkpoint, what=what, is_other=lambda key: False)
    return network.eval().requires_grad_(False)
