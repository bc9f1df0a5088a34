from __future__ import annotations

import pytest
import torch

from gentron.device import usable_device
from gentron.errors import UserError


@pytest.mark.parametrize(
    ("gpus", "rank", "expected"),
    [(0, None, "cpu"), (0, "3", "cpu"), (1, None, "cuda"), (2, "0", "cuda:0"), (2, "3", "cuda:1")],
)
def test_auto_is_a_processs_own_gpu(
    monkeypatch: pytest.MonkeyPatch, gpus: int, rank: str | None, expected: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpus > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert str(usable_device("auto")) == expected


def test_a_named_device_is_taken_as_it_is_and_tried_out() -> None:
    assert usable_device("cpu") == usable_device(torch.device("cpu")) == torch.device("cpu")
    for name in ("nonsense", "meta"):
        with pytest.raises(UserError, match=f"cannot use the device '{name}' here: .*; try --device cpu"):
            usable_device(name)
