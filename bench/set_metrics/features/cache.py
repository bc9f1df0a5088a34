"""Features on disk, by the hash of the image file: a killed run goes on, and runs share what they can.

A folder holds one extractor's vectors on one kind of device, one file a process. A file is records of equal
length, appended whole: sha256 of the image file (32 bytes), CRC-32 of it and of the vector (4), D float32. A
record that a kill cut short, or whose CRC is wrong, is not there.
"""

# D numbers of a feature

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from bench.set_metrics.features import ExtractorRecord


class FeatureCache:
    """Vectors of one extractor, by image hash. `rank` names the file that new ones go to."""

    def __init__(
        self, folder: Path, record: ExtractorRecord, *, device: str, prepared: str = "", rank: int = 0
    ) -> None:
        """prepared: name of what was done to the images before the extractor saw them."""
        kind = device.partition(":")[0]  # results of a GPU differ in the last bits
        parts = [record.label, record.digest, *([prepared] if prepared else []), kind]
        self.folder, self.num_features = folder / "-".join(parts), record.num_features
        self._dtype = np.dtype([("key", "u1", 32), ("crc", "<u4"), ("vector", "<f4", (self.num_features,))])
        self._file = self.folder / f"rank{rank}.bin"
        self._vectors: dict[bytes, np.ndarray] = {}
        self.reload()

    def reload(self) -> None:
        """Read what all processes have written."""
        for path in sorted(self.folder.glob("rank*.bin")):
            count = path.stat().st_size // self._dtype.itemsize
            if count:
                records = np.memmap(path, self._dtype, mode="r", shape=(count,))
                for row in records:
                    vector = row["vector"]
                    if zlib.crc32(row["key"].tobytes() + vector.tobytes()) == row["crc"]:
                        self._vectors[row["key"].tobytes()] = vector

    def __contains__(self, digest: str) -> bool:
        return bytes.fromhex(digest) in self._vectors

    def __getitem__(self, digest: str) -> np.ndarray:
        return self._vectors[bytes.fromhex(digest)]

    def add(self, digest: str, vector: np.ndarray) -> None:
        """Append one vector, (D,) float32."""
        assert vector.shape == (self.num_features,) and vector.dtype == np.float32, (
            vector.shape,
            vector.dtype,
        )
        key = bytes.fromhex(digest)
        crc = zlib.crc32(key + vector.tobytes())
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._file.open("ab") as file:
            if torn := file.tell() % self._dtype.itemsize:
                file.truncate(file.tell() - torn)
            file.write(key + crc.to_bytes(4, "little") + vector.astype("<f4").tobytes())
        self._vectors[key] = vector
