"""What a reader must know beside a result: the one place that decides it. Each view chooses its words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.prompts.protocol import ProtocolConfig, read_config
from bench.results.record import UNTRAINED_NOTE, Result, phrase_sources
from bench.scorers.phrases import described
from bench.weights import RANDOM_NOTE
from gentron.errors import UserError

Kind = Literal["bad", "note"]
VOID = ("untrained", "rehearsal")  # these make the numbers no result at all


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultWarning:
    """Why the numbers are not, or not quite, the protocol's.

    kind: "bad", they are no result of the system; "note", they are, but.   short: a few words.   text: a
    sentence without its full stop.
    """

    name: str
    kind: Kind
    short: str
    text: str


def warnings(result: Result) -> list[ResultWarning]:
    """All of them, the gravest first."""
    found: list[ResultWarning] = []

    def add(name: str, kind: Kind, short: str, text: str) -> None:
        found.append(ResultWarning(name=name, kind=kind, short=short, text=text))

    if result.is_rehearsal:
        add("rehearsal", "bad", "random scorer weights", RANDOM_NOTE)
    if result.system.untrained:
        add("untrained", "bad", "untrained", UNTRAINED_NOTE)
    counts = result.counts
    if counts.missing:
        lost = f"{counts.missing} of {counts.expected} images are missing"
        add("missing", "bad", f"{counts.missing} missing", f"{lost}: the means are over survivors only")
    if counts.num_blank:
        text = f"{counts.num_blank} of {counts.scored} pictures are blank: of one colour, scored as they are"
        add("blank", "bad", f"{counts.num_blank} blank", text)
    if result.limit is not None:
        which = "seeded" if result.limit_choice and result.limit_choice.rule == "stratified" else "first"
        text = f"{which} {result.limit} prompts of each category only: not the full protocol"
        add("limit", "note", f"{which} {result.limit}", text)
    if result.suite != "all":
        add("suite", "note", f"suite {result.suite}", f"suite {result.suite} only")
    if result.skipped:
        names = ", ".join(skipped.metric for skipped in result.skipped)
        add("skipped", "note", f"{len(result.skipped)} skipped", f"not measured: {names}")
    asked = installed_protocol(result)
    if asked and result.images_per_prompt != asked.images_per_prompt:
        text = f"{result.images_per_prompt} images a prompt, the protocol asks for {asked.images_per_prompt}"
        add("images_per_prompt", "note", f"{result.images_per_prompt} a prompt", text)
    if asked and result.seed != asked.seed:
        add("seed", "note", f"seed {result.seed}", f"seed {result.seed}, the protocol's is {asked.seed}")
    for category, edition in result.editions.items():
        add("edition", "note", f"{category}: {edition}", f"{category}: prompt list {edition}")
    for name, record in phrase_sources(result.scorers.values()).items():
        if not record.get("pinned"):
            add("phrases", "note", f"phrases {name}", f"noun phrases: {described(record)}")
    if result.provenance.dirty:
        text = "the bench's own code had uncommitted changes"
        add("dirty", "note", "uncommitted code", text)
    return found


def installed_protocol(result: Result) -> ProtocolConfig | None:
    """The protocol of this very hash; None if this bench has it not, or with another hash."""
    try:
        config, digest = read_config(result.protocol)
    except UserError:
        return None
    return config if digest == result.protocol_sha256 else None
