"""The training loop of one stage: steps, saved states, validation, and an orderly end whatever happens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from adubench.errors import AdubenchError, DataError, counted
from adubench.training import guards, run_folder
from adubench.training.build import build_optimizer, train_section
from adubench.training.data import make_loader, to_device
from adubench.training.distributed import all_max, derive_seed, gather_objects, rank, world_size
from adubench.training.launch import open_accelerator
from adubench.training.micro_batches import micro_batches
from adubench.training.norm_buffers import norm_buffers, set_norm_buffers
from adubench.training.objectives import TOTALS, VALID
from adubench.training.progress import Progress, memory_bytes
from adubench.training.run_log import RunLog
from adubench.training.sampler import EpochSampler
from adubench.training.schedules import first_beta, lr_factor
from adubench.training.stage import Stage, check_same_data, failure, save_extras, save_network
from adubench.training.state import load_state, random_state, save_state, set_random_state, states
from adubench.training.sync_batch_norm import convert_batch_norm
from adubench.training.trackers import log_pictures, pictures

if TYPE_CHECKING:
    from adubench.training.validation import Validator

Batch = dict[str, Any]


class Trainer:
    """Runs a stage; holds what changes from step to step.

    Attributes:
        step: optimiser steps done.
        total: optimiser steps of the stage.
        best: best value of the recipe's metric and its step, empty before the first validation.
        metrics: of the last validation.
        empty: steps whose batch had no ground truth.
    """

    def __init__(self, stage: Stage) -> None:
        """Move everything to its device.

        Raises:
            UsageError: a batch that the processes cannot share, or a device that is not here.
        """
        self.stage, self.recipe = stage, stage.recipe
        self.train = train_section(stage.recipe, stage.name)
        self.accelerator, self.device = open_accelerator(stage, self.train)
        self.main = rank() == 0
        self.objective = stage.objective
        if self.train.sync_batch_norm and world_size() > 1:
            convert_batch_norm(self.objective)
        self.objective.to(self.device)
        for network in getattr(self.objective, "_outside", ()):
            network.to(self.device)
        self.optimizer = build_optimizer(self.objective, self.train)
        if self.train.compile:
            self.objective.network.compile()
        self.sampler = EpochSampler(
            len(stage.data.samples),
            self.recipe.seed,
            self.train.batch_size,
            rank=rank(),
            world=world_size(),
            drop_last=self.recipe.self_supervision,  # Monodepth2, trainer.py
        )
        self.steps_per_epoch = self.sampler.steps
        self.total = self.train.steps or self.train.epochs * self.steps_per_epoch
        self.step, self.best, self.metrics = 0, {}, {}  # type: ignore[var-annotated]
        self.empty, self.validated, self.saved = 0, -1, -1
        self._dirty = False
        self._interrupt = guards.StopRequest()

    def run(self, *, resume: bool = False) -> Path:
        """Train to the end.

        Returns:
            The last checkpoint.

        Raises:
            TrainingStopped: Ctrl-C or SIGTERM; everything is saved.
            TrainingError: a loss that is no number, or too little memory; the state before the step is saved.
            DataError: an image that cannot be read, or a disk that cannot be written.
        """
        torch.manual_seed(derive_seed(self.recipe.seed, self.stage.name, "steps", rank()))
        if resume:
            self._restore()
        model, optimizer = self._prepare()
        self.log = RunLog(self._path(run_folder.LOG), step=self.step) if self.main else None
        title = f"{self.recipe.name}, {self.stage.name}"
        try:
            with (
                guards.watch_signals() as self._interrupt,
                Progress(title, self.total, every=self.recipe.log.every, quiet=not self.main) as self.progress,
            ):
                self.progress.start_at(self.step)
                self._describe(resume)
                self._loop(model, optimizer)
                self._finish()
        finally:
            if self.log is not None:
                self.log.close()
            for tracker in self.accelerator.trackers:
                tracker.finish()
        return self._path(run_folder.LAST)

    def _prepare(self) -> tuple[torch.nn.Module, Any]:
        model, optimizer = self.accelerator.prepare(self.objective, self.optimizer)
        self._scaled = self.accelerator.scaler is not None
        if self._scaled and getattr(self, "_scaler_state", None):
            self.accelerator.scaler.load_state_dict(self._scaler_state)
        return model, optimizer

    def _loop(self, model: torch.nn.Module, optimizer: Any) -> None:
        batches = self._batches()
        model.train()
        self._milestone()
        while self.step < self.total:
            before = (random_state(), norm_buffers(self.objective))
            started = time.monotonic()
            try:
                batch = next(batches)
                values = self._one_step(model, optimizer, batch)
            except (AdubenchError, RuntimeError, MemoryError) as error:
                self._fail(error, before, optimizer)
            self.step += 1
            values["seconds"] = time.monotonic() - started
            self._report(values, batch, self._lr)
            if self._due(self.recipe.validate_.every, at_end=True):
                self._validate()
            self._milestone()
            stop = self._asked_to_stop()
            if stop or self._due(self.recipe.checkpoint.every or self.steps_per_epoch, at_end=True):
                self._save()
            if stop:
                self._stop()

    def _batches(self) -> Iterator[Batch]:
        """Yield batches on the device from the current step on, epoch after epoch, without touching random numbers."""
        train = self.train
        form = "uint8+table" if self.device.type == "cuda" else "float"
        loader = make_loader(self.stage.data.samples, self.sampler, workers=train.workers, form=form)  # type: ignore[arg-type]
        step = self.step
        while True:
            self.sampler.set_epoch(step // self.steps_per_epoch, step % self.steps_per_epoch)
            iterator = iter(loader)
            while True:
                random = torch.get_rng_state()
                batch = next(iterator, None)
                torch.set_rng_state(random)  # a loader draws a seed for its workers
                if batch is None:
                    break
                yield to_device(batch, self.device)
                step += 1

    def _one_step(self, model: torch.nn.Module, optimizer: Any, batch: Batch) -> dict[str, float]:
        """Forward, backward, guards, learning rate, step: the order of the NeWCRFs code."""
        global_size = self._global_size(self.step)
        parts = micro_batches(batch, global_size, self.train.accumulate, rank(), world_size())
        sums: dict[str, torch.Tensor] = {}
        for i, (part, share) in enumerate(parts):
            with self._synchronised(model, last=i == len(parts) - 1):
                losses = model(part, self.step)
                self.accelerator.backward(losses["loss"] * share)
            for name, value in losses.items():
                weight = 1.0 if name == VALID else share
                sums[name] = sums.get(name, 0.0) + value.detach().float() * weight
        if self._scaled:
            self.accelerator.unscale_gradients(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.objective.parameters(), self.train.clip_norm or float("inf"))
        values = dict(zip((*sums, "grad_norm"), torch.stack([*sums.values(), norm]).tolist(), strict=True))
        checked = {k: v for k, v in values.items() if not (self._scaled and k == "grad_norm")}
        totals = (*TOTALS, "grad_norm")
        guards.check_finite(checked, step=self.step + 1, frames=batch["frames"], sources=totals)
        if values.get(VALID, 1.0) == 0:
            self._count_empty(batch["frames"])
        self._set_lr()
        self._dirty = True
        optimizer.step()
        self._dirty = False
        optimizer.zero_grad(set_to_none=True)
        return values

    def _synchronised(self, model: torch.nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        """Sum gradients over processes only after the last micro-batch."""
        context: AbstractContextManager[Any] = nullcontext() if last else self.accelerator.no_sync(model)
        return context

    def _global_size(self, step: int) -> int:
        done = step % self.steps_per_epoch * self.train.batch_size
        return min(self.train.batch_size, len(self.stage.data.samples) - done)

    def _set_lr(self) -> None:
        factor = lr_factor(self.train, self.step, self.total, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
            group["betas"] = (first_beta(self.train, self.step, self.total), group["betas"][1])
        self._lr = self.train.lr * factor

    def _count_empty(self, frames: list[str]) -> None:
        self.empty += 1
        if self.empty == 1:
            self.progress.say(
                f"warning: step {self.step + 1} has no ground truth beyond {self.recipe.data.min_gt:g} m "
                f"({', '.join(frames[:3])}); its base loss is left out. Further ones are counted in the log."
            )

    def _report(self, values: dict[str, float], batch: Batch, lr: float) -> None:
        rate = self._global_size(self.step - 1) / max(values["seconds"], 1e-9)
        self.progress.step(self.step, values, rate=rate, lr=lr)
        every = self.recipe.log.every
        if not self.main or (self.step % every and self.step != self.total):
            return
        entry = values | {"lr": lr, "samples_per_second": rate, "memory": memory_bytes(), "empty": self.empty}
        entry |= {"epoch": self.step / self.steps_per_epoch}
        assert self.log is not None
        self.log.write("step", self.step, entry)
        self.accelerator.log({f"train/{k}": v for k, v in entry.items()}, step=self.step)
        if self.accelerator.trackers and self.recipe.log.images:
            random = random_state()
            drawn = pictures(batch, self.objective.pictures(batch), count=self.recipe.log.images)
            set_random_state(random)
            log_pictures(self.accelerator, drawn, self.step)

    def _due(self, every: int, *, at_end: bool = False) -> bool:
        return (every > 0 and self.step % every == 0) or (at_end and self.step == self.total)

    def _validate(self) -> None:
        """Score the weights of now; the first process works, the others wait."""
        validator = self.stage.validator
        if validator is None or self.validated == self.step:
            return
        if self.main:
            random = random_state()
            started = time.monotonic()
            self.metrics = validator.run(self.objective.network)
            set_random_state(random)
            self._record(validator, time.monotonic() - started)
        self.validated = self.step
        self.accelerator.wait_for_everyone()

    def _record(self, validator: Validator, seconds: float) -> None:
        name = self.recipe.validate_.metric
        value = self.metrics.get(name, float("nan"))
        better = validator.better(value, self.best.get("value"))
        if better:
            self.best = {"value": value, "step": self.step, "metric": name}
            if self.recipe.checkpoint.best:
                save_network(self.stage, run_folder.BEST, self.step, self.metrics)
        assert self.log is not None
        entry = {**self.metrics, "protocol": validator.protocol, "frames": len(validator.jobs), "seconds": seconds}
        self.log.write("validation", self.step, entry)
        self.accelerator.log({f"validation/{k}": v for k, v in self.metrics.items()}, step=self.step)
        self.progress.say(
            f"validation at step {self.step} ({validator.protocol}, {counted(len(validator.jobs), 'frame')}): "
            f"{name} {value:.4f}" + (" (best so far)" if better else f" (best {self.best.get('value', value):.4f})")
        )

    def _save(self, *, alone: bool = False) -> None:
        """Write state and last checkpoint. `alone`: other processes may not be there to take part."""
        if self.saved == self.step:
            return
        random = [random_state()] if alone else gather_objects(random_state())
        if self.main:
            try:
                save_state(self.stage.folder, self.step, self._content(random), keep=self.recipe.checkpoint.keep)
                save_network(self.stage, run_folder.LAST, self.step, self.metrics)
                save_extras(self.stage)
            except DataError as error:
                kept = [step for step, _ in states(self.stage.folder)]
                tail = f" The state of step {kept[-1]} is there: continue with --resume." if kept else ""
                raise DataError(f"{error}{tail}") from None
            self._describe_run("running")
        self.saved = self.step

    def _content(self, random: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "stage": self.stage.name,
            "modules": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.accelerator.scaler.state_dict() if self._scaled else None,
            "random": random,
            "epoch": self.step // self.steps_per_epoch,
            "best": dict(self.best),
            "metrics": dict(self.metrics),
            "validated": self.validated,
            "empty": self.empty,
            "data": self.stage.data.fingerprint(),
        }

    def _restore(self) -> None:
        """Continue from the newest state, if there is one.

        Raises:
            CheckpointError: no state can be read.
            DataError: the data is not what the run began with.
        """
        state = load_state(self.stage.folder)
        if state is None:
            return
        check_same_data(self.stage, state["data"])
        self.objective.load_state_dict(state["modules"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler_state = state["scaler"]
        self.step, self.best, self.metrics = state["step"], state["best"], state["metrics"]
        self.validated, self.empty, self.saved = state["validated"], state["empty"], state["step"]
        if rank() < len(state["random"]) and len(state["random"]) == world_size():
            set_random_state(state["random"][rank()])
        else:  # another number of processes: no state fits, a new one that depends on nothing else
            torch.manual_seed(derive_seed(self.recipe.seed, self.stage.name, "steps", rank(), self.step))

    def _fail(self, error: BaseException, before: tuple[Any, Any], optimizer: Any) -> None:
        """Take the step back, save what was there before it, and say what happened in one sentence."""
        optimizer.zero_grad(set_to_none=True)
        sentence = failure(error, self.stage, self.train, step=self.step + 1)
        if sentence is None:
            raise error
        if not self._dirty:
            set_random_state(before[0])
            set_norm_buffers(self.objective, before[1])
            if self.step > 0:
                self._save(alone=True)
        raise sentence from None

    def _asked_to_stop(self) -> bool:
        asked = self._interrupt.signal is not None
        if world_size() == 1:
            return asked
        return bool(all_max(torch.tensor([float(asked)], device=self.device)).item())

    def stop_before_next(self) -> None:
        """Honour a signal that came while this stage was being finished, where another stage would follow.

        Raises:
            TrainingStopped: there was one.
        """
        if self._asked_to_stop():
            raise guards.TrainingStopped(
                f"stopped after stage {self.stage.name}, which is finished in {self.stage.folder}. Go on to the next "
                "one with the same command and --resume.",
                self._interrupt.exit_status or 130,
            )

    def _stop(self) -> None:
        self._describe_run("stopped")
        status = self._interrupt.exit_status or 130
        raise guards.TrainingStopped(
            f"stopped at step {self.step} of {self.total} ({self.stage.name}); everything is saved in "
            f"{self.stage.folder}. Continue with the same command and --resume.",
            status,
        )

    def _finish(self) -> None:
        self._validate()
        self._save()
        self._describe_run("finished")
        self.accelerator.wait_for_everyone()

    def _milestone(self) -> None:
        """Keep the student of now if the recipe asks for it."""
        shares = self.recipe.checkpoint.milestones if self.stage.name == "student" else ()
        if self.main and self.step in {round(share * self.total) for share in shares}:
            network, adapters = run_folder.milestone_files(self.stage.folder, self.step)
            save_network(self.stage, network.name, self.step, self.metrics)
            save_extras(self.stage, adapters.name)

    def _describe(self, resume: bool) -> None:
        train, data = self.train, self.stage.data
        if not self.main:
            return
        again = f", continued at step {self.step}" if resume and self.step else ""
        self.progress.say(
            f"{self.recipe.name}, {self.stage.name}: {counted(len(data.samples), 'frame')} of {data.split}, "
            f"{counted(self.total, 'step')} of {train.batch_size}, {self.device}, "
            f"{self.accelerator.mixed_precision.replace('no', 'fp32')}{again}"
        )
        for note in (*self.stage.notes, *data.notes) if not again else ():
            self.progress.say(f"note: {note}")
        assert self.log is not None
        self.log.write("resume" if again else "start", self.step, {"total": self.total, **data.fingerprint()})
        self._describe_run("running")

    def _describe_run(self, status: str) -> None:
        if self.main:
            run_folder.write_run(
                self.stage.folder,
                status=status,
                recipe=self.recipe.name,
                stage=self.stage.name,
                step=self.step,
                total=self.total,
                best=self.best,
                metrics=self.metrics,
                data=self.stage.data.fingerprint(),
                empty_batches=self.empty,
            )

    def _path(self, name: str) -> Path:
        return self.stage.folder / name
