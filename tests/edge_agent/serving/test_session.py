"""What the runtime is told of a file: the same thing for the probe and for the application."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from edge_agent.serving.session import open_session, run_rows
from tests.edge_agent.serving.stage.files import INPUTS, file_bytes, outputs_of
from wire.errors import WireError


def own_format(folder) -> bytes:
    """Returns a model as the runtime writes it for itself."""
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(folder / "model.ort")
    settings.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(file_bytes(), settings, providers=["CPUExecutionProvider"])
    return (folder / "model.ort").read_bytes()


@pytest.mark.parametrize("options", [{}, {"session.load_model_format": "ORT"}])
def test_only_onnx_is_loaded_whatever_the_first_bytes_say(tmp_path, options):
    data = own_format(tmp_path)
    assert data[4:8] == b"ORTM"
    onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])  # unasked it loads
    with pytest.raises(WireError, match="E-MODEL-LOAD"):
        open_session(data, options)


def test_a_right_file_answers():
    np.testing.assert_array_equal(run_rows(open_session(file_bytes(), {}), INPUTS), outputs_of(file_bytes()))
