"""A shared Optuna study as the list of runs: any number of workers on any number of machines take runs from it.

Every run is an enqueued trial; a worker takes the next waiting one, does it and stores its record in the trial. Storage
is a journal file on a shared disk, or a database URL.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from adubench.errors import UsageError
from adubench.io.atomic import write_text
from adubench.training.experiment_runs import RECORD, Record, read_record, run_one, write_index

if TYPE_CHECKING:
    import optuna

    from adubench.recipes.experiments import Expansion, RunSpec
    from adubench.training.experiment_runs import Place, Say

BEAT_SECONDS = 30.0
DEAD_AFTER_SECONDS = 300.0


def open_study(expansion: Expansion, storage: str) -> optuna.Study:
    """Open (or make) the study of an experiment and enqueue the runs that it lacks.

    The numbers of a Sobol row are parameters of its trial, so that Optuna's own tools show the search.

    Raises:
        UsageError: Optuna is not installed, or the storage cannot be opened.
    """
    try:
        import optuna
    except ImportError:
        raise UsageError("--workers-shared needs optuna: pip install 'adubench[train]'.") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            storage=_storage(storage), study_name=study_name(expansion), direction="minimize", load_if_exists=True
        )
    except Exception as error:  # databases raise errors of their own
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"--workers-shared {storage}: cannot be opened ({reason}).") from None
    known = {trial.user_attrs.get("run") for trial in study.get_trials(deepcopy=False)}
    for spec in expansion.runs:
        if spec.id not in known:
            study.enqueue_trial(_parameters(spec), user_attrs={"run": spec.id})
    return study


def study_name(expansion: Expansion) -> str:
    """Name that is equal for workers with the same experiment, scale and recipes only."""
    digest = hashlib.sha256("\n".join(f"{spec.id} {spec.digest}" for spec in expansion.runs).encode()).hexdigest()
    return f"{expansion.experiment.id}-{expansion.scale}-{digest[:12]}"


def _storage(storage: str) -> Any:
    if "://" in storage:
        return storage
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(storage))


def _parameters(spec: RunSpec) -> dict[str, Any]:
    numbers = {
        key: value for key, value in spec.set.items() if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    return {**numbers, "seed": spec.seed}


def run_shared(expansion: Expansion, place: Place, storage: str, say: Say) -> None:
    """Take runs from the study until none is waiting.

    Raises:
        UsageError: the storage cannot be opened.
        TrainingStopped: the user stopped it; the run goes back to the list.
    """
    study = open_study(expansion, storage)
    by_id = {spec.id: spec for spec in expansion.runs}
    while True:
        _free_dead(study, by_id, say)
        trial = _take(study)
        if trial is None:
            break
        spec = by_id[trial.user_attrs["run"]]
        say(f"taken: {spec.id}")
        _do(expansion, spec, place, study, trial, say)
    _fetch_records(expansion, place, study)
    write_index(expansion, place)


def _take(study: optuna.Study) -> optuna.Trial | None:
    """Take a waiting trial; None when there is none."""
    import optuna

    while study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,)):
        trial = study.ask()
        if "run" not in trial.user_attrs:  # another worker was faster, and Optuna made up a trial of its own
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        if _done_elsewhere(study, trial):
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            continue
        trial.set_user_attr("alive", time.time())
        return trial
    return None


def _done_elsewhere(study: optuna.Study, trial: optuna.Trial) -> bool:
    """Whether another trial of the same run comes first: two workers enqueued it at the same moment.

    Only the first trial of a run that was not given back counts. All workers see the storage's one order of trials, so
    whichever of them takes the other one, and however early, drops it.
    """
    import optuna

    void = (optuna.trial.TrialState.FAIL, optuna.trial.TrialState.PRUNED)
    run = trial.user_attrs["run"]
    same = [
        t.number for t in study.get_trials(deepcopy=False) if t.user_attrs.get("run") == run and t.state not in void
    ]
    return min(same, default=trial.number) < trial.number


def _do(expansion: Expansion, spec: RunSpec, place: Place, study: optuna.Study, trial: optuna.Trial, say: Say) -> None:
    """Do the run of a trial; whatever ends it early gives the run back."""
    import optuna

    sobol = expansion.experiment.sobol
    for key in sobol.keys if sobol is not None else ():
        if sobol is not None and key in spec.set:
            trial.suggest_float(key, sobol.low, sobol.high)  # the value that was enqueued
    done = threading.Event()
    beat = threading.Thread(target=_beat, args=(trial, done), daemon=True)
    beat.start()
    record: Record | None = None
    try:
        record = read_record(place, spec) or run_one(expansion.experiment, spec, expansion.scale, place)
    finally:
        done.set()
        beat.join()
        if record is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(_parameters(spec), user_attrs={"run": spec.id})
    trial.set_user_attr("record", json.dumps(asdict(record)))
    metric = expansion.experiment.best_metric
    if record.state == "finished" and metric in record.numbers:
        study.tell(trial, record.numbers[metric])
    else:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        say(f"{spec.id}: failed: {record.error or f'no {metric}'}")
    write_index(expansion, place)


def _beat(trial: optuna.Trial, done: threading.Event) -> None:
    while not done.wait(BEAT_SECONDS):
        trial.set_user_attr("alive", time.time())


def _free_dead(study: optuna.Study, by_id: dict[str, RunSpec], say: Say) -> None:
    """Put runs back whose worker has not been heard of for minutes."""
    import optuna

    for frozen in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        last = frozen.user_attrs.get("alive")
        if "run" not in frozen.user_attrs or last is None or time.time() - float(last) < DEAD_AFTER_SECONDS:
            continue
        run = frozen.user_attrs["run"]
        try:
            study.tell(frozen.number, state=optuna.trial.TrialState.FAIL)
        except (ValueError, RuntimeError):  # another worker noticed first
            continue
        study.enqueue_trial(_parameters(by_id[run]), user_attrs={"run": run})
        say(f"{run}: its worker was not heard of for {DEAD_AFTER_SECONDS / 60:g} minutes; put back")


def _fetch_records(expansion: Expansion, place: Place, study: optuna.Study) -> None:
    """Write the records of other machines here, so that the table shows their numbers too."""
    by_id = {spec.id: spec for spec in expansion.runs}
    for frozen in study.get_trials(deepcopy=False):
        text, run = frozen.user_attrs.get("record"), frozen.user_attrs.get("run")
        if text is None or run not in by_id:
            continue
        path = place.run_folder(run) / RECORD
        if not path.exists():
            write_text(path, text + "\n")
