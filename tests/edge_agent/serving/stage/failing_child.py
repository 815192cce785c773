"""A probing child that dies the way BITFLEET_TEST_DEATH says, for the files that BITFLEET_TEST_DIES names."""

from __future__ import annotations

import os
import signal
import sys
import time

from edge_agent.serving import probe_child
from edge_agent.serving.policy import Finding


def dying(header):
    if header["variant"] not in os.environ["BITFLEET_TEST_DIES"].split():
        return real(header)
    death = os.environ["BITFLEET_TEST_DEATH"]
    if death.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, death))
    if death == "exit":
        os._exit(3)
    if death == "nonsense":
        os.write(1, b"x" * 4096)
        os.write(2, b"no frame at all\n")
        time.sleep(60)
    if death == "slow":
        return Finding(latency_ms=1e6), {}
    if death == "hog":
        probe_child.check_graph = lambda data, expected: {"hungry": str(len(bytearray(1 << 30)))}
        return real(header)
    while death == "spin":
        pass
    if death == "sleep":
        time.sleep(600)
    sys.exit(f"unknown death {death}")


real, probe_child.probe = probe_child.probe, dying

if __name__ == "__main__":
    probe_child.main()
