"""What a user installs: the wheel, in an environment of its own, far from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHIPPED = ("protocols", "results/published", "results/reference")


def run(*command: object, cwd: Path) -> str:
    """Its output; what it said goes into the failure."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Built from the sdist, as a release is, and from the tree itself. The checkout stays as it is."""
    if not (ROOT / ".git").exists():
        pytest.skip("only a checkout says which files are its own")
    place = tmp_path_factory.mktemp("build")
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (place / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / "tree" / name)
    build = (sys.executable, "-m", "build", "--no-isolation")
    run(*build, "--outdir", place / "from-sdist", place / "tree", cwd=place)
    run(*build, "--wheel", "--outdir", place / "from-tree", place / "tree", cwd=place)
    (release,) = (place / "from-sdist").glob("*.whl")
    (plain,) = (place / "from-tree").glob("*.whl")
    return release, plain


@pytest.fixture(scope="module")
def programs(wheels: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ of a new virtual environment with the wheel; its dependencies are those of this one."""
    place = tmp_path_factory.mktemp("elsewhere")
    run(sys.executable, "-m", "venv", "--without-pip", place / "venv", cwd=place)
    python = place / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    run(*pip, "install", "--no-deps", "--no-index", wheels[0], cwd=place)
    (site,) = (place / "venv" / "lib").glob("python*/site-packages")
    # searched last, and .pth files in it are not read: an editable install stays hidden
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = run(python, "-c", "import bench, gentron; print(bench.__file__, gentron.__file__)", cwd=place)
    assert where.count(str(place)) == 2
    return python.parent


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.slow
def test_an_sdist_builds_the_same_wheel_with_what_stands_at_the_root(wheels: tuple[Path, Path]) -> None:
    release, plain = map(contents, wheels)
    assert release == plain
    for folder in SHIPPED:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file():
                name = path.relative_to(ROOT).as_posix()
                assert release[f"bench/shipped_files/{name}"] == path.read_bytes()
    assert not [name for name in release if name.startswith("tests/")]


@pytest.mark.slow
def test_the_installed_programs_work_outside_the_checkout(programs: Path) -> None:
    place = programs.parents[1]
    listed = run(programs / "gentron-bench", "list", cwd=place)
    for path in (ROOT / "protocols").glob("*.yaml"):
        assert f"protocol {path.stem} " in listed
    scored = run(
        programs / "gentron-bench",
        *("compbench", "--model", "mini", "--suite", "color", "--limit", 2),
        *("--num-inference-steps", 4, "--device", "cpu"),
        cwd=place,
    )
    assert "reference (mini)" in scored and "2 of 2 images scored" in scored
    run(programs / "gentron-bench", "report", "results", "--html", "page.html", cwd=place)
    assert "<html" in (place / "page.html").read_text("utf-8")
    drawn = ("sample", "--model", "mini", "a red circle", "--num-inference-steps", 4, "--out", "a.png")
    run(programs / "gentron", *drawn, cwd=place)
    assert (place / "a.png").read_bytes().startswith(b"\x89PNG")
