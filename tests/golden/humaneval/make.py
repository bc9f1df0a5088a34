"""Writes the tiny videos of this folder and what PyAV says of them: python make.py (needs `pip install av`).

Each carries metadata that must not reach a rater. facts.json is the independent reading: container, codec,
size, frames decoded, and the sha256 of all decoded frames, before our cleaning.
"""

import hashlib
import json
from pathlib import Path

import av  # pyright: ignore[reportMissingImports]
import numpy as np

HERE = Path(__file__).parent
METADATA = {"title": "SecretModel", "comment": "seed 8877665544, a thing", "artist": "SecretModel"}
VIDEOS = {  # name: codec, frames per second, number of frames, phase
    "a.mp4": ("libx264", 8, 16, 0),
    "b.mp4": ("libx264", 8, 16, 3),
    "other-fps.mp4": ("libx264", 12, 16, 0),
    "shorter.mp4": ("libx264", 8, 12, 0),
    "a.webm": ("libvpx-vp9", 8, 16, 0),
    "b.webm": ("libvpx-vp9", 8, 16, 3),
    "other-codec.webm": ("libvpx", 8, 16, 0),
}


def write(path, codec, fps, frames, phase, size=64):
    with av.open(str(path), "w") as container:
        container.metadata.update(METADATA)
        stream = container.add_stream(codec, rate=fps)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for k in range(frames):
            image = np.full((size, size, 3), (40 + 20 * phase, 60, 90), np.uint8)
            x = (k * 4 + phase * 7) % size
            image[20:40, max(0, x - 6) : x + 6] = (240, 200, 40)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def frames_sha256(data: str) -> str:
    digest = hashlib.sha256()
    with av.open(data, "r") as container:
        for frame in container.decode(video=0):
            digest.update(frame.to_ndarray().tobytes())
    return digest.hexdigest()


def main():
    facts = {}
    for name, (codec, fps, frames, phase) in VIDEOS.items():
        path = HERE / name
        write(path, codec, fps, frames, phase)
        with av.open(str(path), "r") as container:
            stream = container.streams.video[0]
            facts[name] = {
                "codec": stream.codec_context.name,
                "width": stream.width,
                "height": stream.height,
                "fps": float(stream.average_rate or 0),
                "frames": sum(1 for _ in container.decode(video=0)),
                "metadata": dict(container.metadata),
            }
        facts[name]["frames_sha256"] = frames_sha256(str(path))
    facts["made_with"] = f"PyAV {av.__version__}"
    (HERE / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
