"""One run, from a recipe to its row; read this first."""

import shutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from optimizer.artifact.building import partial_name
from optimizer.artifact.card import write_card
from optimizer.data.calibration import Calibration
from optimizer.errors import ArtifactError, ModelError, as_optimizer_error, first_line
from optimizer.evaluation.measure import Job, evaluate
from optimizer.evaluation.tally import Figures
from optimizer.manifest import read_manifest, verify
from optimizer.model.checkpoint import Checkpoint
from optimizer.model.locate import Original
from optimizer.processes import interrupt, process
from optimizer.recipe import Recipe
from optimizer.rows import changes, store, verdict
from optimizer.rows.row import Row
from optimizer.runs import making, reuse
from optimizer.runs.plan import Plan, named_row, unplanned_id
from optimizer.runs.source import Source

_TRACEBACK = "Traceback (most recent call last)"

Keep = Literal["all", "front", "none"]
"""Which artifacts stay after a sweep: all, those that no other run beats in size and agreement, none."""

Track = Callable[[Path, Row], str]
"""Keeps a run that has been stored in `out` somewhere else too, and returns the address."""

State = Literal["finished", "to measure", "to do", "to do again"]


def run(plan: Plan, out: Path, *, force: bool = False, keep: Keep = "all", track: Track | None = None) -> Row:
    """Make the artifact, measure it, judge it, and store the row; a finished run is only judged again.

    What computes does so in child processes: one that is killed makes a failed row, as whatever else goes wrong; only a
    row that cannot be stored raises ArtifactError. Another process at the same run is waited for. A run that has been
    made is given to `track`, which cannot fail it.
    """
    directory = store.run_directory(out, plan.run_id)
    with _only_one(directory):
        if not force and (row_of_before := finished(plan, out, keep)):
            return _store(plan, out, row_of_before)
        row = named_row(plan)
        try:
            row = row.with_figures(_make(plan, directory, force))
            row = row.with_figures(_measure(plan, out, directory))
            _check_unchanged(plan.source, directory)
        except Exception as error:
            row = replace(row, status="failed", error=str(as_optimizer_error(error)))
            _note(directory, error)
        finally:
            shutil.rmtree(partial_name(directory / "artifact"), ignore_errors=True)
        interrupt.check()
        row = _store(plan, out, row)
        return _tracked(row, out, directory, track) if track else row


def finished(plan: Plan, out: Path, keep: Keep, say: Callable[[str], None] = lambda _: None) -> Row | None:
    """The stored row of a run that need not be done again, None if there is none.

    A run is finished when it did not fail and its artifact is what its manifest says, or was not to be kept, and has
    the texts that are to be kept; `say` is told what is wrong with one that is not.
    """
    row = store.read_row(out, plan.run_id)
    if row is None or row.status == "failed" or _lacks_texts(plan, out):
        return None
    if row.artifact is None:
        return None if keep == "all" else row
    try:
        verify(store.run_directory(out, plan.run_id) / "artifact")
    except ArtifactError as error:
        say(f"{plan.run_id}: {error}")
        return None
    return row


def _lacks_texts(plan: Plan, out: Path) -> bool:
    """Whether a run was measured without `data.keep_texts`, and now has it."""
    recipe = plan.recipe
    wanted = recipe.data.keep_texts and recipe.evaluation.examples != 0
    return wanted and not changes.has_texts(store.run_directory(out, plan.run_id))


def state(plan: Plan, out: Path, keep: Keep) -> State:
    """What is left of a run; to measure: its artifact is there; to do again: it has failed, or is damaged."""
    if finished(plan, out, keep):
        return "finished"
    same = reuse.same_artifact(*_parts(plan), store.run_directory(out, plan.run_id))
    if same and _is_whole(same):
        return "to measure"
    return "to do again" if store.read_row(out, plan.run_id) else "to do"


def _is_whole(artifact: Path) -> bool:
    try:
        verify(artifact)
    except ArtifactError:
        return False
    return True


def stored(plan: Plan, out: Path, keep: Keep, say: Callable[[str], None] = lambda _: None) -> Row | None:
    """The row of a finished run; None if it is not finished, or cannot be had now; `say` as for `finished`.

    That is so while another process is at it, or where its folder cannot be written: `run` waits, or says so.
    """
    directory = store.run_directory(out, plan.run_id)
    if not directory.exists():
        return None
    try:
        with _only_one(directory, wait=False):
            return finished(plan, out, keep, say)
    except (Timeout, ArtifactError):
        return None


def judge(plan: Plan, out: Path, row: Row) -> Row:
    """A finished run's row after today's gates, stored where they change it; ArtifactError when that cannot be."""
    if _judged(plan, row) == row:
        return row
    with _only_one(store.run_directory(out, plan.run_id)):
        return _store(plan, out, store.read_row(out, plan.run_id) or row)


def drop_artifact(out: Path, row: Row) -> Row:
    """Remove a run's artifact and return its row, which says so; its figures stay."""
    directory = store.run_directory(out, row.run_id)
    with _only_one(directory):
        row = replace(row, artifact=None)
        store.write_row(out, row)
        away = partial_name(directory / "artifact")
        shutil.rmtree(away, ignore_errors=True)
        with suppress(FileNotFoundError):
            (directory / "artifact").rename(away)  # what copies it meanwhile must not take a part for the whole
        shutil.rmtree(away, ignore_errors=True)
    return row


def forget_failure(recipe: Recipe, out: Path) -> None:
    """Remove the row of an earlier command that could not plan this recipe, which now can be."""
    shutil.rmtree(store.run_directory(out, unplanned_id(recipe)), ignore_errors=True)


def _make(plan: Plan, directory: Path, force: bool) -> dict[str, Any]:
    parts = _parts(plan)
    same = None if force else reuse.same_artifact(*parts, directory)
    figures = process.call(making.make, *parts, directory, same)
    reuse.note(*parts, directory)
    return {"artifact": f"runs/{plan.run_id}/artifact", **figures}


def _parts(plan: Plan) -> tuple[Checkpoint, Recipe, Original, Calibration | None]:
    """All that decides an artifact's bytes, but the versions."""
    return plan.source.checkpoint, plan.recipe, plan.source.original, plan.source.calibration


def _measure(plan: Plan, out: Path, directory: Path) -> Figures:
    job = Job(
        original=plan.source.checkpoint.directory,
        artifact=directory / "artifact",
        fingerprint=plan.source.fingerprint,
        task=plan.source.checkpoint.task,
        data=plan.source.data,
        data_fingerprint=plan.source.data_fingerprint,
        settings=plan.recipe.evaluation,
        environment=plan.recipe.environment,
        cache=out / making.ORIGINALS,
        calibrated=plan.source.calibration is not None,
        changes=directory,
    )
    changes.forget(directory)
    return evaluate(job)


def _tracked(row: Row, out: Path, directory: Path, track: Track) -> Row:
    """The row with its address elsewhere, or why it has none."""
    try:
        row = replace(row, tracked=track(out, row))
    except Exception as error:  # of a network, a server, a library
        row = replace(row, tracked=f"failed: {first_line(error)}")
        _note(directory, error)
    store.write_row(out, row)
    return row


def _store(plan: Plan, out: Path, row: Row) -> Row:
    if row.status != "failed":
        row = _judged(plan, row)
        if row.artifact:
            artifact = out / row.artifact
            alone = plan.recipe.remainder(plan.source.checkpoint.outline)
            write_card(artifact, read_manifest(artifact), plan.recipe.made_by(), row, alone)
    store.write_row(out, row)
    return row


def _judged(plan: Plan, row: Row) -> Row:
    return verdict.judged(row, plan.recipe.gates, plan.earlier)


def _check_unchanged(source: Source, directory: Path) -> None:
    """Refuse figures of an original that is not the one planned for, and an artifact that may be of both."""
    try:
        source.check_unchanged()
    except ModelError:
        shutil.rmtree(directory / "artifact", ignore_errors=True)
        raise


def failure(run_id: str, out: Path) -> str:
    """The traceback of a failed run, the child's in it, by its log; empty where there is none."""
    try:
        text = (store.run_directory(out, run_id) / store.LOG_FILE).read_text(encoding="utf-8")
    except OSError:
        return ""
    start = text.find(_TRACEBACK)
    return "" if start < 0 else text[start:].rstrip()


def _note(directory: Path, error: Exception) -> None:
    """Append an error to the run's log, with all that is known of where it came from."""
    with suppress(OSError), (directory / store.LOG_FILE).open("a", encoding="utf-8") as file:
        file.write("".join(traceback.format_exception(error)))


@contextmanager
def _only_one(directory: Path, *, wait: bool = True) -> Iterator[None]:
    """Work in a run's folder, while no other process or thread does; Timeout where one does and `wait` is False."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / ".lock")
        lock.acquire(blocking=wait)
    except Timeout:
        raise
    except OSError as error:
        raise ArtifactError(f"{directory}: cannot be written ({error.strerror or error})") from error
    try:
        yield
    finally:
        lock.release()
