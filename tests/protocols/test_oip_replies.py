"""The Open Inference Protocol: outputs in JSON or binary, as clients read them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from oip_requests import (
    TASK,
    answer,
    is_binary,
    named,
    read,
)
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from skipserve.protocols.answers import answer_of
from skipserve.protocols.messages import RawRequest
from skipserve.protocols.oip import OpenInference
from skipserve.protocols.oip_replies import HEADER_LENGTH, outputs_of
from skipserve.protocols.oip_tensors import DTYPES
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Prediction


@pytest.mark.parametrize("binary", [False, True], ids=["JSON", "binary"])
def test_every_output_comes_back_unless_some_are_asked_for(
    open_inference: OpenInference, prediction: Prediction, binary: bool
) -> None:
    result = answer(open_inference, prediction, parameters={"binary_data_output": binary})
    assert result.get_response()["model_name"] == "small"
    assert result.get_response()["model_version"] == "1"
    assert named(result) == list(outputs_of(TASK))
    attributes = ("labels", "answers", "depth_run", "held_back")
    for name, attribute in zip(outputs_of(TASK), attributes, strict=True):
        expected = getattr(prediction, attribute)
        assert is_binary(result, name) is binary
        assert result.as_numpy(name).dtype == expected.dtype
        np.testing.assert_array_equal(result.as_numpy(name), expected)


def test_outputs_come_in_the_order_asked_each_in_its_own_form(
    open_inference: OpenInference, prediction: Prediction
) -> None:
    result = answer(
        open_inference,
        prediction,
        parameters={"binary_data_output": True},
        outputs=[
            {"name": "depth_run"},
            {"name": "probabilities", "parameters": {"binary_data": False}},
            {"name": "label", "parameters": {"binary_data": True}},
        ],
    )
    assert named(result) == ["depth_run", "probabilities", "label"]
    assert [is_binary(result, name) for name in named(result)] == [True, False, True]
    np.testing.assert_array_equal(result.as_numpy("depth_run"), prediction.depth_run)
    np.testing.assert_array_equal(result.as_numpy("probabilities"), prediction.answers)
    np.testing.assert_array_equal(result.as_numpy("label"), prediction.labels)


@pytest.mark.parametrize("fields", [{"id": "a·7"}, {"id": ""}, {}], ids=["some", "empty", "none"])
def test_the_id_comes_back(
    open_inference: OpenInference, prediction: Prediction, fields: dict[str, str]
) -> None:
    response = answer(open_inference, prediction, **fields).get_response()
    assert {key: response[key] for key in response if key == "id"} == fields


@pytest.mark.parametrize(
    ("datatype", "binary"),  # the client sends FP16 as bytes only
    [("FP16", True), ("FP32", True), ("FP64", True), ("FP32", False), ("FP64", False)],
)
def test_tritons_client_is_understood(
    open_inference: OpenInference,
    engine: Engine,
    rows: NDArray[np.float32],
    datatype: str,
    binary: bool,
) -> None:
    sent = rows[:3].astype(DTYPES[datatype])
    tensor = InferInput("inputs", sent.shape, datatype)
    tensor.set_data_from_numpy(sent, binary_data=binary)
    outputs = [InferRequestedOutput("probabilities", binary_data=binary)]
    body, length = InferenceServerClient.generate_request_body(
        [tensor], outputs=outputs, request_id="7"
    )
    headers = {} if length is None else {HEADER_LENGTH: str(length)}
    parsed = open_inference.decode(RawRequest(body, headers))
    result = read(parsed.encode(answer_of(engine.run(engine.check(parsed.rows)), engine.off, TASK)))
    assert result.get_response()["id"] == "7"
    np.testing.assert_array_equal(result.as_numpy("probabilities"), engine.predict(sent).answers)
