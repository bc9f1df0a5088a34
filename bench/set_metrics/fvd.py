"""What is peculiar to the Fréchet video distance (1812.01717): which clips, which frames, how many.

FVD is the Fréchet distance of I3D logits of two sets of clips, one vector a clip: its first 16 frames at the
rate it is read at, none left out. All clips count on either side; their number is a part of the value, for
the covariance of 400 logits from few clips biases it upwards, as FID's of 2048 features does. The usual
number is 2048 clips (StyleGAN-V's fvd2048_16f).
"""

from __future__ import annotations

USUAL_N = 2048


def small_n_warning(num_clips: int, num_reference: int) -> str | None:
    """A sentence for a reader if the value is mostly bias; None if N is usual."""
    least = min(num_clips, num_reference)
    if least >= USUAL_N:
        return None
    return (
        f"FVD of only {least} clips: the bias at small N is larger than most differences between models;"
        f" compare at equal N and reference only, or use {USUAL_N} and more"
    )
