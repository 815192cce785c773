"""Simulation: thousands of devices in one process or several, with the very code of the agents and the coordinator."""
