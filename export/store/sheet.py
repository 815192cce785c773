"""The nodes and initialisers of a graph as they are put together; equal constants are stored once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

from export.store.elements import as_elements
from export.store.planes import Codes

__all__ = ["Sheet"]

Values = npt.NDArray[np.generic]


@dataclass
class Sheet:
    """Grows by `constant`, `tensor`, `elements` and `node`; names start with a slash, which no parameter's does."""

    mark: str = "c"  # of shared constants: two sheets that meet in one graph need two marks
    packing: str = "planes"  # of codes: one of PACKINGS
    nodes: list[NodeProto] = field(default_factory=list)
    tensors: dict[str, TensorProto] = field(default_factory=dict)
    _shared: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)

    def constant(self, values: npt.ArrayLike, kind: npt.DTypeLike) -> str:
        """Returns the name of the initialiser of these values, made if there is none yet."""
        array = np.asarray(values, kind)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._shared:
            self._shared[key] = self.tensor(f"/{self.mark}{len(self._shared)}", array)
        return self._shared[key]

    def tensor(self, name: str, values: Values) -> str:
        """Adds an initialiser; returns its name."""
        self.tensors[name] = numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)
        return name

    def elements(self, name: str, codes: Codes, bits: int) -> str:
        """Adds an initialiser of elements of 4 or 2 bits; returns its name."""
        self.tensors[name] = as_elements(name, codes, bits)
        return name

    def node(self, operator: str, *inputs: str, named: str = "", **attributes: Any) -> str:
        """Adds a node of one output, `named` or numbered; returns the output's name."""
        output = named or f"/n{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output
