"""A generation: the archives that a service has open, their switches, and the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skipserve.artifacts.archive import Unpacked, unpack_all
from skipserve.artifacts.manifest import Manifest
from skipserve.errors import LaunchError
from skipserve.files import machines_fault
from skipserve.hosts.config import HostConfig
from skipserve.hosts.control import open_switches
from skipserve.hosts.host import Host
from skipserve.hosts.instance import Instance
from skipserve.hosts.readiness import WorkerRequirement
from skipserve.hosts.states import keep_state
from skipserve.safety.model_watch import Watched
from skipserve.safety.standing import StandingOrderWatch
from skipserve.safety.switch import Switch

# Found again at each reload: other archives may be in force then.
Find = Callable[[], Sequence[Path]]


@dataclass(frozen=True)
class Generation:
    """One set of models and the host that serves them.

    Attributes:
        instance: Its folders.
        host: That answers with them.
        models: Of its archives, in order.
        switches: One a model.
        watches: Of each model with a router, over its standing order; of one without, ``None``.
        states: The folder of each model's state.
    """

    instance: Instance
    host: Host
    models: Sequence[Unpacked]
    switches: Sequence[Switch]
    watches: Mapping[str, StandingOrderWatch | None]
    states: Sequence[Path]

    @property
    def manifests(self) -> list[Manifest]:
        """The manifests of its models."""
        return [model.artifact.manifest for model in self.models]

    @property
    def orders(self) -> dict[str, Path | None]:
        """Of each model with a router, the file that keeps it off; of one without, ``None``."""
        return {
            model: None if watch is None else watch.order for model, watch in self.watches.items()
        }

    def required(self, config: HostConfig) -> dict[str, WorkerRequirement]:
        """Requirements for each model to be ready."""
        return {
            model.name: WorkerRequirement.of(config.workers, model.serving.response_timeout_s)
            for model in self.models
        }

    def watched(self) -> list[Watched]:
        """The models that the monitor watches."""
        return [
            Watched(model.artifact, model.serving, switch, state)
            for model, switch, state in zip(self.models, self.switches, self.states, strict=True)
        ]

    def differs_from(self, other: Generation) -> set[str]:
        """Names of models whose files differ between two generations."""
        before = {model.name: model for model in other.models}
        return {
            one.name for one in self.models if one.name in before and _differ(one, before[one.name])
        }

    def say(self) -> str:
        """The models and their versions, in words."""
        return ", ".join(f"{model.model} version {model.version}" for model in self.models)

    def close(self) -> None:
        """Close the switches."""
        for switch in self.switches:
            switch.close()


def open_generation(
    instance: Instance, host: Host, archives: Sequence[Path], overrides: dict[str, Any]
) -> Generation:
    """Unpack and check archives for a host that was not started yet.

    The first archive of a model answers for its name; others are versions beside it.

    Raises:
        ArtifactError: If an archive is damaged.
        ConfigError: If an override is out of range.
        LaunchError: If there is no archive, or the machine is full or forbids it.
    """
    if not archives:
        raise LaunchError("there is no archive to serve; make one with `skipserve build`")
    try:
        instance.make_folders()
        pairs = list(unpack_all(archives, instance.store, overrides))
    except OSError as error:
        if not machines_fault(error):
            raise
        raise LaunchError(
            f"{error.filename or instance.directory}: {error.strerror}; the service's "
            "files go there: make room, or set TMPDIR to another folder"
        ) from None
    models = [model for _, model in pairs]
    manifests = [model.artifact.manifest for model in models]
    switches, watches = open_switches(
        instance.directory, [archive for archive, _ in pairs], manifests
    )
    states = [keep_state(instance, archive, model) for archive, model in pairs]
    return Generation(instance, host, models, switches, watches, states)


def _differ(one: Unpacked, other: Unpacked) -> bool:
    first, second = one.artifact, other.artifact
    return (first.manifest, first.certificates, one.serving) != (
        second.manifest,
        second.certificates,
        other.serving,
    )
