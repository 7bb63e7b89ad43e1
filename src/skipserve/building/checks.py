"""Settings of a build file that do not go together, or that nothing would read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from skipserve.artifacts.asked import Format
from skipserve.artifacts.serving import ServingConfig
from skipserve.errors import ConfigError
from skipserve.routing.config import RouterConfig
from skipserve.tasks import NO_EVIDENCE


def check_heeded(router: RouterConfig | None, serving: ServingConfig, path: Path) -> None:
    """Refuse settings that could have no effect.

    Args:
        router: The section [router], if there is one.
        serving: The section [serving].
        path: The build file, for the error.

    Raises:
        ConfigError: Naming the setting.
    """
    if router is not None and router.certificate != "offline" and not serving.evidence:
        raise ConfigError(
            f"{path}: router.certificate = {router.certificate!r} with serving.evidence = 0 would "
            "never earn anything; set evidence = 0.01, or leave it out"
        )
    if serving.overload_risk is not None and serving.risk is None:
        raise ConfigError(
            f"{path}: serving.overload_risk has no effect without serving.risk; set risk too, or "
            "leave it out"
        )


def check_counted(
    router: RouterConfig, formats: Sequence[Format], serving: ServingConfig, path: Path
) -> None:
    """Refuse to count queries where thresholds cannot be proposed for them, and on traffic.

    There it is not known which rows are of one query.

    Args:
        router: The section [router].
        formats: Of the model files.
        serving: The section [serving].
        path: The build file, for the error.

    Raises:
        ConfigError: Naming the setting.
    """
    if router.policy != "exit":
        raise ConfigError(
            f"{path}: router.policy = {router.policy!r} does not go with task.top: its thresholds "
            "are proposed by single scores, not by queries; set policy = 'exit', or leave top out"
        )
    if "torchscript" in formats:
        raise ConfigError(
            f"{path}: 'torchscript' in export.formats does not go with task.top: thresholds are "
            "proposed by what the exits answer, which only ONNX files show; set formats = ['onnx']"
        )
    if router.certificate != "offline":
        raise ConfigError(
            f"{path}: router.certificate = {router.certificate!r} does not go with task.top: "
            f"{NO_EVIDENCE}; set certificate = 'offline', or leave top out to earn it for each "
            "score"
        )
    if serving.asks_evidence:
        raise ConfigError(
            f"{path}: serving.evidence = {serving.evidence:g} does not go with task.top: "
            f"{NO_EVIDENCE}; leave evidence out"
        )
