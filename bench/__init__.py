"""gentron-bench: measures any text-to-image system; only `bench.systems` knows how images were made."""
