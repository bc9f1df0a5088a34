"""The prompts of a study: where they are read from, and the seeded draw, frozen before anybody looks."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from bench.humaneval.study import PromptSource, digest
from bench.prompts import Prompt
from bench.prompts.sets import (
    PARTIPROMPTS,
    PARTIPROMPTS_FILE,
    PartiPrompt,
    find_prompt_set,
    load_partiprompts,
    parse_partiprompts,
    split_lines,
)
from gentron.errors import UserError
from gentron.hashing import sha256

NUM_PARTIPROMPTS = 100  # as in the paper's user study
MAX_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """prompts: those drawn.   available: all of the source, in its order."""

    prompts: list[Prompt]
    available: list[Prompt]
    source: PromptSource


def read_prompts(name: str, *, num_prompts: int | None, seed: int) -> Drawn:
    """The prompts that `--prompts` names, drawn by category where fewer than all are asked for.

    name: a file (.txt one a line, .jsonl, .tsv as PartiPrompts), `partiprompts` (fetched, as pinned), or a
    protocol.
    """
    available, source, hashed = _load(name)
    if num_prompts is None:
        num_prompts = NUM_PARTIPROMPTS if source == PARTIPROMPTS else len(available)
    if num_prompts < 1:
        raise ValueError(f"--num-prompts must be >= 1, got {num_prompts}")
    if num_prompts > len(available):
        raise UserError(f"--num-prompts {num_prompts}: '{name}' holds {len(available)} prompts")
    drawn = draw(available, num_prompts, seed=seed)
    return Drawn(
        prompts=drawn,
        available=available,
        source=PromptSource(
            name=source, sha256=hashed, num_available=len(available), num_drawn=len(drawn), seed=seed
        ),
    )


def draw(prompts: list[Prompt], count: int, *, seed: int) -> list[Prompt]:
    """`count` prompts, each category by its share (largest remainders), in the order of the list.

    Which of a category: those with the smallest sha256 of (seed, id), so the draw is the same everywhere.
    """
    groups: dict[str, list[Prompt]] = defaultdict(list)
    for prompt in prompts:
        groups[prompt.category].append(prompt)
    shares = {name: Fraction(count * len(group), len(prompts)) for name, group in groups.items()}
    sizes = {name: int(share) for name, share in shares.items()}
    by_remainder = sorted(groups, key=lambda name: (sizes[name] - shares[name], digest(seed, name)))
    for name in by_remainder[: count - sum(sizes.values())]:
        sizes[name] += 1
    kept = {
        prompt.id
        for name, group in groups.items()
        for prompt in sorted(group, key=lambda prompt: digest(seed, prompt.id))[: sizes[name]]
    }
    return [prompt for prompt in prompts if prompt.id in kept]


# ---- sources ---------------------------------------------------------------------------------------------


def _load(name: str) -> tuple[list[Prompt], str, str]:
    """All prompts, the source's name and its sha256."""
    path = Path(name)
    if name == PARTIPROMPTS:
        data = _read(find_prompt_set(PARTIPROMPTS) / PARTIPROMPTS_FILE)
        return _checked(_parti(load_partiprompts()), name), PARTIPROMPTS, sha256(data)
    if path.is_file():
        data = _read(path)
        parse = {".tsv": parse_tsv, ".jsonl": parse_jsonl}.get(path.suffix.lower(), parse_lines)
        return _checked(parse(data, str(path)), name), path.name, sha256(data)
    from bench.prompts.protocol import load_protocol, protocol_names

    if name in protocol_names():
        protocol = load_protocol(name)
        prompts = [prompt for group in protocol.prompts.values() for prompt in group]
        return _checked(prompts, name), name, protocol.sha256
    raise UserError(
        f"no prompts '{name}': expected a file, {PARTIPROMPTS}, or a protocol ({', '.join(protocol_names())})"
    )


def _read(path: Path) -> bytes:
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} is larger than {MAX_BYTES >> 20} MiB: not a list of prompts")
    return path.read_bytes()


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 text: {error.reason}") from error


def parse_lines(data: bytes, where: str) -> list[Prompt]:
    """One prompt a line; empty lines are skipped but counted, so an id is its line's."""
    lines = _text(data, where).splitlines()
    return [
        Prompt(id=f"line-{number:04d}", category="all", text=line.strip())
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]


def parse_jsonl(data: bytes, where: str) -> list[Prompt]:
    """Objects with "id" and "text", and "category" where there are several."""
    prompts = []
    for number, line in enumerate(_text(data, where).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise UserError(f"{where}, line {number} is not JSON: {error}") from error
        if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in ("id", "text")):
            raise UserError(f'{where}, line {number} must be an object with strings "id" and "text"')
        category = row.get("category", "all")
        if not isinstance(category, str):
            raise UserError(f'{where}, line {number}: "category" must be a string, got {category!r}')
        prompts.append(Prompt(id=row["id"], category=category, text=row["text"].strip()))
    return prompts


def parse_tsv(data: bytes, where: str) -> list[Prompt]:
    """Rows in the format of PartiPrompts."""
    _text(data, where)  # says what is wrong with other encodings
    return _parti(parse_partiprompts(split_lines(data), where))


def _parti(rows: list[PartiPrompt]) -> list[Prompt]:
    return [Prompt(id=row.id, category=row.category, text=row.text.strip()) for row in rows]


def _checked(prompts: list[Prompt], where: str) -> list[Prompt]:
    if not prompts:
        raise UserError(f"no prompts in '{where}'")
    seen = set()
    for prompt in prompts:
        if not re.fullmatch(r"[\w.-]{1,100}", prompt.id) or prompt.id.strip(".") == "":
            raise UserError(f"'{where}': prompt id '{prompt.id[:40]}' must be letters, digits, . _ -")
        if not prompt.text or "\0" in prompt.text:
            raise UserError(f"'{where}': prompt {prompt.id} has no text")
        if prompt.id in seen:
            raise UserError(f"'{where}': prompt id '{prompt.id}' occurs twice")
        seen.add(prompt.id)
    return prompts
