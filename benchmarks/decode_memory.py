"""Does decoding clips leak? RSS over many decodes of good and bad files, printed as Markdown.

nice python benchmarks/decode_memory.py [--decodes 10000]
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from pathlib import Path

import numpy as np

from gentron.data.clip_writer import write_clip
from gentron.data.keyed import Stream, keyed_rng
from gentron.data.video import read_frames
from gentron.errors import MediaError

PAGE = 4096


def rss_mib() -> float:
    """Resident memory of this process, MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20


def make_clips(folder: Path) -> list[Path]:
    """A 2.5 s clip of 64 x 48 pixels in four containers, and a file cut short."""
    wide = np.random.default_rng(0).integers(0, 255, (48, 124, 3), dtype=np.uint8)
    frames = np.stack([wide[:, 4 * t : 4 * t + 64] for t in range(15)])
    paths = [folder / f"clip{suffix}" for suffix in (".mp4", ".webm", ".gif", ".webp")]
    for path in paths:
        write_clip(path, frames, 6)
    cut = folder / "cut.mp4"
    data = paths[0].read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    return [*paths, cut]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decodes", type=int, default=10_000)
    decodes = parser.parse_args().decodes
    print("| decodes | RSS, MiB | ms a decode |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        paths = make_clips(Path(folder))
        failed, begin = 0, time.perf_counter()
        for index in range(decodes):
            path = paths[index % len(paths)]
            source = path if index % 2 else path.read_bytes()
            try:
                read_frames(source, rng=keyed_rng(0, index, Stream.CAPTION), image_size=64)
            except MediaError:
                failed += 1
            done = index + 1
            if done in (decodes // 50, decodes // 10, decodes // 2, decodes):
                gc.collect()
                milliseconds = (time.perf_counter() - begin) / done * 1000
                print(f"| {done} | {rss_mib():.1f} | {milliseconds:.2f} |", flush=True)
    print(f"\n{failed} of {decodes} decodes failed, as the file cut short should ({decodes // len(paths)}).")


if __name__ == "__main__":
    main()
