"""What travels between a device and the coordinator: frames, plans, updates, blobs, topics and the transports.

Import from the submodules. `frame`, `plan`, `spec`, `topics`, `transport`, `mqtt`, `sign` and `errors` never load
NumPy, so the resident agent, which only moves bytes, stays small.
"""
