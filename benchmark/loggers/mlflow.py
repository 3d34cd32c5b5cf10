"""MLflow: a tracking server, or a SQLite file in the study's folder."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from benchmark.loggers.logger import End, LoggedRun, Logger

_STATUS: dict[End, str] = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
# What a request may hold, and a parameter.
_MOST_PARAMETERS, _LONGEST = 100, 6000


class MLflow(Logger):
    """One run of the experiment that is called as the suite (or as MLFLOW_EXPERIMENT_NAME says).

    Where neither MLFLOW_TRACKING_URI nor ``mlflow.set_tracking_uri`` names a server, the runs of a
    study are in its folder, in ``mlflow.db``. In names, MLflow has no ``@``; a ``-`` stands for it.
    """

    package = "mlflow"
    install = "generalist-bench[mlflow]"
    id: str

    def __init__(self, run: LoggedRun) -> None:
        import mlflow  # noqa: PLC0415 - an optional extra
        from mlflow.entities import Metric, Param  # noqa: PLC0415 - the same

        self._metric = Metric
        own = f"sqlite:///{run.study / 'mlflow.db'}"
        place = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else own
        self._client = mlflow.MlflowClient(place)
        if run.id is None:
            experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or run.suite)
            self.id = self._client.create_run(experiment, run_name=run.name).info.run_id
            parameters = [Param(_name(key), text) for key, text in _flat(run.config)]
            for first in range(0, len(parameters), _MOST_PARAMETERS):
                part = parameters[first : first + _MOST_PARAMETERS]
                self._client.log_batch(self.id, params=part)
        else:
            self.id = run.id
            self._client.update_run(self.id, status="RUNNING")
        self.place = f"run {self.id} in {place}"

    def _experiment(self, name: str) -> str:
        """The identity of the experiment ``name``, which is made unless it is there."""
        known = self._client.get_experiment_by_name(name)
        if known is None:
            try:
                return str(self._client.create_experiment(name))
            except Exception:  # another process may have been faster
                known = self._client.get_experiment_by_name(name)
                if known is None:
                    raise
        return str(known.experiment_id)

    def line(self, step: int, values: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        metrics = [self._metric(_name(key), value, now, step) for key, value in values.items()]
        self._client.log_batch(self.id, metrics=metrics)

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        self.line(step, values)

    def close(self, end: End) -> None:
        self._client.set_terminated(self.id, _STATUS[end])


def _name(key: str) -> str:
    return re.sub(r"[^\w.\- /]", "-", key)


def _flat(config: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The values of nested mappings by their dotted keys, as text."""
    if isinstance(config, Mapping) and config:
        for key, value in config.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    else:
        text = config if isinstance(config, str) else json.dumps(config)
        yield path, text[:_LONGEST]
