"""The application that `serve run` deploys: a front, and a deployment for every model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from click import ClickException
from ray import serve
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import LoggingConfig

from skipserve.artifacts.versions import archives_in
from skipserve.errors import ConfigError
from skipserve.hosts.ray.config import RayConfig
from skipserve.hosts.ray.front import Front
from skipserve.hosts.ray.replica import Replica
from skipserve.schema import parse

# No model can be called so: names of models have no hyphen.
FRONT = "front-door"
# A front only waits for its models, whose own bounds hold.
FRONT_ONGOING = 10_000


class DeploymentError(ConfigError, ClickException):
    """What `serve run` prints as one line, without a traceback."""


def app(arguments: Mapping[str, Any]) -> serve.Application:
    """An application for ``serve run`` and for ``import_path`` in a configuration file.

    Args:
        arguments: Those of :class:`RayConfig`.

    Raises:
        ConfigError: If one is unknown or out of range, or the folder holds no such archive.
    """
    try:
        config = parse(RayConfig, arguments, "arguments")
        names = [archive.stem for archive in archives_in(config.model_store, config.models)]
    except ConfigError as error:
        raise DeploymentError(str(error)) from None
    models = {name: _model(config, name) for name in names}
    options = {**_options(config), "max_ongoing_requests": FRONT_ONGOING}
    front = serve.deployment(
        serve.ingress()(Front),
        name=FRONT,
        ray_actor_options={"num_cpus": config.num_cpus},
        **options,
    )
    return front.bind(config, models)


def _model(config: RayConfig, name: str) -> serve.Application:
    deployment = serve.deployment(
        Replica,
        name=name,
        max_queued_requests=config.max_queued_requests,
        ray_actor_options={"num_cpus": config.num_cpus, "num_gpus": config.num_gpus},
        **_options(config),
    )
    return deployment.bind(config, name)


def _options(config: RayConfig) -> dict[str, Any]:
    most = config.max_replicas_per_node
    return {
        # `serve build` cannot write down what is not said.
        **({"max_replicas_per_node": most} if most else {}),
        "max_ongoing_requests": config.max_ongoing_requests,
        "health_check_period_s": config.health_check_period_s,
        # A line for each request; the archives say which requests are logged.
        "logging_config": LoggingConfig(enable_access_log=False),
        "autoscaling_config": AutoscalingConfig(
            min_replicas=config.min_replicas,
            max_replicas=config.max_replicas,
            target_ongoing_requests=config.target_ongoing_requests,
        ),
    }
