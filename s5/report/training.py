"""How the models were trained, read from ESPnet experiment folders: config.yaml, checkpoint.pth and logs."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from s5.config import load_yaml
from s5.errors import InputError
from s5.report.reporter import read_reporter

# ESPnet's lines: "[host] 2026-11-22 14:03:11,042 (trainer:336) INFO: 3/20epoch started. Estimated time ..."
_STAMP = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:,\d+)? ")
_STARTED = re.compile(r"\b(\d+)/\d+epoch started")
ASIDE = re.compile(r"\.(old|\d{8}-\d{6}(-\d+)?)$")
"""How the folder's name ends of a model that run.sh has put aside."""

EPOCH_RESULTS = re.compile(r"\b(\d+)epoch results: (.*)")
_PARAMETERS = re.compile(r"Total Number of model parameters: ([\d.,]+ ?[KMBT]?)")
_TRAINABLE = re.compile(r"Number of trainable parameters: ([\d.,]+ ?[KMBT]?)")


@dataclass(frozen=True)
class Training:
    """One trained model. What neither the configuration nor the logs tell is None.

    Attributes:
        name: folder of the model in the experiment folder.
        parameters, trainable: as ESPnet logs them, e.g. "26.74 M".
        epochs, max_epoch: epochs run, and allowed.
        criterion: e.g. "valid loss (min)".
        best_epoch, best_value: the epoch with the best criterion and its value.
        batch_size, seed: from the configuration.
        time: training and validation together, interruptions left out.
    """

    name: str
    parameters: str | None = None
    trainable: str | None = None
    epochs: int | None = None
    max_epoch: int | None = None
    criterion: str | None = None
    best_epoch: int | None = None
    best_value: float | None = None
    batch_size: int | None = None
    seed: int | None = None
    time: timedelta | None = None


def find_trainings(expdir: str | Path) -> list[Training]:
    """Every ESPnet experiment folder in ``expdir``, by name. One that cannot be read is left out with a warning."""
    found = []
    for config in sorted(Path(expdir).glob("*/config.yaml")):
        if ASIDE.search(config.parent.name):
            continue
        try:
            conf = load_yaml(config)
        except InputError as e:
            logging.warning("left out of the training table: %s", e)
            continue
        if "max_epoch" in conf and not conf.get("collect_stats"):
            found.append(read_training(config.parent, conf))
    return found


def read_training(folder: Path, conf: dict[str, Any]) -> Training:
    """One model from its folder, its ESPnet configuration and its logs."""
    phase, key, mode = criterion(conf)
    log = _read_logs(folder, phase, key)
    # The checkpoint knows all epochs; a log may begin where training was resumed.
    history = _read_checkpoint(folder / "checkpoint.pth", phase, key) or log.epochs
    values = {epoch: value for epoch, (value, _) in history.items() if value is not None}
    times = [time for _, time in history.values() if time is not None]
    best_epoch = (min if mode == "min" else max)(values, key=lambda epoch: values[epoch]) if values else None
    linked = folder / f"{phase}.{key}.best.pth"
    if linked.is_symlink() and (match := re.match(r"(\d+)epoch\.pth$", linked.readlink().name)):
        best_epoch = int(match[1])  # what ESPnet itself calls the best; logs round the values
    return Training(
        name=folder.name,
        parameters=log.parameters,
        trainable=log.trainable,
        epochs=max(history, default=None),
        max_epoch=_integer(conf.get("max_epoch")),
        criterion=f"{phase} {key} ({mode})" if key else None,
        best_epoch=best_epoch,
        best_value=values.get(best_epoch) if best_epoch is not None else None,
        batch_size=_integer(conf.get("batch_size")),
        seed=_integer(conf.get("seed")),
        time=sum(times, timedelta()) if times else None,
    )


History = dict[int, tuple[float | None, timedelta | None]]
"""Epoch -> value of the criterion, time of training and validation."""


def _read_checkpoint(file: Path, phase: str, key: str) -> History | None:
    """The epochs that a checkpoint knows; None if it is not there or not readable."""
    stats = read_reporter(file)
    return {epoch: _of_epoch(phases, phase, key) for epoch, phases in stats.items()} if stats else None


def _of_epoch(phases: dict[str, dict[str, Any]], phase: str, key: str) -> tuple[float | None, timedelta | None]:
    value = phases.get(phase, {}).get(key)
    times = [part["time"] for part in phases.values() if isinstance(part.get("time"), timedelta)]
    return None if value is None else float(value), sum(times, timedelta()) if times else None


@dataclass
class _Log:
    parameters: str | None
    trainable: str | None
    epochs: History


def _read_logs(folder: Path, phase: str, key: str) -> _Log:
    """All logs of a model, oldest first."""
    log = _Log(None, None, {})
    for file in log_files(folder):
        begun: tuple[int, datetime] | None = None
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if match := _PARAMETERS.search(line):
                    log.parameters = match[1].strip()
                elif match := _TRAINABLE.search(line):
                    log.trainable = match[1].strip()
                elif match := _STARTED.search(line):
                    stamp = _stamp(line)
                    begun = (int(match[1]), stamp) if stamp else None
                elif match := EPOCH_RESULTS.search(line):
                    epoch, stamp = int(match[1]), _stamp(line)
                    # An epoch that was interrupted and run again counts once: the run that finished.
                    time = stamp - begun[1] if begun and stamp and begun[0] == epoch and stamp >= begun[1] else None
                    log.epochs[epoch] = (_value(match[2], phase, key), time)
    return log


def log_files(folder: Path) -> list[Path]:
    """Logs of a model, oldest first.

    ESPnet's launcher writes train.log into the folder and renames it to train.1.log and so on when training goes on;
    the recipe writes <expdir>/log/<stage>_<name of the stage>_<model>.log, where fine-tuning ends in "-ft", "-ft2" and
    so on instead of the folder in "_ft", "_ft2".
    """
    stage = rf"\d+_[a-z]+_{re.escape(folder.name)}\.log"
    if further := re.fullmatch(r"(.+)_(ft\d*)", folder.name):
        stage += rf"|\d+_[a-z]+-{further[2]}_{re.escape(further[1])}\.log"
    recipe = [file for file in folder.parent.glob("log/*.log") if re.fullmatch(stage, file.name)]
    return sorted([*folder.glob("train*.log"), *recipe], key=lambda file: file.stat().st_mtime)


def _stamp(line: str) -> datetime | None:
    match = _STAMP.search(line)
    return datetime.fromisoformat(match[1]) if match else None


def criterion(conf: dict[str, Any]) -> tuple[str, str, str]:
    """The first of ESPnet's ``best_model_criterion``, a list of [phase, key, min|max]."""
    match conf.get("best_model_criterion"):
        case [[str(phase), str(key), str(mode)], *_]:
            return phase, key, mode
    return "valid", "", "min"


def _value(line: str, phase: str, key: str) -> float | None:
    """``key`` of "[train] loss=1.2, [valid] loss=0.5, time=3 seconds"."""
    section = re.search(rf"\[{re.escape(phase)}\]([^\[]*)", line)
    match = re.search(rf"(?:^|[\s,]){re.escape(key)}=([-+.\deE]+|nan|-?inf)", section[1]) if section and key else None
    return float(match[1]) if match else None


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) else None
