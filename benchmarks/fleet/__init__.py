"""Real processes to measure: a broker, a coordinator and devices, and what the kernel and the ledger say of them."""

__all__: list[str] = []
