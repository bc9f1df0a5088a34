"""Study + key + answers -> win / draw / lose with what it is worth. Decides; report.py prints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bench.humaneval.ingest import Answer, latest
from bench.humaneval.statistics import (
    NUM_RESAMPLES,
    Interval,
    krippendorff_alpha,
    overlaps,
    prompt_bootstrap,
    sign_test,
    two_way_interval,
)
from bench.humaneval.study import GOLD, PAIR, REPEAT, Key, KeyTrial, Question, Rules, Study
from bench.results.published import studies
from gentron.errors import UserError

SCHEMA_VERSION = 1
ANALYSIS_KIND = "gentron-humaneval-analysis"
OUTCOMES = ("lose", "draw", "win")  # from low to high, of system A
SIMULATED_NOTE = "simulated raters: a rehearsal, not a result"


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """interval: for new prompts and raters.   prompt_interval: for new prompts, these raters; bootstrap."""

    value: float
    interval: tuple[float, float] | None
    prompt_interval: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Sign:
    for_a: int
    tied: int
    for_b: int
    p: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """A question over a set of votes; `a` is the system whose win is counted."""

    votes: int
    prompts: int
    raters: int
    two_way: bool
    """False where raters do not overlap: the intervals are then by prompt alone."""
    win: Share
    draw: Share
    lose: Share
    net: Share
    sign: Sign
    alpha_nominal: float | None
    alpha_ordinal: float | None
    left_pick: Share | None
    """Share of left among decided votes; None if all are ties."""
    codes: dict[str, int]
    """Votes by what was pressed, left and right as seen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RaterRecord:
    rater: str
    answers: int
    fast: int
    gold: int
    gold_failed: int
    repeats: int
    contradicted: int
    """Flipped repeats in which the other system was preferred."""
    median_seconds: float | None
    left_share: float | None
    """Of the rater's decided answers to pairs and repeats."""
    excluded: list[str]
    """Rules that were broken; empty for a rater who counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionResult:
    name: str
    ask: str
    before: Summary | None
    """All votes."""
    after: Summary | None
    """Without the raters and answers that the study's rules drop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A published row, for orientation: other systems, prompts, wording and raters."""

    source: str
    question: str
    a: str
    b: str
    win: float
    draw: float
    lose: float
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Analysis:
    schema_version: int
    kind: str
    study_id: str
    study_sha256: str
    key_sha256: str
    simulated: bool
    a: str
    b: str
    prompts_source: str
    expected: int
    """Answers that all raters of the study would give; more come from platforms."""
    answers: int
    dropped_fast: int
    rules: Rules
    raters: list[RaterRecord]
    questions: list[QuestionResult]
    references: list[Reference]
    resamples: int
    notes: list[str]


_NOTE = (
    "GenTron, section 4: user study on 100 PartiPrompts, 3000 responses, wording unpublished; win and draw"
    " are published, lose is what is left of 100. Another study: not comparable"
)


def references() -> list[Reference]:
    """The paper's rows, one a question, as fractions."""
    (published,) = studies()
    return [
        Reference(
            source="paper",
            question=question,
            a=published.study.a,
            b=published.study.b,
            win=round(shares.win / 100, 4),
            draw=round(shares.draw / 100, 4),
            lose=round(shares.lose / 100, 4),
            note=_NOTE,
        )
        for question, shares in published.study.questions.items()
    ]


# ---- votes -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Vote:
    """An answer with the key applied. net: 1 for system A (of gold items: the intact one), 0, -1."""

    rater: str
    question: str
    prompt_id: str
    kind: str
    code: str
    side: str
    """left, right or tie, as pressed."""
    net: int
    seconds: float


def to_votes(study: Study, key: Key, answers: Iterable[Answer]) -> list[Vote]:
    questions = {trial.id: study.question(trial.question) for trial in study.trials}
    votes = []
    for answer in answers:
        question, truth = questions[answer.trial], key.trials[answer.trial]
        side = question.outcome(answer.choice)
        votes.append(
            Vote(
                rater=answer.rater,
                question=question.name,
                prompt_id=truth.prompt_id,
                kind=truth.kind,
                code=answer.choice,
                side=side,
                net=_net(side, truth),
                seconds=answer.ms / 1000,
            )
        )
    return votes


def _net(side: str, truth: KeyTrial) -> int:
    if side == "tie":
        return 0
    return 1 if (side == "left") == (truth.left in ("a", "intact")) else -1


def gold_failed(vote: Vote) -> bool:
    """The corrupted one chosen or called as good; "neither fits" may be true of an intact one too."""
    return vote.net < 0 or (vote.net == 0 and vote.code != "both_bad")


def judge_rater(rater: str, votes: list[Vote], rules: Rules) -> RaterRecord:
    """What the study's rules say of a rater, from all the rater's answers."""
    gold = [vote for vote in votes if vote.kind == GOLD]
    failed = sum(map(gold_failed, gold))
    fast = sum(vote.seconds < rules.min_seconds for vote in votes)
    first = {(vote.question, vote.prompt_id): vote.net for vote in votes if vote.kind == PAIR}
    again = [
        (first[vote.question, vote.prompt_id], vote.net)
        for vote in votes
        if vote.kind == REPEAT and (vote.question, vote.prompt_id) in first
    ]
    contradicted = sum(one * other < 0 for one, other in again)
    decided = [vote.side for vote in votes if vote.kind != GOLD and vote.side != "tie"]
    broken = [
        f"{count} of {of} {what}"
        for count, of, limit, what in (
            (fast, len(votes), rules.max_fast_share, f"answers faster than {rules.min_seconds:g} s"),
            (failed, len(gold), rules.max_gold_failed_share, "gold items failed"),
            (contradicted, len(again), rules.max_contradicted_share, "flipped repeats contradicted"),
        )
        if of >= rules.min_checks and count / of > limit
    ]
    return RaterRecord(
        rater=rater,
        answers=len(votes),
        fast=fast,
        gold=len(gold),
        gold_failed=failed,
        repeats=len(again),
        contradicted=contradicted,
        median_seconds=float(np.median([vote.seconds for vote in votes])) if votes else None,
        left_share=decided.count("left") / len(decided) if decided else None,
        excluded=broken,
    )


# ---- one question ----------------------------------------------------------------------------------------


def summarise(votes: list[Vote]) -> Summary | None:
    """Votes on pairs of one question; None for none."""
    if not votes:
        return None
    net = np.array([vote.net for vote in votes], dtype=np.float64)
    prompts = np.array([vote.prompt_id for vote in votes])
    raters = np.array([vote.rater for vote in votes])
    columns = np.stack([net > 0, net == 0, net < 0, net], axis=1).astype(np.float64)
    resampled = prompt_bootstrap(columns, prompts) if len(set(prompts.tolist())) > 1 else [None] * 4
    shares = [
        Share(
            value=float(column.mean()),
            interval=two_way_interval(column, prompts, raters, low=low),
            prompt_interval=by_prompt,
        )
        for column, low, by_prompt in zip(columns.T, (0.0, 0.0, 0.0, -1.0), resampled, strict=True)
    ]
    sign = sign_test(net, prompts)
    units = [(vote.prompt_id, vote.code if vote.side == "tie" else str(vote.net)) for vote in votes]
    ranks = [(vote.prompt_id, vote.net) for vote in votes]
    return Summary(
        votes=len(votes),
        prompts=len(set(prompts.tolist())),
        raters=len(set(raters.tolist())),
        two_way=overlaps(prompts, raters),
        win=shares[0],
        draw=shares[1],
        lose=shares[2],
        net=shares[3],
        sign=Sign(for_a=sign.for_a, tied=sign.tied, for_b=sign.for_b, p=sign.p),
        alpha_nominal=krippendorff_alpha(units),
        alpha_ordinal=krippendorff_alpha(ranks, order=(-1, 0, 1)),
        left_pick=left_pick(votes),
        codes={
            code: sum(vote.code == code for vote in votes) for code in sorted({vote.code for vote in votes})
        },
    )


def left_pick(votes: list[Vote]) -> Share | None:
    """How often the left one was taken where one was: 0.5 without a habit, sides being balanced."""
    decided = [vote for vote in votes if vote.side != "tie"]
    if not decided:
        return None
    values = np.array([vote.side == "left" for vote in decided], dtype=np.float64)
    prompts = np.array([vote.prompt_id for vote in decided])
    raters = np.array([vote.rater for vote in decided])
    found: Interval | None = two_way_interval(values, prompts, raters)
    return Share(value=float(values.mean()), interval=found, prompt_interval=None)


# ---- the whole -------------------------------------------------------------------------------------------


def analyse(
    study: Study, study_sha256: str, key: Key, answers: Iterable[Answer], *, allow_simulated: bool
) -> Analysis:
    """Apply the key and the rules of the study to what was imported."""
    counted = list(latest(answers).values())
    if not counted:
        raise UserError(f"no answers to study {study.study_id}: import some with 'humaneval import'")
    simulated = {answer.simulated for answer in counted}
    if len(simulated) > 1:
        raise UserError("simulated and real answers lie in one file: they must never be mixed")
    is_simulated = simulated == {True}
    if is_simulated and not allow_simulated:
        raise UserError(f"the answers are of {SIMULATED_NOTE}; to rehearse, add --allow-simulated")
    votes = to_votes(study, key, counted)
    by_rater: dict[str, list[Vote]] = {}
    for vote in votes:
        by_rater.setdefault(vote.rater, []).append(vote)
    raters = [judge_rater(name, by_rater[name], study.rules) for name in sorted(by_rater)]
    out = {record.rater for record in raters if record.excluded}
    attentive = [vote for vote in votes if vote.rater not in out]
    kept = [vote for vote in attentive if vote.seconds >= study.rules.min_seconds]
    names = {question.name for question in study.questions}
    return Analysis(
        schema_version=SCHEMA_VERSION,
        kind=ANALYSIS_KIND,
        study_id=study.study_id,
        study_sha256=study_sha256,
        key_sha256=study.key_sha256,
        simulated=is_simulated,
        a=_label(key, "a"),
        b=_label(key, "b"),
        prompts_source=f"{key.source.num_drawn} of {key.source.num_available} prompts of {key.source.name}",
        expected=len(study.trials),
        answers=len(votes),
        dropped_fast=len(attentive) - len(kept),
        rules=study.rules,
        raters=raters,
        questions=[_result(question, votes, kept) for question in study.questions],
        references=[row for row in references() if row.question in names],
        resamples=NUM_RESAMPLES,
        notes=_notes(study, key, counted, raters, is_simulated),
    )


def _result(question: Question, votes: list[Vote], kept: list[Vote]) -> QuestionResult:
    def pairs(some: list[Vote]) -> list[Vote]:
        return [vote for vote in some if vote.kind == PAIR and vote.question == question.name]

    return QuestionResult(
        name=question.name, ask=question.ask, before=summarise(pairs(votes)), after=summarise(pairs(kept))
    )


def _label(key: Key, side: str) -> str:
    system = key.systems[side]
    other = key.systems["b" if side == "a" else "a"]
    name = system.name if system.name != other.name else system.spec
    if system.spec == other.spec:  # the same model with other settings
        differ = [f"{k} {v}" for k, v in system.settings.items() if other.settings.get(k) != v]
        name = ", ".join([system.name, *differ])
    return f"{name} (untrained)" if system.untrained else name


def _notes(
    study: Study, key: Key, answers: list[Answer], raters: list[RaterRecord], is_simulated: bool
) -> list[str]:
    """What a reader must know beside the numbers."""
    notes = [SIMULATED_NOTE] if is_simulated else []
    given = {(answer.rater, answer.trial) for answer in answers}
    missing = sum((trial.rater, trial.id) not in given for trial in study.trials)
    outside = {answer.rater for answer in answers} - set(study.raters)
    if missing and not outside:
        notes.append(f"{missing} of {len(study.trials)} answers are missing: the study is not complete")
    if outside:
        notes.append(
            f"{len(outside)} raters come from a platform or were renamed: sides are balanced over rows"
        )
    dropped = [record.rater for record in raters if record.excluded]
    if dropped:
        notes.append(f"excluded by the rules: {', '.join(dropped)}")
    if len({answer.rater for answer in answers}) < 2:
        notes.append("one rater: the intervals say nothing of other raters")
    columns = sum(answer.layout == "column" for answer in answers)
    if columns:
        notes.append(
            f"{columns} answers were given with the two one above the other: left is then the upper one"
        )
    return [*notes, *key.settings.get("notes", [])]
