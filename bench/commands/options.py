"""Options that several commands have, said once; a command adds the default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Limit = Annotated[int | None, typer.Option(help="N prompts of each category only, its splits by their share.")]
Models = Annotated[Path | None, typer.Option(help="Folder of the scorers' networks.", show_default=False)]
Out = Annotated[Path, typer.Option(help="Where results go.")]
Work = Annotated[Path, typer.Option(help="Where images and features are kept for resuming.")]
Checkpoint = Annotated[Path | None, typer.Option(help="Where the weights of a named model are.")]
RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="Run the model untrained, as a smoke test.")
]
NumInferenceSteps = Annotated[int | None, typer.Option(help="Denoising steps.")]
GuidanceScale = Annotated[float | None, typer.Option(help="1 is no guidance.")]
Sampler = Annotated[str | None, typer.Option(help="ddpm, ddim, dpmpp_2m, heun, unipc.")]
ImageSize = Annotated[int | None, typer.Option(help="Pixels along a side.")]
BatchSize = Annotated[int | None, typer.Option(help="Images per pass on a GPU.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Measure what is there; the result says so.")
]
