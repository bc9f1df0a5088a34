"""Pictures -> features, each picture alone, on as many threads as torch may use.

Every picture is worked on by one thread that computes alone: torch's own threads would change the last bits
with their number, and then a run on two processes would differ from a run on one.
"""

# N images of a set, D numbers of a feature

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from bench.set_metrics.features import Extractor
from bench.set_metrics.features.cache import FeatureCache
from bench.systems.images import BadImage, encode_png, read_image
from gentron.errors import UserError
from gentron.hashing import sha256

GPU_THREADS = 8  # read and resize beside the network
AHEAD = 4  # pictures in work or waiting, per thread

Prepare = Callable[[np.ndarray], np.ndarray]  # (H, W, 3) uint8 -> the same, before any extractor


class Picture(Protocol):
    """One image of a set. `name` is for messages; `prompt_id`, `sample` for rows of a result."""

    @property
    def name(self) -> str: ...
    @property
    def prompt_id(self) -> str: ...
    @property
    def sample(self) -> int: ...

    def digest(self) -> str:
        """sha256 of its file; BadImage if there is none."""
        ...

    def read(self) -> np.ndarray:
        """(H, W, 3) uint8; BadImage with the reason."""
        ...


@dataclass(frozen=True, slots=True)
class FilePicture:
    """A file; `expected` is the sha256 that it had when it was made."""

    name: str
    path: Path
    prompt_id: str
    sample: int = 0
    expected: str | None = None

    def digest(self) -> str:
        try:
            found = sha256(self.path.read_bytes())
        except (FileNotFoundError, IsADirectoryError):
            raise BadImage("missing") from None
        if self.expected not in (None, found):
            raise BadImage("changed since it was made")
        return found

    def read(self) -> np.ndarray:
        return read_image(self.path, as_stored=True)[0]


@dataclass(frozen=True, slots=True)
class DrawnPicture:
    """A picture that is drawn when it is asked for; its file is the PNG that it would be."""

    name: str
    prompt_id: str
    sample: int
    draw: Callable[[], np.ndarray]

    def digest(self) -> str:
        return sha256(encode_png(self.draw()))

    def read(self) -> np.ndarray:
        return self.draw()


@dataclass(frozen=True, slots=True)
class Bad:
    """A picture without features, and why."""

    picture: Picture
    reason: str


@dataclass(frozen=True, slots=True)
class Extracted:
    """pictures: those with features, in order.   digests: of their files.   bad: the others."""

    pictures: list[Picture]
    digests: list[str]
    bad: list[Bad]


@dataclass(frozen=True, slots=True)
class CachedExtractor:
    extractor: Extractor
    cache: FeatureCache

    def matrix(self, digests: Sequence[str]) -> np.ndarray:
        """(N, D) float32."""
        if not digests:
            return np.zeros((0, self.extractor.record.num_features), np.float32)
        return np.stack([self.cache[digest] for digest in digests])


@contextmanager
def _one_thread_each(device: str) -> Iterator[int]:
    """How many threads of work there may be; inside, torch computes each on one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield GPU_THREADS if device.startswith("cuda") else threads
    finally:
        torch.set_num_threads(threads)


def extract(
    pictures: Sequence[Picture],
    extractors: Sequence[CachedExtractor],
    *,
    device: str,
    prepare: Prepare | None = None,
    advance: Callable[[int], None],
) -> Extracted:
    """Features of all pictures into the caches; those that are there already are not made again."""
    done = Extracted([], [], [])

    def work(picture: Picture) -> tuple[str, list[np.ndarray | None]]:
        digest = picture.digest()
        if all(digest in each.cache for each in extractors):
            return digest, [None] * len(extractors)
        image = picture.read()
        if prepare is not None:
            image = prepare(image)
        return digest, [
            None if digest in each.cache else each.extractor.features(image) for each in extractors
        ]

    with _one_thread_each(device) as threads:
        for picture, result in _in_order(work, pictures, threads):
            try:
                digest, vectors = result.result()
            except BadImage as bad:
                done.bad.append(Bad(picture, str(bad)))
            else:
                for each, vector in zip(extractors, vectors, strict=True):
                    if vector is not None and digest not in each.cache:
                        _check_finite(vector, picture, each.extractor)
                        each.cache.add(digest, vector)
                done.pictures.append(picture)
                done.digests.append(digest)
            advance(1)
    return done


def _in_order(
    work: Callable[[Picture], tuple[str, list[np.ndarray | None]]], pictures: Iterable[Picture], threads: int
) -> Iterator[tuple[Picture, Future[tuple[str, list[np.ndarray | None]]]]]:
    """Results in the order of the pictures, a few of them in work at a time."""
    waiting: deque[tuple[Picture, Future[tuple[str, list[np.ndarray | None]]]]] = deque()
    # set_num_threads holds for the thread that calls it
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for picture in pictures:
                waiting.append((picture, pool.submit(work, picture)))
                if len(waiting) >= AHEAD * threads:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _check_finite(vector: np.ndarray, picture: Picture, extractor: Extractor) -> None:
    if not np.isfinite(vector).all():
        raise UserError(
            f"features of {picture.name} by {extractor.record.label} are NaN or infinite:"
            " the network's weights are damaged, or the device computes wrongly"
        )
