"""A probing child that dies of cutting, the way BITFLEET_TEST_DEATH says."""

from __future__ import annotations

import os
import signal

from edge_agent.serving import probe_child


def dying(header):
    os.kill(os.getpid(), getattr(signal, os.environ["BITFLEET_TEST_DEATH"]))


probe_child.cut_file = dying

if __name__ == "__main__":
    probe_child.main()
