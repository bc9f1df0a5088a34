"""An analysis as Markdown and as a bar plot. Decides nothing."""

from __future__ import annotations

from xml.sax.saxutils import escape

from bench.humaneval.analyse import Analysis, QuestionResult, Reference, Share, Summary

WIN, DRAW, LOSE = "#2b6a99", "#c9c9c9", "#a85a17"  # apart also in grey and for the colour-blind
WIDTH, LABELS, BAR, GAP, TOP = 860, 210, 34, 30, 74


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def with_interval(share: Share) -> str:
    if share.interval is None:
        return percent(share.value)
    low, high = share.interval
    return f"{percent(share.value)} [{percent(low)}, {percent(high)}]"


def _by_prompt(share: Share) -> str:
    return "-" if share.prompt_interval is None else "[{}, {}]".format(*map(percent, share.prompt_interval))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def cell(text: str) -> str:
    """Text in a Markdown table that stays text."""
    return escape(" ".join(text.split())).replace("|", "\\|")


# ---- Markdown --------------------------------------------------------------------------------------------


def markdown(analysis: Analysis) -> str:
    a, b = cell(analysis.a), cell(analysis.b)
    lines = [f"# Human study {analysis.study_id}: {a} against {b}", ""]
    if analysis.simulated:
        lines += ["**Simulated raters: a rehearsal, not a result.**", ""]
    lines += [
        f"{cell(analysis.prompts_source)}; {analysis.answers} of {analysis.expected} answers from"
        f" {len(analysis.raters)} raters. Win, draw and lose are of {a}, in percent, with 95 % intervals"
        " for new prompts and new raters.",
        "",
        "![win, draw, lose](analysis.svg)",
        "",
        "| question | votes | win | draw | lose | net preference |",
        "|---|---|---|---|---|---|",
    ]
    for question in analysis.questions:
        for label, summary in (("after the rules", question.after), ("all votes", question.before)):
            lines.append(_result_row(f"{question.name}, {label}", summary))
    for row in analysis.references:
        lines.append(_reference_row(row))
    lines += ["", *(f"- {cell(note)}" for note in analysis.notes)]
    lines += [f"- {cell(analysis.references[0].note)}."] if analysis.references else []
    for question in analysis.questions:
        lines += ["", *_details(question, a, b)]
    lines += ["", *_raters(analysis), ""]
    return "\n".join(lines)


def _result_row(label: str, summary: Summary | None) -> str:
    if summary is None:
        return f"| {label} | 0 | - | - | - | - |"
    shares = (summary.win, summary.draw, summary.lose, summary.net)
    return f"| {label} | {summary.votes} | " + " | ".join(map(with_interval, shares)) + " |"


def _reference_row(row: Reference) -> str:
    shares = (row.win, row.draw, row.lose, row.win - row.lose)
    label = f"*{row.question}, {row.a} against {row.b} ({row.source})*"
    return f"| {label} | | " + " | ".join(f"*{percent(share)}*" for share in shares) + " |"


def _details(question: QuestionResult, a: str, b: str) -> list[str]:
    lines = [
        f"## {question.name}: {cell(question.ask)}",
        "",
        "| | after the rules | all votes |",
        "|---|---|---|",
    ]
    both = (question.after, question.before)

    def row(label: str, show) -> None:
        lines.append(f"| {label} | " + " | ".join("-" if s is None else show(s) for s in both) + " |")

    row("votes / prompts / raters", lambda s: f"{s.votes} / {s.prompts} / {s.raters}")
    for name in ("win", "draw", "lose", "net"):
        row(f"{name}, bootstrap over prompts alone", lambda s, name=name: _by_prompt(getattr(s, name)))
    row(f"prompts for {a} / tied / for {b}", lambda s: f"{s.sign.for_a} / {s.sign.tied} / {s.sign.for_b}")
    row("sign test, p", lambda s: f"{s.sign.p:.2g}")
    row("Krippendorff's alpha, nominal", lambda s: _number(s.alpha_nominal))
    row("Krippendorff's alpha, ordinal", lambda s: _number(s.alpha_ordinal))
    row("left taken, of decided votes", lambda s: "-" if s.left_pick is None else with_interval(s.left_pick))
    row("what was pressed", lambda s: ", ".join(f"{code} {count}" for code, count in s.codes.items()))
    return lines


def _raters(analysis: Analysis) -> list[str]:
    rules = analysis.rules
    lines = [
        "## Raters",
        "",
        f"Declared before the first answer: an answer in less than {rules.min_seconds:g} s does not count"
        f" ({analysis.dropped_fast} of raters who count); a rater is excluded with more than"
        f" {100 * rules.max_fast_share:g} % of such answers, {100 * rules.max_gold_failed_share:g} % of the"
        f" gold items failed, or {100 * rules.max_contradicted_share:g} % of the flipped repeats contradicted"
        f" (of at least {rules.min_checks}).",
        "",
        "| rater | answers | too fast | gold failed | contradicted | median s | left | excluded |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in analysis.raters:
        seconds = "-" if r.median_seconds is None else f"{r.median_seconds:.1f}"
        left = "-" if r.left_share is None else percent(r.left_share)
        lines.append(
            f"| {cell(r.rater)} | {r.answers} | {r.fast} | {r.gold_failed}/{r.gold} |"
            f" {r.contradicted}/{r.repeats} | {seconds} | {left} | {cell('; '.join(r.excluded))} |"
        )
    return lines


# ---- the plot --------------------------------------------------------------------------------------------


def svg(analysis: Analysis) -> str:
    """Stacked bars of win, draw and lose, a question each, the published row below in outline."""
    rows: list[tuple[str, str, tuple[float, float, float], Summary | None]] = []
    for question in analysis.questions:
        summary = question.after
        if summary is not None:
            shares = (summary.win.value, summary.draw.value, summary.lose.value)
            what = f"{summary.votes} votes, {summary.raters} raters"
            rows.append((question.name, what, shares, summary))
        for row in analysis.references:
            if row.question == question.name:
                rows.append(
                    (f"{row.a} / {row.b}", "published, another study", (row.win, row.draw, row.lose), None)
                )
    height = TOP + len(rows) * (BAR + GAP) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' height="{height}" role="img" font-family="system-ui, sans-serif" font-size="13" fill="#222">',
        f"<title>{escape(f'{analysis.a} against {analysis.b}: win, draw, lose')}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        *_legend(analysis),
    ]
    for place, (name, what, shares, summary) in enumerate(rows):
        parts += _bar(TOP + place * (BAR + GAP), name, what, shares, summary)
    parts += _axis(height - 34)
    parts.append(
        f'<text x="20" y="{height - 21}" fill="#666" font-size="11.5">thin lines: 95 % intervals</text>'
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _x(share: float) -> float:
    return LABELS + share * (WIDTH - LABELS - 30)


def _legend(analysis: Analysis) -> list[str]:
    title = f"{analysis.a} against {analysis.b}"
    if analysis.simulated:
        title += " · SIMULATED RATERS, not a result"
    parts = [f'<text x="20" y="26" font-size="16" font-weight="600">{escape(_short(title, 96))}</text>']
    place = LABELS
    for color, label in ((WIN, f"{analysis.a} wins"), (DRAW, "draw"), (LOSE, f"{analysis.b} wins")):
        label = _short(label, 26)
        parts.append(f'<rect x="{place}" y="42" width="12" height="12" fill="{color}"/>')
        parts.append(f'<text x="{place + 18}" y="53">{escape(label)}</text>')
        place += 40 + 7.2 * len(label)
    return parts


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _bar(
    y: float, name: str, what: str, shares: tuple[float, float, float], summary: Summary | None
) -> list[str]:
    mine = summary is not None
    parts = [
        f'<text x="20" y="{y + 15}" font-weight="{600 if mine else 400}">{escape(_short(name, 28))}</text>',
        f'<text x="20" y="{y + 31}" fill="#666" font-size="11.5">{escape(what)}</text>',
    ]
    start = 0.0
    for share, color, ink in zip(shares, (WIN, DRAW, LOSE), ("#fff", "#222", "#fff"), strict=True):
        left, width = _x(start), _x(start + share) - _x(start)
        look = f'fill="{color}"' if mine else f'fill="{color}" fill-opacity=".3"'
        parts.append(f'<rect x="{left:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" {look}/>')
        if width > 34:
            at, color_of_text = left + width / 2, ink if mine else "#222"
            parts.append(
                f'<text x="{at:.1f}" y="{y + 22}" text-anchor="middle" fill="{color_of_text}">'
                f"{percent(share)}</text>"
            )
        start += share
    if summary is not None:
        parts += _whisker(y + BAR + 6, summary.win.interval, mirrored=False)
        parts += _whisker(y + BAR + 15, summary.lose.interval, mirrored=True)
    return parts


def _whisker(y: float, interval: tuple[float, float] | None, *, mirrored: bool) -> list[str]:
    """The interval of a win from the left, of a lose from the right, under the bar."""
    if interval is None:
        return []
    low, high = interval if not mirrored else (1 - interval[1], 1 - interval[0])
    color, x1, x2 = (LOSE if mirrored else WIN), _x(low), _x(high)
    ends = "".join(f'<path d="M{x:.1f} {y - 3}v6" />' for x in (x1, x2))
    return [f'<g stroke="{color}" stroke-width="2" fill="none"><path d="M{x1:.1f} {y}H{x2:.1f}"/>{ends}</g>']


def _axis(y: float) -> list[str]:
    parts = [f'<path d="M{_x(0):.1f} {y - 6}H{_x(1):.1f}" stroke="#999"/>']
    for tick in range(0, 101, 25):
        x = _x(tick / 100)
        parts.append(f'<path d="M{x:.1f} {y - 6}v5" stroke="#999"/>')
        parts.append(f'<text x="{x:.1f}" y="{y + 13}" text-anchor="middle" fill="#666">{tick} %</text>')
    middle = _x(0.5)
    parts.append(
        f'<path d="M{middle:.1f} {TOP - 8}V{y - 6}" stroke="#000" stroke-opacity=".35"'
        ' stroke-dasharray="3 4"/>'
    )
    return parts
