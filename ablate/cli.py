"""The command line: verbs and printing only. Heavy imports happen inside the verbs."""

from __future__ import annotations

import errno
import json
import re
import shlex
import signal
import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ablate.errors import RunError, StudyError, UserError
from ablate.harmless import visible, without_secrets
from ablate.interrupts import heard
from ablate.job_output import show_line
from ablate.progress import note, set_quiet
from ablate.resources import Cluster, load_cluster
from ablate.settings import shortened
from ablate.stores import named
from ablate.study import Study, load_study

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ablate.cluster.jobs import Job, JobState
    from ablate.search.leaderboard import Leaderboard
    from ablate.search.table import Trial

EXIT_USER, EXIT_BUG, EXIT_INTERRUPTED, EXIT_KILLED = 2, 1, 130, 143
MACHINE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
PLACE_ERRORS = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR,
    errno.ENAMETOOLONG,
)  # fmt: skip

app = typer.Typer(
    help="Which data should the model train on?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Study keys to change.")
]
ClusterFile = Annotated[
    Path | None, typer.Option("--cluster", metavar="FILE", help="Where it runs (YAML).")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        help="The cluster's dashboard, http://host:8265; default: RAY_API_SERVER_ADDRESS.",
    ),
]


class Verb(StrEnum):
    """What `submit` has run on a cluster."""

    run = "run"
    prepare = "prepare"
    train = "train"
    search = "search"
    validate = "validate"
    report = "report"


class Format(StrEnum):
    """What `export` writes."""

    checkpoint = "checkpoint"
    weights = "weights"
    mergekit = "mergekit"
    olmo_core = "olmo-core"
    megatron = "megatron"


def main() -> None:
    """Run the command line.

    Exit codes: 0, 2 the user's mistake, 1 a bug, 130 Ctrl-C, 143 a polite kill, as cluster
    managers send it before they take a machine: both keep what is finished.
    """
    came: list[int] = []
    try:
        with heard() as came:
            # Without its standalone mode, Typer returns the code of an exit; 130 is its Ctrl-C.
            code = app(standalone_mode=False) or 0
            if code == EXIT_INTERRUPTED:
                raise KeyboardInterrupt
    except UserError as error:
        code = _say(str(error), EXIT_USER)
    except (KeyboardInterrupt, typer.Abort):
        killed = signal.SIGTERM in came
        word, code = ("terminated", EXIT_KILLED) if killed else ("interrupted", EXIT_INTERRUPTED)
        _say(f"{word}; what was finished is kept, run it again to go on", code)
    except Exception as error:  # noqa: BLE001 - the last line of defence: a bug gets a traceback
        code = _failed(error)
    sys.stdout.flush()
    sys.exit(code)


def _failed(error: Exception) -> int:
    # Typer carries its own copy of click; its errors of usage know how to say themselves.
    usage = getattr(error, "format_message", None)
    if usage is not None:
        said = " ".join(usage().split()).replace("Value error, ", "")
        return _say(f"{said}; see `ablate --help`", EXIT_USER)
    if isinstance(error, RunError):
        return _say(str(error), EXIT_BUG)
    if isinstance(error, OSError) and error.errno in (*MACHINE_ERRORS, *PLACE_ERRORS):
        place = f" at {error.filename}" if error.filename else ""
        code = EXIT_BUG if error.errno in MACHINE_ERRORS else EXIT_USER
        remedy = "" if code == EXIT_BUG else "; name another place"
        return _say(
            f"a file could not be used{place}: {error.strerror}{remedy}; nothing is lost", code
        )
    print(visible(without_secrets(traceback.format_exc())), file=sys.stderr, end="", flush=True)
    return EXIT_BUG


def _say(message: str, code: int) -> int:
    print(visible(without_secrets(f"ablate: {named(message)}")), file=sys.stderr, flush=True)
    return code


def _load(study: Path, overrides: list[str] | None, cluster: Path | None) -> tuple[Study, Cluster]:
    return load_study(study, overrides or ()), load_cluster(cluster)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to put it.")] = Path("demo"),
    cluster: ClusterFile = None,
) -> None:
    """Do the whole job on text that is on this machine, in minutes on two CPU cores."""
    from ablate import engine
    from ablate.corpus import read_corpus
    from ablate.starter import write_starter
    from ablate.tables import console, corpus_table, ranking, units_table

    where = load_cluster(cluster)
    file = folder / "study.yaml"
    if file.exists():
        note(f"going on with {file}")
    else:
        note("demo: cutting a corpus out of the installed packages")
        write_starter(folder)
    study = load_study(file)
    board = engine.run(study, cluster=where)
    corpus = read_corpus(study.open_workspace())
    out = console()
    for part in [*(corpus_table(corpus) if corpus else []), units_table(board), *ranking(board)]:
        out.print(part)
        out.print()
    best = folder / "best"
    if not best.exists():
        from ablate.exporting import export_mixture

        export_mixture(study, "best", best, "checkpoint")
    out.print(
        f"The best mixture is a Hugging Face checkpoint in {best}; every score is in\n"
        f"{study.open_workspace().table}.\n"
        f"A page to look at:   {study.open_workspace().report}\n"
        f"Ask something else:  ablate score {file} --mixture 'python, web-docs'\n"
        f"Can it be trusted?   ablate validate {file} validate.mixtures=9",
        soft_wrap=True,
    )


@app.command()
def init(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A folder for the study.")],
) -> None:
    """Write a commented study on the embedded corpus; `plan` and `run` accept it as it stands."""
    from ablate.starter import write_starter

    if not folder.strip():  # as a path it would be the current folder
        raise StudyError("init must be given a folder, got no name; name one, or . for this folder")
    file = write_starter(Path(folder))
    print(f"wrote {file}\nnext: ablate plan {file}")


@app.command()
def schema(
    of: Annotated[str, typer.Argument(help="study or cluster")] = "study",
) -> None:
    """Print the JSON Schema of study or cluster files, for editors."""
    models: dict[str, Any] = {"study": Study, "cluster": Cluster}
    if of not in models:
        raise StudyError(f"schema must be of study or cluster, got '{of}'")
    _print_json(models[of].model_json_schema(by_alias=True))


@app.command()
def plan(
    study: StudyFile, overrides: Overrides = None, cluster: ClusterFile = None, json: Json = False
) -> None:
    """Print work, wall time, memory, traffic and cost, and the naive way; change nothing."""
    asked, where = _load(study, overrides, cluster)
    from ablate.plan_table import plan_table
    from ablate.planning import plan as make_plan
    from ablate.tables import console

    found = make_plan(asked, cluster=where)
    if json:
        _print_json(found.to_json())
        return
    for part in plan_table(found):
        console().print(part)


@app.command()
def prepare(
    study: StudyFile, overrides: Overrides = None, cluster: ClusterFile = None, json: Json = False
) -> None:
    """Read, clean, split and tokenize the corpus."""
    asked, where = _load(study, overrides, cluster)
    from ablate import engine
    from ablate.corpus import counts_table
    from ablate.tables import console, corpus_table

    set_quiet(json)
    corpus = engine.prepare(asked, cluster=where)
    if json:
        _print_json(counts_table(corpus))
        return
    for part in corpus_table(corpus):
        console().print(part)


@app.command()
def train(
    study: StudyFile, overrides: Overrides = None, cluster: ClusterFile = None, json: Json = False
) -> None:
    """Train the seed and one model per base unit; what is finished is not trained again."""
    asked, where = _load(study, overrides, cluster)
    from ablate import engine

    set_quiet(json)
    pool = engine.train(asked, cluster=where)
    if json:
        _print_json(pool.to_json())
        return
    print(f"{len(pool.units)} unit models and their seed are in {asked.open_workspace().models}")


@app.command()
def search(
    study: StudyFile, overrides: Overrides = None, cluster: ClusterFile = None, json: Json = False
) -> None:
    """Score mixtures of the pool and print the best of each size."""
    asked, where = _load(study, overrides, cluster)
    from ablate import engine

    set_quiet(json)
    _print_board(engine.search(asked, cluster=where), json)


@app.command()
def validate(
    study: StudyFile,
    overrides: Overrides = None,
    cluster: ClusterFile = None,
    rounds: Annotated[
        str,
        typer.Option(
            "--rounds",
            metavar="INTEGER",
            help="So many more than the study asks for, each the most telling.",
        ),
    ] = "0",
    json: Json = False,
) -> None:
    """Train some mixtures for real and say how far the proxies can be trusted."""
    if not re.fullmatch(r"[0-9]{1,9}", rounds):
        raise StudyError(
            f"--rounds must be a whole number from 0 on, got {shortened(rounds)}; e.g. --rounds 2"
        )
    asked, where = _load(study, overrides, cluster)
    from ablate import engine
    from ablate.agreement_table import agreement_tables
    from ablate.tables import console

    set_quiet(json)
    found = engine.validate(asked, cluster=where, rounds=int(rounds))
    if json:
        _print_json(found.to_json())
        return
    for part in agreement_tables(found):
        console().print(part)


@app.command()
def report(
    study: StudyFile,
    overrides: Overrides = None,
    cluster: ClusterFile = None,
    figures: Annotated[
        Path | None, typer.Option("--figures", help="Also write the figures to this folder.")
    ] = None,
    formats: Annotated[
        str, typer.Option("--formats", help="Of the figures: png, svg, pdf.")
    ] = "png,svg,pdf",
) -> None:
    """Write report.html, one self-contained page, and the figures for a paper if asked."""
    asked, where = _load(study, overrides, cluster)
    from ablate import engine

    print(f"wrote {engine.report(asked, cluster=where)}")
    if figures is not None:
        for path in engine.report_figures(asked, figures, formats.split(","), cluster=where):
            print(f"wrote {path}")


@app.command()
def run(
    study: StudyFile, overrides: Overrides = None, cluster: ClusterFile = None, json: Json = False
) -> None:
    """Prepare, train, search, validate where the study says so, and report."""
    asked, where = _load(study, overrides, cluster)
    from ablate import engine

    set_quiet(json)
    _print_board(engine.run(asked, cluster=where), json)
    if not json:
        print(f"\nA page to look at: {asked.open_workspace().report}")


@app.command()
def score(
    study: StudyFile,
    mixture: Annotated[
        str, typer.Option("--mixture", help="best, best:3, 'law, math', or weights.json.")
    ],
    overrides: Overrides = None,
    cluster: ClusterFile = None,
    json: Json = False,
) -> None:
    """Score one mixture: one merge, one evaluation."""
    asked, where = _load(study, overrides, cluster)
    from ablate import engine
    from ablate.exporting import named_mixture
    from ablate.tables import console, trial_table

    set_quiet(json)
    row = engine.score_study(asked, named_mixture(asked, mixture), cluster=where)
    if row.error is not None:
        raise StudyError(f"a mixture must have a finite score, got: {row.error}")
    if json:
        _print_json(_row(row))
    else:
        console().print(trial_table(row))


@app.command()
def export(
    study: StudyFile,
    to: Annotated[Path, typer.Option("--to", help="A new folder or file.")],
    overrides: Overrides = None,
    mixture: Annotated[
        str, typer.Option("--mixture", help="best, best:3, 'law, math', or weights.json.")
    ] = "best",
    kind: Annotated[Format, typer.Option("--as", help="What to write.")] = Format.checkpoint,
    tokens: Annotated[
        str | None, typer.Option("--tokens", help="Token budget of the training to come.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16 (checkpoint).")] = "float32",
) -> None:
    """Write a mixture as a checkpoint, as weights, or for mergekit, OLMo-core or Megatron."""
    asked = load_study(study, overrides or ())
    from ablate.exporting import export_mixture

    written = export_mixture(asked, mixture, to, kind.value, tokens=tokens, dtype=dtype)
    print(f"wrote {written}")


@app.command()
def submit(
    study: StudyFile,
    overrides: Overrides = None,
    address: Address = None,
    verb: Annotated[Verb, typer.Option("--verb", help="What is run there.")] = Verb.run,
    cluster: ClusterFile = None,
    with_files: Annotated[
        bool,
        typer.Option("--with-files", help="Send the study's local texts, model and tokenizer."),
    ] = False,
    install: Annotated[
        bool, typer.Option("--install", help="Install this environment's packages for the job.")
    ] = False,
    python: Annotated[str, typer.Option("--python", help="The cluster's Python.")] = "python",
    detach: Annotated[bool, typer.Option("--detach", help="Print its id, do not follow.")] = False,
    json: Json = False,
) -> None:
    """Run a verb on a cluster as a Ray Job and follow it; Ctrl-C leaves it running."""
    asked, where = _load(study, overrides, cluster)
    from ablate.submitting import submit as send

    job = send(
        asked,
        address=address,
        verb=verb.value,
        cluster=where,
        with_files=with_files,
        install=install,
        python=python,
        json=json and not detach,
    )
    again = shlex.join([str(study), *(overrides or ()), "--address", str(job.address)])
    if detach:
        if json:
            _print_json(job.status().to_json())
        else:
            print(job.id)
        _say_how(job, again)
    else:
        _follow(job, again)


@app.command()
def status(
    study: StudyFile,
    overrides: Overrides = None,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", help="Follow a submitted job.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Stop a submitted job.")] = False,
    job: Annotated[
        str | None, typer.Option("--job", metavar="ID", help="Which job; default: the latest.")
    ] = None,
    json: Json = False,
) -> None:
    """Print what is done and what comes next, or the study's jobs at an address."""
    asked = load_study(study, overrides or ())
    if follow and cancel:
        raise StudyError("at most one of --follow and --cancel must be given, got both")
    if address or follow or cancel or job:
        again = shlex.join([str(study), *(overrides or ())])
        _jobs(asked, again, address, job, follow=follow, cancel=cancel, json=json)
        return
    from ablate.status import status as read_status
    from ablate.tables import console, status_table

    found = read_status(asked)
    if json:
        _print_json(found.to_json())
    else:
        console().print(status_table(found))


def _jobs(
    study: Study,
    again: str,
    address: str | None,
    name: str | None,
    *,
    follow: bool,
    cancel: bool,
    json: bool,
) -> None:
    """List a study's jobs, follow one or stop one."""
    from ablate.submitting import job_of, jobs_of

    if follow:
        job = job_of(study, address, name)
        _follow(job, f"{again} --address {shlex.quote(str(job.address))}")
    if cancel:
        found = [job_of(study, address, name, running=True).cancel()]
    elif name:
        found = [job_of(study, address, name).status()]
    else:
        found = jobs_of(study, address)
    if json:
        _print_json([state.to_json() for state in found])
    elif found:
        _print_jobs(found)
    else:
        print("no job of this study is known there")


def _print_jobs(jobs: Sequence[JobState]) -> None:
    line = "{:<24}{:<10}{:<11}{:<21}{}"
    print(line.format("job", "verb", "state", "started", "exit code"))
    for job in jobs:
        code = "" if job.exit_code is None else job.exit_code
        print(line.format(job.job, job.verb, job.state, job.started_text, code).rstrip())


def _follow(job: Job, again: str) -> NoReturn:
    """Print a job's log as it grows and exit with the job's exit code."""
    try:
        code = job.follow(show_line)
        end = job.status()
    except KeyboardInterrupt:
        print(f"ablate: left {job.id}, which goes on", file=sys.stderr)
        _say_how(job, again)
        sys.exit(EXIT_INTERRUPTED)
    if code:
        reason = f": {end.message}" if end.message else ""
        _say(f"job {job.id} {end.state} with exit code {code}{reason}", code)
    sys.stdout.flush()
    # Past Typer, which would take 130 for a Ctrl-C of this process.
    sys.exit(code)


def _say_how(job: Job, again: str) -> None:
    for way, flag in (("follow it", "--follow"), ("stop it", "--cancel")):
        print(f"{way}: ablate status {again} --job {job.id} {flag}", file=sys.stderr, flush=True)


@app.command()
def clean(
    study: StudyFile,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list.")] = False,
) -> None:
    """Remove models and files that this study's state does not refer to any more."""
    asked = load_study(study, overrides or ())
    from ablate.status import clean as remove
    from ablate.status import garbage

    found = garbage(asked) if dry_run else remove(asked)
    for path in found.folders:
        print(visible(str(path)))
    verb = "would free" if dry_run else "freed"
    print(f"{verb} {found.bytes / 1e6:.1f} MB in {len(found.folders)} places")


def _print_board(board: Leaderboard, json: bool) -> None:
    from ablate.tables import console, ranking

    if json:
        _print_json(
            {
                "best": _row(board.best),
                "best_of_size": {str(n): _row(row) for n, row in board.best_of_size.items()},
                "mixtures": len(board.mixtures),
                "failed": len(board.failed),
            }
        )
        return
    for part in ranking(board):
        console().print(part)


def _row(row: Trial) -> dict[str, Any]:
    return {
        "trial": row.candidate.key,
        "kind": row.candidate.kind,
        "weights": dict(row.candidate.mixture.weights) if row.candidate.mixture else {},
        "tokens": row.candidate.tokens,
        "objective": row.objective,
        "member_objective": row.member_objective,
        "loss": row.losses,
        "stderr": {name: score.stderr for name, score in row.scores.items()},
        "perplexity": {name: score.perplexity for name, score in row.scores.items()},
        "bits_per_byte": {name: score.bits_per_byte for name, score in row.scores.items()},
    }
