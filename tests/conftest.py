"""Fixtures for all tests. tests/ is a package so that pytest puts the repository root on sys.path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gentron.torchvision_ops import prepare_torchvision
from tests.tiny import TINY_VIDEO_MODEL, make_tiny_checkpoint

pytest_plugins = ["tests.parity"]

prepare_torchvision()  # tests import transformers directly


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A read-only tiny checkpoint folder; copy it before changing anything."""
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture(scope="session")
def tiny_video_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a video model."""
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "video", TINY_VIDEO_MODEL)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums round otherwise on several threads: for what is compared to the bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
