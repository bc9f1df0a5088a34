"""A prompt: what a system is asked, and what a scorer may know about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gentron.shapes.captions import Description
    from gentron.shapes.motion import Movement
    from gentron.shapes.motion_captions import ClipDescription

SEEN, HELD_OUT = "seen", "held-out"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One line of a prompt list.

    split: the part of the list that it belongs to, reported on its own; None where a list has no parts.
    description, heldout: of the shapes world only: what the text says, and the kinds of combination in it
    that training never sees.
    moves: of clips of that world: how each object of the description moves.
    """

    id: str
    category: str
    text: str
    split: str | None = None
    description: Description | None = None
    heldout: tuple[str, ...] = ()
    moves: tuple[Movement, ...] = ()

    @property
    def claim(self) -> Description:
        """The description; ValueError for a prompt that has none, which no rule can judge."""
        if self.description is None:
            raise ValueError(f"prompt {self.id} has no description: the shapes judge cannot score it")
        return self.description

    @property
    def clip_claim(self) -> ClipDescription:
        """What the text says of objects and motions; ValueError for a prompt that says nothing of motion."""
        from gentron.shapes.motion_captions import ClipDescription

        if not self.moves:
            raise ValueError(f"prompt {self.id} says nothing of motion: the judge of motion cannot score it")
        return ClipDescription(self.claim.objects, self.moves)
