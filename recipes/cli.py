"""The `align` command: parse, call, print. Everything heavy is imported by the command that needs it.

Exit codes: 0 done, 1 a stage failed (or a verified run is not what it was), 2 the user's input is wrong.
"""

from __future__ import annotations

import argparse
import errno
import sys
from pathlib import Path

from recipes import __version__
from recipes.commands import data, pipelines, plan, runs
from recipes.errors import EXIT_DONE, EXIT_FAILED, EXIT_INPUT, StageFailed, UserInputError

NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOSPC, errno.EDQUOT)
PIPELINE_HELP = "a name under configs/pipeline, the path of a YAML file, or the directory of a run, to run it again"
OVERRIDES_HELP = "settings in Hydra's grammar, for example stages.dpo.model.optim.lr=1e-7"


def main(argv: list[str] | None = None) -> int:
    """Entry point of the console script; returns the exit code."""
    args = _parse(sys.argv[1:] if argv is None else argv)
    try:
        return args.command(args)
    except UserInputError as error:
        print(error, file=sys.stderr)
        return EXIT_INPUT
    except StageFailed as error:
        print(error, file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output, `head` for example, has seen enough
        sys.stdout = None
        return EXIT_DONE
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
        fix = "choose a place that can be written to (another working directory, --runs-dir, --out)"
        print(f"{error.filename or 'the disk'}: {error.strerror}\n    fix: {fix}", file=sys.stderr)
        return EXIT_INPUT


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    # argparse fills the list of overrides once, so those after an option are left over: `run tiny --jobs 1 seed=2`.
    unknown = [word for word in rest if word.startswith("-") or not hasattr(args, "overrides")]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if rest:
        args.overrides += rest
    if "=" in (getattr(args, "stage", None) or "") and hasattr(args, "overrides"):
        args.overrides, args.stage = [args.stage, *args.overrides], None
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="align", description="The Nemotron-4 alignment recipe on NeMo-Aligner.")
    parser.add_argument("--version", action="version", version=f"align {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    add = _adder(subparsers)
    _about_pipelines(add)
    _about_runs(add)
    text = "build and look at data sets"
    of_data = subparsers.add_parser("data", help=text, description=text, allow_abbrev=False)
    _about_data(_adder(of_data.add_subparsers(required=True, metavar="COMMAND")))
    return parser


def _adder(subparsers):
    """What makes a command of a function: its name is the function's."""

    def add(function, text: str, *shared: argparse.ArgumentParser) -> argparse.ArgumentParser:
        command = subparsers.add_parser(
            function.__name__, help=text, description=text, parents=shared, allow_abbrev=False
        )
        command.set_defaults(command=function)
        return command

    return add


def _about_data(add) -> None:
    """The commands of `align data`."""
    config = _shared("config", metavar="CONFIG", help="a name under configs/data, or the path of a YAML file")
    overrides = {"nargs": "*", "metavar": "KEY=VALUE", "help": "settings, for example blend.rows=1000"}
    dataset = _shared("dataset", type=Path, metavar="DIR", help="a built data set, for example datasets/NAME")
    add(data.ls, "list the data sets", _json())
    add(data.schemas, "list the layouts of rows that are read", _json())
    show = add(data.show, "show the complete config of a data set", config, _json())
    show.add_argument("overrides", **overrides)
    build = add(data.build, "build a data set", config, _json())
    build.add_argument("--out", type=Path, metavar="DIR", help="where to, default datasets/NAME")
    build.add_argument("--cache", type=Path, metavar="DIR", default=data.CACHE, help="default %(default)s")
    build.add_argument("--workers", type=_positive, metavar="N", help="processes, default one a core, at most 8")
    build.add_argument("overrides", **overrides)
    inspect = add(data.inspect, "count the buckets of a data set, or show rows of one", dataset, _json())
    inspect.add_argument("bucket", nargs="?", metavar="BUCKET")
    inspect.add_argument("--source", metavar="NAME", help="only rows of this source")
    inspect.add_argument("--rows", type=_positive, metavar="N", default=5, help="how many, default 5")
    inspect.add_argument("--full", action="store_true", help="do not shorten long rows")
    add(data.card, "write the page about a data set again, and its hash into the manifest", dataset)
    add(data.verify, "compare a data set's files with its manifest", dataset, _json())
    judge = add(data.agreement, "how often a judge agrees with itself when two answers are swapped", _json())
    judge.add_argument("file", type=Path, metavar="FILE", help="rows of message_id, model_1, model_2, score")


def _about_pipelines(add) -> None:
    """ls, show, explain, check, plan, run and submit: they take a pipeline and overrides."""
    pipeline = _shared("pipeline", metavar="PIPELINE", help=PIPELINE_HELP)
    cluster = _shared("--cluster", metavar="PROFILE", help="a name under configs/cluster, or the path of a YAML file")
    overrides = {"nargs": "*", "metavar": "KEY=VALUE", "help": OVERRIDES_HELP}

    add(pipelines.ls, "list the pipelines", _json())
    text = "show the stages of a pipeline, or the complete config of one"
    show = add(pipelines.show, text, pipeline, cluster, _json())
    show.add_argument("stage", nargs="?", metavar="STAGE")
    show.add_argument("overrides", **overrides)
    explain = add(
        pipelines.explain, "show the value of a setting and every file and line that set it", pipeline, cluster, _json()
    )
    explain.add_argument("key", metavar="KEY", help="for example dpo.model.optim.lr, or dpo.model for all below it")
    explain.add_argument("overrides", **overrides)
    text = "find what is wrong with a pipeline before anything runs"
    check = add(pipelines.check, text, cluster, _json(), _runs_dir())
    check.add_argument("pipeline", nargs="?", metavar="PIPELINE", help=PIPELINE_HELP)
    check.add_argument("--explain", metavar="RULE", help="say what a rule is about, for example C2")
    text = "show every setting of the checkpoints from outside, the stage's own, and which of the two holds"
    check.add_argument("--inherited", action="store_true", help=text)
    check.add_argument("--run", metavar="NAME", help="say as well what would become of the work in this run")
    check.add_argument("overrides", **overrides)
    text = "what a pipeline takes before it is submitted: memory, time, disk; and layouts that would fit"
    costs = add(plan.plan, text, pipeline, cluster, _json())
    costs.add_argument("--stage", dest="stages", action="append", default=[], metavar="STAGE", help="only this stage")
    costs.add_argument("--gpu", metavar="NAME", help="in place of the layouts' resources.gpu, for example H200")
    costs.add_argument("--gpus", type=_positive, metavar="N", help="look for the fastest layout on so many of them")
    costs.add_argument("--write", type=Path, metavar="FILE", help="write that layout; a pipeline's `layout:` takes it")
    costs.add_argument("--efficiency", type=_share, default=0.4, metavar="X", help="of the bf16 peak, default 0.4")
    costs.add_argument("--disk-rate", type=_rate, default=10.0, metavar="GB/S", help="of all ranks, default 10")
    costs.add_argument("overrides", **overrides)
    run = add(runs.run, "run a pipeline on this machine", pipeline, _runs_dir(), _jobs(), *_selection())
    run.add_argument("--fresh", action="store_true", help="begin the selected stages anew although they are done")
    run.add_argument("overrides", **overrides)
    text = "submit a pipeline to a Slurm cluster, one job a stage; submitting again is safe"
    submit = add(runs.submit, text, pipeline, cluster, _runs_dir(), _json(), *_selection())
    submit.add_argument("--dry-run", action="store_true", help="write the scripts, show the plan, submit nothing")
    submit.add_argument("overrides", **overrides)
    new = add(pipelines.new, "make a pipeline of your own from one of these, in a folder with only what differs")
    new.add_argument("name", metavar="NAME", help="of the pipeline and of its folder")
    made = new.add_mutually_exclusive_group(required=True)
    made.add_argument("--from", dest="recipe", metavar="PIPELINE", help="a name under configs/pipeline, or a YAML file")
    made.add_argument(
        "--smoke", action="store_true", help="write the smoke run of the fork NAME anew, as the fork is now"
    )
    text = "a Hugging Face folder or a NeMo directory that it begins with"
    new.add_argument("--checkpoint", type=Path, metavar="DIR", help=text)


def _selection() -> list[argparse.ArgumentParser]:
    """The run's name, and which of the pipeline's stages a command is about."""
    options = [_shared("--run", metavar="NAME", type=_name, help="the run's name, default: the pipeline's")]
    for option, dest, text in (
        ("--from", "start", "these stages and all that depend on them"),
        ("--until", "until", "these stages and all they depend on"),
        ("--only", "only", "only these stages"),
    ):
        options.append(_shared(option, dest=dest, metavar="STAGE[,STAGE]", type=_names, default=[], help=text))
    return options


def _about_runs(add) -> None:
    """resume, cancel, status, logs, report, verify and diff: they take a run."""
    run = _shared("run", metavar="RUN", help="the name of a run, or its directory")
    text = "go on with a run that stopped, with the configs it was started with, where it was started"
    resume = add(runs.resume, text, run, _runs_dir(), _jobs())
    resume.add_argument("--here", action="store_true", help="on this machine although it was submitted to a cluster")
    cancel = add(runs.cancel, "cancel the jobs of a submitted run, or of some of its stages", run, _runs_dir())
    cancel.add_argument("stages", nargs="*", metavar="STAGE")
    add(runs.status, "the state of every stage of a run", run, _runs_dir(), _json())
    logs = add(runs.logs, "print the log of a stage, or of all", run, _runs_dir())
    logs.add_argument("stage", nargs="?", metavar="STAGE")
    logs.add_argument("-f", "--follow", action="store_true", help="go on while the run is at work")
    add(runs.report, "write the report of a run", run, _runs_dir())
    add(runs.verify, "compare every file of a run with what was recorded of it", run, _runs_dir(), _json())
    two = add(runs.diff, "name the first stage in which two runs differ, and why", _runs_dir(), _json())
    for name in ("a", "b"):
        two.add_argument(name, metavar=name.upper(), help="the name of a run, or its directory")


def _shared(*names: str, **options) -> argparse.ArgumentParser:
    """One argument, for argparse's `parents`."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(*names, **options)
    return parser


def _json() -> argparse.ArgumentParser:
    return _shared("--json", action="store_true", help="print JSON instead of text")


def _runs_dir() -> argparse.ArgumentParser:
    return _shared("--runs-dir", type=Path, default=Path("runs"), metavar="DIR", help="where runs are, default runs")


def _jobs() -> argparse.ArgumentParser:
    return _shared("--jobs", type=_positive, default=2, metavar="N", help="stages at once, default 2")


def _name(text: str) -> str:
    if "/" in text or text in ("", ".", ".."):
        raise argparse.ArgumentTypeError(f"{text!r} is no name; --runs-dir says where runs are")
    return text


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _rate(text: str, most: float = 1e6) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0 and at most {most:g}")
    return value


def _share(text: str) -> float:
    return _rate(text, 1.0)


if __name__ == "__main__":
    sys.exit(main())
