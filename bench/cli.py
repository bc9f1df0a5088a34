"""The command `gentron-bench`. Heavy libraries are imported once a command runs: --help is instant."""

from __future__ import annotations

from bench.commands.accept import accept
from bench.commands.calibrate import calibrate
from bench.commands.clipscore import clipscore
from bench.commands.compare import compare
from bench.commands.compbench import compbench, list_
from bench.commands.fid import fid
from bench.commands.gate import gate
from bench.commands.humaneval import app as humaneval_app
from bench.commands.judge import judge
from bench.commands.mfg_sweep import mfg_sweep
from bench.commands.motion import motion
from bench.commands.prompts import prompts_app
from bench.commands.report import report
from bench.commands.video import video
from bench.commands.weights import weights_app
from gentron.console import make_app, run_app

app = make_app("gentron-bench: measures GenTron and any other text-to-image system.")

# in the order of the help: measure, judge the measure, keep a model from falling, show, fetch
app.command()(compbench)
app.command()(fid)
app.command()(clipscore)
app.command()(motion)
app.command()(video)
app.command(name="mfg-sweep")(mfg_sweep)
app.add_typer(humaneval_app, name="humaneval")
app.command()(compare)
app.command()(gate)
app.command()(calibrate)
app.command()(accept)
app.command()(report)
app.command(name="list")(list_)
app.command()(judge)
app.add_typer(prompts_app, name="prompts")
app.add_typer(weights_app, name="weights")


def main() -> None:
    run_app(app)
