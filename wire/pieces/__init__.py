"""Large payloads in pieces: how they are cut, and how they are put together in a file."""
