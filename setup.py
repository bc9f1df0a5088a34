"""The wheel carries what stands at the root for people to read; everything else is in pyproject.toml."""

from pathlib import Path
from shutil import copytree, ignore_patterns

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
SHIPPED = ("protocols", "results/published", "results/reference")  # read by bench.shipped


class BuildWithShippedFolders(build_py):
    """Copies the folders into the built package; an editable install reads those of the checkout."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for name in SHIPPED:
                target = Path(self.build_lib) / "bench" / "shipped_files" / name
                copytree(ROOT / name, target, dirs_exist_ok=True, ignore=ignore_patterns("__pycache__"))


setup(cmdclass={"build_py": BuildWithShippedFolders})
