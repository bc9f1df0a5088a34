"""What raters send back -> answers.jsonl: checked as a whole, merged so that doing it twice changes nothing.

Read are the page's JSON and CSV, MTurk's batch CSV and Label Studio's export. All files of a call are checked
before a byte is written; one bad file stops them all, and answers.jsonl stays as it was.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.humaneval.platforms import unprotect
from bench.humaneval.study import ANSWERS_FILE, Question, Study, Trial, beside, digest
from bench.systems.images import write_atomic
from gentron.config import from_dict
from gentron.errors import UserError
from gentron.versioned import parse_json

ANSWERS_KIND = "gentron-humaneval-answers"
ANSWERS_VERSION = 1
CSV_COLUMNS = ("study_id", "study_sha256", "rater", "trial", "choice", "ms")
MAX_BYTES = 256 << 20
MAX_MS = 7 * 24 * 3600 * 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A line of answers.jsonl: what one rater said of one trial. The last of a (rater, trial) counts."""

    study_id: str
    study_sha256: str
    rater: str
    trial: str
    choice: str
    ms: int
    """While the pair was in front of the rater; from a platform, its own time of the whole task."""
    at: str
    """ISO 8601, "" where the source does not say."""
    layout: str
    """row or column: how the page placed the two; "" from elsewhere."""
    source: str
    token: str
    """Of the browser or the assignment; tells a change of mind from a second person."""
    simulated: bool

    @property
    def said(self) -> tuple[str, int]:
        return self.choice, self.ms


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    added: int
    kept: int
    updated: int
    refused: dict[str, int]
    """Number of answers by the reason why they are none: a rejected assignment, a skipped task, ..."""
    total: int
    path: Path


# ---- answers.jsonl ---------------------------------------------------------------------------------------


def answers_path(study_folder: Path) -> Path:
    return beside(study_folder, "answers") / ANSWERS_FILE


def read_log(path: Path) -> list[Answer]:
    """All lines, in the order of import; UserError for a damaged file."""
    if not path.exists():
        return []
    answers = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        row = parse_json(line, f"{path}, line {number}")
        try:
            answers.append(from_dict(Answer, row))
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}") from error
    return answers


def latest(answers: Iterable[Answer]) -> dict[tuple[str, str], Answer]:
    """The answer that counts, by (rater, trial)."""
    return {(answer.rater, answer.trial): answer for answer in answers}


def import_answers(
    study: Study, study_sha256: str, files: list[Path], *, log: Path, rename: str | None = None
) -> Imported:
    """Check all files, then add what is new to `log`.

    rename: the rater's name for all answers, where a second person took the code of the first, or where a
    platform gave trials to whom it liked.
    """
    reader = Reader(study, study_sha256, rename)
    arriving = [answer for path in files for answer in reader.read(path)]
    written = read_log(log)
    for number, answer in enumerate(written, 1):
        reader.check(answer, f"{log}, line {number}")
    known = latest(written)
    counts = {"added": 0, "kept": 0, "updated": 0}
    new: list[Answer] = []
    for answer in arriving:
        key = (answer.rater, answer.trial)
        before = known.get(key)
        what = _merge(before, answer)
        counts[what] += 1
        if what != "kept":
            new.append(answer)
            known[key] = answer
    if new:
        lines = [json.dumps(asdict(answer), ensure_ascii=False) + "\n" for answer in (*written, *new)]
        write_atomic(log, "".join(lines).encode())
    return Imported(**counts, refused=reader.refused, total=len(known), path=log)


def _merge(before: Answer | None, answer: Answer) -> str:
    """added, kept or updated; UserError where two people answered under one name."""
    if before is None:
        return "added"
    if before.simulated != answer.simulated:
        raise UserError(
            f"rater {answer.rater} has both simulated and real answers: keep them in different studies"
        )
    if before.said == answer.said:
        return "kept"
    if before.token == answer.token and before.at and answer.at and before.at != answer.at:
        return "updated" if answer.at > before.at else "kept"  # one browser: a change of mind
    raise UserError(
        f"rater {answer.rater} answered trial {answer.trial} twice, as '{before.choice}' and as"
        f" '{answer.choice}': if these are two people, import the second with --as NAME"
    )


# ---- sources ---------------------------------------------------------------------------------------------


class Reader:
    """Files of answers to one study. `refused` counts what a file holds that is not an answer."""

    def __init__(self, study: Study, study_sha256: str, rename: str | None = None) -> None:
        self._study = study
        self._sha256 = study_sha256
        self._trials: dict[str, Trial] = {trial.id: trial for trial in study.trials}
        self._questions: dict[str, Question] = {question.name: question for question in study.questions}
        self._rename = rename
        if rename is not None and (not rename.strip() or rename in study.raters or not rename.isprintable()):
            raise ValueError(f"--as must be a name that is no rater code of the study, got '{rename}'")
        self.refused: dict[str, int] = {}

    def read(self, path: Path) -> list[Answer]:
        """The answers of a file of any known kind; UserError names the file and the place."""
        if not path.is_file():
            raise UserError(f"no file of answers '{path}'")
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path} is larger than {MAX_BYTES >> 20} MiB: not a file of answers")
        data = path.read_bytes()
        if not data.strip():
            raise UserError(f"{path} is empty")
        if data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
            answers = self._from_json(parse_json(data, str(path)), str(path))
        else:
            answers = self._from_csv(data, str(path))
        return self._without_twins(answers, str(path))

    def check(self, answer: Answer, where: str) -> Answer:
        """The answer itself; UserError if it does not belong to this study."""
        if answer.study_id != self._study.study_id:
            raise UserError(
                f"{where} answers study {answer.study_id[:40]!r}, this one is {self._study.study_id!r}"
            )
        if answer.study_sha256 != self._sha256:
            raise UserError(
                f"{where} answers another version of study {self._study.study_id}: its hash differs"
            )
        trial = self._trials.get(answer.trial)
        if trial is None:
            raise UserError(f"{where}: unknown trial {answer.trial[:40]!r}")
        codes = [choice.code for choice in self._questions[trial.question].choices]
        if answer.choice not in codes:
            raise UserError(
                f"{where}: trial {answer.trial} has the choice {answer.choice[:40]!r};"
                f" known: {', '.join(codes)}"
            )
        if not 0 <= answer.ms <= MAX_MS:
            raise UserError(f"{where}: trial {answer.trial} took {answer.ms} ms; expected 0 to {MAX_MS}")
        return answer

    def _refuse(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def _without_twins(self, answers: list[Answer], where: str) -> list[Answer]:
        """One answer a trial and rater; the same one twice is fine, two different ones are not."""
        found: dict[tuple[str, str], Answer] = {}
        for answer in answers:
            key = (answer.rater, answer.trial)
            if key in found and found[key].said != answer.said:
                raise UserError(
                    f"{where}: rater {answer.rater} answers trial {answer.trial} twice, differently"
                )
            if key in found:
                self._refuse("the same line twice")
            found[key] = answer
        return list(found.values())

    def _answer(self, row: dict[str, Any], where: str, *, from_page: bool) -> Answer:
        """A checked answer from the fields of any source."""
        code = self._code(row["trial"], row["choice"])
        answer = self.check(Answer(**{**row, "choice": code}), where)
        if from_page and self._rename is None:
            if answer.rater not in self._study.raters:
                known = ", ".join(self._study.raters[:6])
                raise UserError(f"{where}: unknown rater {answer.rater[:40]!r}; known: {known}")
            if self._trials[answer.trial].rater != answer.rater:
                raise UserError(f"{where}: trial {answer.trial} was not shown to rater {answer.rater}")
        return answer if self._rename is None else replace(answer, rater=self._rename)

    def _code(self, trial_id: str, choice: str) -> str:
        """The code of a choice that may be given by its label, as platforms without codes do."""
        trial = self._trials.get(trial_id)
        if trial is None:
            return choice
        labels = {one.label: one.code for one in self._questions[trial.question].choices}
        return labels.get(choice, choice)

    # ---- JSON

    def _from_json(self, value: Any, where: str) -> list[Answer]:
        if isinstance(value, list):
            return [
                a for k, task in enumerate(value, 1) for a in self._label_studio(task, f"{where}, task {k}")
            ]
        if value.get("kind") != ANSWERS_KIND:
            raise UserError(f"{where} is not a file of answers: its kind is {value.get('kind')!r}")
        if value.get("schema_version") != ANSWERS_VERSION:
            raise UserError(
                f"{where}: schema_version must be {ANSWERS_VERSION}, got {value.get('schema_version')!r}"
            )
        rows = value.get("answers")
        if not isinstance(rows, list):
            raise UserError(f'{where} must hold a list "answers"')
        head = {
            "study_id": _string(value, "study_id", where),
            "study_sha256": _string(value, "study_sha256", where),
            "rater": _string(value, "rater", where),
            "token": _string(value, "token", where),
            "simulated": _flag(value.get("simulated"), where),
            "source": "page",
        }
        return [self._page_row(head, row, f"{where}, answer {k}") for k, row in enumerate(rows, 1)]

    def _page_row(self, head: dict[str, Any], row: Any, where: str) -> Answer:
        if not isinstance(row, dict):
            raise UserError(f"{where} must be an object, got {str(row)[:40]!r}")
        fields = {
            **head,
            "trial": _string(row, "trial", where),
            "choice": _string(row, "choice", where),
            "ms": _milliseconds(row.get("ms"), where),
            "at": _time(row.get("at", ""), where),
            "layout": _layout(row.get("layout", ""), where),
        }
        return self._answer(fields, where, from_page=True)

    def _label_studio(self, task: Any, where: str) -> list[Answer]:
        """Annotations of a task, from Label Studio's JSON or JSON-MIN."""
        if not isinstance(task, dict):
            raise UserError(f"{where} must be an object")
        if isinstance(task.get("data"), dict) and isinstance(task.get("annotations"), list):
            return [
                answer
                for annotation in task["annotations"]
                if (answer := self._annotation(task["data"], annotation, where)) is not None
            ]
        if "trial" not in task or "annotator" not in task:
            raise UserError(f"{where} is neither an answer of the page nor an export of Label Studio")
        choice = task.get("choice")
        if choice is None:
            self._refuse("a task without an answer")
            return []
        annotation = {
            "completed_by": task["annotator"],
            "lead_time": task.get("lead_time"),
            "created_at": task.get("created_at", ""),
            "id": task.get("annotation_id", ""),
            "result": [{"from_name": "choice", "value": {"choices": [choice]}}],
        }
        answer = self._annotation(task, annotation, where)
        return [] if answer is None else [answer]

    def _annotation(self, data: dict[str, Any], annotation: Any, where: str) -> Answer | None:
        if not isinstance(annotation, dict):
            raise UserError(f"{where}: an annotation must be an object")
        if annotation.get("was_cancelled"):
            self._refuse("a skipped task")
            return None
        results = annotation.get("result")
        chosen = [
            choice
            for result in (results if isinstance(results, list) else [])
            if isinstance(result, dict) and result.get("from_name") == "choice"
            for choice in _choices(result.get("value"))
        ]
        if len(chosen) != 1:
            self._refuse("a task without an answer")
            return None
        who = annotation.get("completed_by")
        who = who.get("id") if isinstance(who, dict) else who
        fields = {
            "study_id": _string(data, "study_id", where),
            "study_sha256": _string(data, "study_sha256", where),
            "rater": self._outside("label-studio", str(who)),
            "trial": _string(data, "trial", where),
            "choice": str(chosen[0]),
            "ms": _milliseconds(1000 * _number(annotation.get("lead_time"), where), where),
            "at": _time(annotation.get("created_at", ""), where),
            "layout": "",
            "source": "label-studio",
            "token": f"annotation-{annotation.get('id', '')}",
            "simulated": False,
        }
        return self._answer(fields, where, from_page=False)

    def _outside(self, platform: str, who: str) -> str:
        """A rater known to a platform: a hash, because worker ids are personal data."""
        return f"{platform}-{digest(self._study.study_id, platform, who).hex()[:12]}"

    # ---- CSV

    def _from_csv(self, data: bytes, where: str) -> list[Answer]:
        try:
            text = data.decode("utf-8-sig")
            rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{where} is damaged: {error}") from error
        header = [name for name in (rows[0] if rows else {}) if name is not None]
        if "WorkerId" in header and "Input.trial" in header:
            read = self._mturk
        elif set(CSV_COLUMNS) <= set(header):
            read = self._csv_row
        else:
            shown = ", ".join(header)[:80] or text.splitlines()[0][:80]
            raise UserError(
                f"{where} is not a file of answers: it must have the columns {', '.join(CSV_COLUMNS)},"
                f" got {shown!r}"
            )
        answers = []
        for number, row in enumerate(rows, 2):
            place = f"{where}, line {number}"
            if None in row or None in row.values():
                raise UserError(f"{place} is cut off or has too many cells")
            answer = read({name: unprotect(value) for name, value in row.items()}, place)
            if answer is not None:
                answers.append(answer)
        return answers

    def _csv_row(self, row: dict[str, str], where: str) -> Answer | None:
        fields = {
            "study_id": row["study_id"],
            "study_sha256": row["study_sha256"],
            "rater": row["rater"],
            "trial": row["trial"],
            "choice": row["choice"],
            "ms": _milliseconds(_number(row["ms"], where), where),
            "at": _time(row.get("at", ""), where),
            "layout": _layout(row.get("layout", ""), where),
            "source": "page",
            "token": row.get("token", ""),
            "simulated": _flag(row.get("simulated", "false"), where),
        }
        return self._answer(fields, where, from_page=True)

    def _mturk(self, row: dict[str, str], where: str) -> Answer | None:
        if row.get("AssignmentStatus", "").lower() == "rejected":
            self._refuse("a rejected assignment")
            return None
        choice = _mturk_choice(row, where)
        if choice is None:
            self._refuse("an assignment without an answer")
            return None
        fields = {
            "study_id": row.get("Input.study_id", ""),
            "study_sha256": row.get("Input.study_sha256", ""),
            "rater": self._outside("mturk", row["WorkerId"]),
            "trial": row["Input.trial"],
            "choice": choice,
            "ms": _milliseconds(1000 * _number(row.get("WorkTimeInSeconds"), where), where),
            "at": "",  # SubmitTime has no fixed form
            "layout": "",
            "source": "mturk",
            "token": f"assignment-{row.get('AssignmentId', '')}",
            "simulated": False,
        }
        return self._answer(fields, where, from_page=False)


def _mturk_choice(row: dict[str, str], where: str) -> str | None:
    """The radio button of a batch's CSV: one column, one column a button, or JSON in Answer.taskAnswers."""
    if row.get("Answer.choice"):
        return row["Answer.choice"]
    ticked = [
        name.removeprefix("Answer.choice.")
        for name, value in row.items()
        if name.startswith("Answer.choice.") and value.lower() in ("true", "on")
    ]
    if row.get("Answer.taskAnswers"):
        tasks = parse_json(row["Answer.taskAnswers"].encode(), f"{where}, Answer.taskAnswers")
        given = (
            tasks[0].get("choice")
            if isinstance(tasks, list) and tasks and isinstance(tasks[0], dict)
            else None
        )
        if isinstance(given, str):
            ticked.append(given)
        elif isinstance(given, dict):
            ticked += [str(name) for name, value in given.items() if value is True]
    return ticked[0] if len(ticked) == 1 else None


# ---- fields ----------------------------------------------------------------------------------------------


def _string(row: dict[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise UserError(f"{where}: {name} must be a string, got {str(value)[:40]!r}")
    return value


def _choices(value: Any) -> list[Any]:
    chosen = value.get("choices") if isinstance(value, dict) else None
    return chosen if isinstance(chosen, list) else []


def _number(value: Any, where: str) -> float:
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where}: a time must be a number, got {str(value)[:40]!r}")
    return number


def _milliseconds(value: Any, where: str) -> int:
    return round(_number(value, where))


def _flag(value: Any, where: str) -> bool:
    if value in (True, False) and isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise UserError(f"{where}: simulated must be true or false, got {str(value)[:40]!r}")


def _layout(value: Any, where: str) -> str:
    if value not in ("", "row", "column"):
        raise UserError(f"{where}: layout must be row or column, got {str(value)[:40]!r}")
    return value


def _time(value: Any, where: str) -> str:
    try:
        if value != "":
            datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: at must be a time in ISO 8601, got {str(value)[:40]!r}") from error
    return value
