"""Where training samples come from: sample(global index) -> (latents, caption), and nothing else random."""

from gentron.data.keyed import Stream, keyed_rng
from gentron.data.source import Batch, DataSource, item_of_index

__all__ = ["Batch", "DataSource", "Stream", "item_of_index", "keyed_rng"]
