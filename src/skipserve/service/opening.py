"""Opening a model for service, whatever the host."""

from __future__ import annotations

import atexit

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.serving import ServingConfig
from skipserve.earning.worker_state import state_of
from skipserve.protocols.oip_replies import VERSION
from skipserve.runtime.engine import Engine
from skipserve.runtime.warming import warm_up
from skipserve.safety.switch import switch_of
from skipserve.service.idle import Idle
from skipserve.service.service import Service
from skipserve.telemetry.journal import Journal
from skipserve.telemetry.tracing import open_tracing


def open_service(
    artifact: Artifact, serving: ServingConfig, idle: Idle, version: str = VERSION
) -> Service:
    """Open and warm up a model; its switch, state and trace target are in the environment.

    Whoever opens it closes it; a process that ends does so by itself.

    Args:
        artifact: Of the model.
        serving: Its settings.
        idle: Does work once the replies are on their way.
        version: The version for clients.

    Raises:
        ArtifactError: If its files cannot be loaded.
        LaunchError: If CUDA was asked for and is not there.
    """
    engine = Engine(
        artifact,
        backend=serving.backend,
        precision=serving.precision,
        provider=serving.provider,
        threads=serving.threads,
    )
    warm_up(engine, serving.batch_size)
    name = engine.manifest.name
    journal = Journal(name, serving.access_log, open_tracing())
    about = engine.manifest, engine.candidates, engine.files, engine.precision, engine.provider
    made = {one: state_of(*about, one) for one in engine.manifest.slices.names}
    states = {of_slice: one for of_slice, one in made.items() if one is not None}
    service = Service(engine, serving, idle, switch_of(name), journal, version, states)
    atexit.register(service.close)  # of a process that ends without closing it
    return service
