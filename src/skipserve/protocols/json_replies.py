"""What JSON replies say of each row."""

from __future__ import annotations

from skipserve.runtime.prediction import Prediction, Setting


def rows_told(
    prediction: Prediction, setting: Setting, names: tuple[str, ...] = ()
) -> list[dict[str, object]]:
    """What a reply says of each row; ``held_back`` where the router was on.

    Args:
        prediction: For the rows.
        setting: They ran with.
        names: Of the classes; ``name`` stands beside ``label`` where there are any.
    """
    labels = prediction.labels.tolist()
    told: list[dict[str, object]] = [
        {"label": label, "probabilities": probabilities, "depth_run": depth_run}
        for label, probabilities, depth_run in zip(
            labels,
            prediction.probabilities.tolist(),
            prediction.depth_run.tolist(),
            strict=True,
        )
    ]
    if names:
        told = [
            {"label": label, "name": names[label], **one}
            for label, one in zip(labels, told, strict=True)
        ]
    if setting.risk is not None:
        for one, held in zip(told, prediction.held_back.tolist(), strict=True):
            one["held_back"] = held
    return told
