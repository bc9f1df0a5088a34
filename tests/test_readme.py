"""Every command that the documents show is one that the programs have, flags included."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from bench.cli import app as bench_app
from gentron.cli import app as gentron_app

ROOT = Path(__file__).parent.parent
DOCUMENTS = (
    *("README.md", "CONTRIBUTING.md", "gentron/weights/mini/README.md"),
    *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md")),
)
PROGRAMS = {"gentron": gentron_app, "gentron-bench": bench_app}


def commands(document: str) -> list[str]:
    """Command lines in the code blocks of a document, comments and the folder of the program cut off."""
    text = (ROOT / document).read_text("utf-8")
    lines = []
    for block in re.findall(r"```bash\n(.*?)```", text, re.S):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split("&&"):
                words = shlex.split(part, comments=True)
                if words and Path(words[0]).name in PROGRAMS:
                    lines.append(shlex.join([Path(words[0]).name, *words[1:]]))
    return lines


SHOWN = [(document, line) for document in DOCUMENTS for line in commands(document)]


def test_the_readme_shows_commands() -> None:
    assert len([line for document, line in SHOWN if document == "README.md"]) >= 10


@pytest.mark.parametrize(("document", "line"), SHOWN)
def test_a_documented_command_parses(document: str, line: str) -> None:
    program, *words = shlex.split(line)
    command = typer.main.get_command(PROGRAMS[program])
    while isinstance(command, TyperGroup):
        context = command.make_context(program, [], resilient_parsing=True)
        _, found, words = command.resolve_command(context, words)
        assert found is not None, f"{document}: {program} has no such command"
        command = found
    assert command is not typer.main.get_command(PROGRAMS[program])
    command.make_context(program, words)


def test_a_wrong_flag_in_a_document_would_be_seen() -> None:
    with pytest.raises(Exception, match="No such option"):
        test_a_documented_command_parses("none", "gentron-bench compbench --modle mini")
    with pytest.raises(Exception, match="no such command"):
        test_a_documented_command_parses("none", "gentron smaple")
