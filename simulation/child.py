"""The training child of a simulation: the agents' own; what many devices have in common is read once a process."""

from __future__ import annotations

import signal
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from edge_agent.config import DataConfig
from edge_agent.training.child import answer
from edge_agent.training.local_data import fitting, local_data, share_of
from models.data import stored
from models.dataset import Dataset, Index
from models.sources.sets import Stored
from models.splits import Share, parts_of
from models.tasks import dataset_of
from wire.frame import Kind, encode_frame
from wire.params import Params
from wire.pipe import serve_pipe
from wire.spec import ModelSpec

__all__ = ["Shares", "main"]

_MOST_BYTES = 256_000_000


@dataclass
class Shares:
    """See `Common`. One set and one split are kept, the newest shares up to `most_bytes`, and the last base, from which
    all devices of a round start.
    """

    most_bytes: int = _MOST_BYTES
    held: dict[str, Stored | Dataset] = field(default_factory=dict)
    parts: dict[Share, list[Index]] = field(default_factory=dict)
    newest: OrderedDict[DataConfig, Dataset] = field(default_factory=OrderedDict)
    bytes: int = 0
    last: tuple[tuple[str, str], Params] = (("", ""), {})

    def examples(self, config: DataConfig, spec: ModelSpec) -> Dataset:
        """Returns the examples, checked as a device checks its own."""
        share = share_of(config)
        if config.folder or share is None:
            return local_data(config, spec)
        if config not in self.newest:
            self._keep(config, self._read(str(dataset_of(config.task)), share))
        self.newest.move_to_end(config)
        return fitting(self.newest[config], spec)

    def base(self, name: tuple[str, str], make: Callable[[], Params]) -> Params:
        """See `Common`."""
        if self.last[0] != name:
            params = make()
            for values in params.values():
                values.setflags(write=False)
            self.last = name, params
        return self.last[1]

    def _read(self, name: str, share: Share) -> Dataset:
        whole = replace(share, at=0)
        if name not in self.held:
            self.held = {name: stored(name)}
            self.parts.clear()
        held = self.held[name]
        if whole not in self.parts:
            self.parts = {whole: parts_of(whole, held.y, held.subject)}
        return held.take(self.parts[whole][share.at])

    def _keep(self, config: DataConfig, data: Dataset) -> None:
        self.newest[config] = data
        self.bytes += data.x.nbytes
        while self.bytes > self.most_bytes and len(self.newest) > 1:
            self.bytes -= self.newest.popitem(last=False)[1].x.nbytes


def main() -> None:
    """Serves jobs until the simulator closes the pipe; Ctrl-C is the simulator's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    common = Shares()
    for frame, answers in serve_pipe(Kind.JOB):
        answers.write(encode_frame(Kind.RESULT, answer(frame, common)))
        answers.flush()


if __name__ == "__main__":
    main()
