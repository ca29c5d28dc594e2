"""A model that OpenVINO compiled leaves signals as they were: Python's handlers would otherwise run on freed memory."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest

from iccld.export.runtimes import compiled_answer
from iccld.export.signal_stack import signal_stack

openvino = pytest.importorskip("openvino")
onnx = pytest.importorskip("onnx")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the stack is Linux's")
def test_compiling_leaves_the_signal_stack_as_it_was() -> None:
    value = onnx.helper.make_tensor_value_info
    kinds = [value(name, onnx.TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", kinds[:1], kinds[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    before = signal_stack()
    answer = compiled_answer(openvino.Core().read_model(io.BytesIO(model.SerializeToString())), "fp32")
    assert answer([np.array([[-1, 0, 1, 2]], np.float32)]).tolist() == [[0, 0, 1, 2]]
    after = signal_stack()
    assert (after.address, after.flags, after.size) == (before.address, before.flags, before.size)
