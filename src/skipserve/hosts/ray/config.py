"""The arguments of the Ray Serve application."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, field_validator, model_validator

from skipserve.schema import Record


class RayConfig(Record):
    """Arguments of ``serve run`` (NAME=VALUE), or ``args`` of a Ray Serve configuration.

    They hold for every model. What one model alone shall have stands in the file, under
    ``deployments``, by the model's name.

    Attributes:
        model_store: Folder of the ``.mar`` files, at the same path on every node.
        models: Names in it, in a file a list, in a command with commas between; all by default.
        min_replicas: Processes that hold a model, at least.
        max_replicas: At most; between the two Ray follows the load.
        max_replicas_per_node: Of one model; 0 leaves it to Ray.
        target_ongoing_requests: Requests on their way in a replica that Ray scales towards.
        max_ongoing_requests: Most in a replica; more wait where they came in.
        max_queued_requests: Most that wait there for one model; one more is answered 503.
        num_cpus: That Ray keeps for a replica.
        num_gpus: That Ray keeps for a replica of a model, such as 0.25 for four on a GPU.
        health_check_period_s: Seconds between two looks at a replica.
        origins: Web pages that may ask from a browser.
    """

    # A command gives everything as text.
    model_config = ConfigDict(strict=False)

    model_store: Path
    models: tuple[str, ...] = ()
    min_replicas: Annotated[int, Field(ge=1)] = 1
    max_replicas: Annotated[int, Field(ge=1)] = 1
    max_replicas_per_node: Annotated[int, Field(ge=0, le=100)] = 0
    target_ongoing_requests: Annotated[float, Field(gt=0)] = 16.0
    max_ongoing_requests: Annotated[int, Field(ge=1)] = 100
    max_queued_requests: Annotated[int, Field(ge=1)] = 1000
    num_cpus: Annotated[float, Field(ge=0)] = 1.0
    num_gpus: Annotated[float, Field(ge=0)] = 0.0
    health_check_period_s: Annotated[float, Field(gt=0)] = 10.0
    origins: tuple[str, ...] = ()

    @field_validator("models", "origins", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value

    @field_validator("models")
    @classmethod
    def _in_force(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if "@" in name:
                raise ValueError(f"{name}: Ray serves the version in force; leave the number out")
        return value

    @field_validator("model_store")
    @classmethod
    def _everywhere(cls, value: Path) -> Path:
        if not value.is_absolute():
            raise ValueError("expected an absolute path, the same on every node")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> RayConfig:
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas {self.max_replicas} is less than min_replicas {self.min_replicas}"
            )
        if self.max_ongoing_requests < self.target_ongoing_requests:
            raise ValueError(
                f"max_ongoing_requests {self.max_ongoing_requests} is less than "
                f"target_ongoing_requests {self.target_ongoing_requests:g}: Ray would never scale"
            )
        return self
