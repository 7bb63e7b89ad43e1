"""The step that tunes a network which was brought, before it is exported."""

from __future__ import annotations

from skipserve.building.buildfile import BuildFile
from skipserve.building.products import Say
from skipserve.errors import ConfigError


def tune_source(build: BuildFile, say: Say = lambda line: None) -> None:
    """Tune what a build file brings, and write its weights where the export looks for them.

    It is tuned on the rows to fit on; the harm to full depth shows on those to propose on, which
    the certificate does not need to be untouched. Where every epoch harms too much, the weights
    are written as they were.

    Raises:
        ConfigError: If it was not brought as a torch module or a folder with weights.
        CutError: If it has no residual blocks.
        TrainingDiverged: If the loss is not finite.
    """
    # Torch takes seconds to import.
    from skipserve.sources.brought import read_brought
    from skipserve.sources.hugging_face.exporting import InOrder
    from skipserve.training.tuning.loop import tune
    from skipserve.training.tuning.rows import TuningRows
    from skipserve.training.tuning.weights import save_tuned

    assert build.brought is not None and build.tuning is not None
    untuned = build.brought.model_copy(update={"tuned": None})
    read, splits = read_brought(untuned, build.root)
    if read.module is None:
        raise ConfigError(
            f"{build.path}: [tuning] needs the network's weights in torch; bring it as a folder "
            "with model.safetensors or as module:function"
        )
    names = list(splits.fit.rows.tensors)
    mask = next((name for name in names if "mask" in name.lower()), None)
    rows, kept = (
        TuningRows.of(part.rows.tensors, part.labels, mask) for part in (splits.fit, splits.propose)
    )
    tuned = tune(read.module, rows, kept, build.tuning, lambda line: say(f"{build.name}: {line}"))
    say(f"{build.name}: {tuned.sentence()}")
    # As the folder's own weights are called, which the export opens.
    whole = tuned.module
    save_tuned(whole.model if isinstance(whole, InOrder) else whole, build.tuned)
