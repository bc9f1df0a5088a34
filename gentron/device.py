"""Which device work runs on: the one place that says what `auto` is."""

from __future__ import annotations

import os

import torch

from gentron.errors import UserError


def usable_device(device: torch.device | str) -> torch.device:
    """The device, tried out; "auto" takes a GPU where there is one, under torchrun this process's own.

    Raises UserError.
    """
    if device == "auto":
        return _first_choice()
    try:
        found = torch.device(device)
        torch.empty(0, device=found).tolist()  # the device "meta" makes tensors, but there is nothing in them
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or ["not available"])[0][:200]
        raise UserError(f"cannot use the device '{device}' here: {reason}; try --device cpu") from error
    return found


def _first_choice() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    rank = os.environ.get("LOCAL_RANK")  # set by torchrun
    return torch.device("cuda" if rank is None else f"cuda:{int(rank) % torch.cuda.device_count()}")
