"""Every task is brought, certified and served, and its disagreement is recounted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from every_task import BUILD, KINDS, OUT, RISK, WIDTH, Made, Net, brought, export
from numpy.typing import NDArray

from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.serving import ServingConfig
from skipserve.building.answers import write_answers
from skipserve.building.bring import bring
from skipserve.building.bring_file import BringOptions
from skipserve.building.buildfile import read_build_file
from skipserve.building.scoring import score
from skipserve.building.steps import run_steps
from skipserve.building.worth import Worth
from skipserve.errors import ConfigError, CutError
from skipserve.hosts.metadata import model_metadata
from skipserve.loadtest.answers import check
from skipserve.loadtest.payloads import Choice, Pool
from skipserve.protocols.messages import RawRequest
from skipserve.reporting.inspect import inspect_model
from skipserve.reporting.model import Model
from skipserve.reporting.page import draw_figures, render
from skipserve.reporting.report import measure
from skipserve.reporting.sample import Sample
from skipserve.runtime.engine import Engine
from skipserve.runtime.rows import Rows
from skipserve.service.service import Service

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=list(KINDS))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return brought(request.param, tmp_path_factory.mktemp(request.param))


def given_by_the_file(made: Made, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    session = ort.InferenceSession(str(made.project / "net.onnx"))
    return np.asarray(session.run(None, {"x": rows})[0]).astype(np.float64)


def differs(kind: str, served: NDArray[Any], given: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Disagreement, counted from what the file gives and no word of the package."""
    if kind == "multilabel":  # logits
        return ((served >= 0.5) != (given >= 0)).any(axis=1)
    if kind == "embed":
        return (served * given).sum(axis=1) < 0.99
    return (np.abs(served - given.reshape(len(served), -1)) > KINDS[kind][2]).any(axis=1)


def test_it_is_certified_and_disagreement_is_what_the_task_says(made: Made) -> None:
    engine = Engine(made.artifact)
    given = given_by_the_file(made, made.rows)
    full, routed = engine.predict(made.rows), engine.predict(made.rows, risk=RISK)
    assert not differs(made.kind, full.answers, given).any()
    assert (full.depth_run == 4).all()
    wrong = differs(made.kind, routed.answers, given)
    # Rows that nothing was fitted to: three deviations of a thousand tosses above the risk.
    assert 0 < wrong.mean() < RISK + 3 * (RISK / 1_000) ** 0.5
    assert (routed.depth_run < 4).mean() > 0.2
    task = engine.manifest.task
    np.testing.assert_array_equal(~task.agree(routed.answers, full.answers), wrong)
    certificate = engine.certified()[RISK]
    assert 0 < certificate.disagreements < RISK * certificate.samples
    assert isinstance(made.worth, Worth)
    assert task.differs in made.worth.sentence()


def test_what_is_unlike_the_data_runs_everything(made: Made) -> None:
    far = 20 * made.rows[:50]
    assert Engine(made.artifact).predict(far, risk=RISK).held_back.all()


def ask(made: Made, body: dict[str, Any]) -> dict[str, Any]:
    service = Service(Engine(made.artifact), ServingConfig(risk=RISK, evidence=0))
    (reply,) = service.answer([RawRequest(json.dumps(body).encode(), {})])
    assert reply.status == 200, reply.body
    return dict(json.loads(reply.body))


def test_a_reply_tells_what_the_task_decides(made: Made) -> None:
    expected = Engine(made.artifact).predict(made.rows[:5], risk=RISK)
    answers = np.round(expected.answers, 4).tolist()
    told = ask(made, {"inputs": made.rows[:5].tolist()})["outputs"]
    assert [one.pop("depth_run") for one in told] == expected.depth_run.tolist()
    assert not any(one.pop("held_back") for one in told)
    if made.kind == "multilabel":
        sets = [[i for i in range(OUT) if one["probabilities"][i] >= 0.5] for one in told]
        assert [one.pop("labels") for one in told] == sets
        assert len({len(one) for one in sets}) > 1
    name = {"multilabel": "probabilities", "regress": "values", "embed": "embedding"}
    (key,) = set().union(*told)
    assert key == name.get(made.kind, "score")
    found = [one[key] if isinstance(one[key], list) else [one[key]] for one in told]
    np.testing.assert_allclose(found, answers, rtol=1e-3, atol=1e-3)


def test_the_open_inference_protocol_has_the_tasks_outputs(made: Made) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, WIDTH], "data": made.rows[:2].tolist()}
    outputs = {one["name"]: one for one in ask(made, {"inputs": [tensor]})["outputs"]}
    metadata = model_metadata(made.artifact.manifest, ["1"])["outputs"]
    assert [one["name"] for one in metadata] == list(outputs)
    for said in metadata:
        have = outputs[said["name"]]
        assert have["datatype"] == said["datatype"]
        assert have["shape"] == [2, *said["shape"][1:]]
    assert ("label" in outputs, "labels" in outputs) == (False, made.kind == "multilabel")


def test_a_load_test_holds_replies_against_the_task(made: Made) -> None:
    engine = Engine(made.artifact)
    full, task = engine.predict(made.rows[:20]), engine.manifest.task
    labels = task.labels(full.answers)
    pool = Pool(
        *(made.kind, 4, task.width, [("[0]",)] * 20),
        (full.answers if labels is None else labels).tolist(),
        task=task.model_dump_json(),
    )
    body = ask(made, {"inputs": made.rows[:20].tolist(), "parameters": {"router": "off"}})
    right = json.dumps(body).encode()
    assert check(pool, Choice(made.kind, "off", 20), 0, right).failure == ""
    # The same replies are not those of other rows.
    assert "wrong answer" in check(pool, Choice(made.kind, "off", 20), 1, right).failure
    body["router"] = "on"
    found = check(pool, Choice(made.kind, "on", 20), 1, json.dumps(body).encode())
    assert found.failure == ""
    assert found.disagreements > 0


def test_inspect_and_report_work_without_classes(made: Made) -> None:
    artifact = made.artifact
    model = Model(made.kind, artifact.directory, None, artifact)
    sample = Sample(Rows({"x": made.rows[:400]}), None, "rows")
    if made.kind in ("regress", "score"):  # a report takes its time
        assert inspect_model(model, sample, RISK).agreement[-1] == 1
        return
    found = measure(model, sample, 8, say=lambda line: None)
    assert found.routed is not None
    assert found.routed.worst is None
    figures, notes = draw_figures(found)
    page = render(found, figures, notes)
    assert artifact.manifest.task.differs in page
    assert "not certified" in page
    assert {one.name for one in found.curves} >= {"fixed", "oracle", found_signal(made)}


def found_signal(made: Made) -> str:
    spec = made.artifact.manifest.router
    assert spec is not None
    return spec.signal


def test_answers_of_a_file_are_the_tasks_own(made: Made, tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", x=made.rows[:10])
    scored = score(made.artifact, tmp_path / "rows.npz", RISK, 4, 1, lambda doing, share: None)
    output = scored.task.output
    for kind in (".npz", ".jsonl", ".csv"):
        write_answers(tmp_path / f"answers{kind}", scored)
    with np.load(tmp_path / "answers.npz") as arrays:
        np.testing.assert_array_equal(arrays[output], scored.prediction.answers)
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    np.testing.assert_allclose([one[output] for one in lines], scored.prediction.answers, rtol=1e-6)
    columns = (tmp_path / "answers.csv").read_text().splitlines()[0]
    assert f'"{output}_0"' in columns


def test_a_decision_is_brought_and_its_margin_is_the_distance_to_the_threshold(tmp_path):
    export(Net(2, lambda x: 3 * x), tmp_path / "net.onnx")
    rows = np.random.default_rng(0).standard_normal((1_500, WIDTH)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=rows)
    text = BUILD.format(kind="classify", tolerance='names = ["ham", "spam"]', risk=0.1)
    text = text.replace("[exits]", 'decide = { label = "spam", at = 0.9 }\n[exits]')
    (tmp_path / "classify.toml").write_text(text)
    build = read_build_file(tmp_path / "classify.toml")
    run_steps(build, lambda epoch: None, lambda line: None)
    engine = Engine(open_artifact(build.artifact))
    assert engine.manifest.router.signal == "margin"
    readings = engine.read(engine.check(rows[:200]))
    p = readings.answers[:, 0, 1].astype(np.float64)
    expected = np.abs(np.log(p / (1 - p)) - np.log(9))
    np.testing.assert_allclose(readings.signals[:, 0], expected, rtol=1e-2, atol=1e-2)
    full = engine.predict(rows)
    logits = ort.InferenceSession(str(tmp_path / "net.onnx")).run(None, {"x": rows})[0]
    spam = torch.from_numpy(logits).softmax(dim=1).numpy()[:, 1]
    clear = np.abs(spam - 0.9) > 1e-4
    np.testing.assert_array_equal(full.labels[clear], (spam >= 0.9)[clear])
    assert ((spam > 0.5) & (spam < 0.9)).any()


def test_what_does_not_fit_the_network_is_refused(tmp_path):
    export(Net(2, lambda x: x), tmp_path / "net.onnx")
    np.savez(tmp_path / "rows.npz", x=np.random.default_rng(0).standard_normal((300, WIDTH)))
    wanted = BringOptions(
        str(tmp_path / "net.onnx"), tmp_path / "rows.npz", task="score", tolerance=1.0
    )
    with pytest.raises(CutError, match=r"expected one answer a row: one number"):
        bring(wanted, tmp_path)
    with pytest.raises(ConfigError, match="needs a tolerance"):
        bring(
            BringOptions(str(tmp_path / "net.onnx"), tmp_path / "rows.npz", task="regress"),
            tmp_path,
        )
    assert not (tmp_path / "export").exists() or not list((tmp_path / "export").iterdir())
