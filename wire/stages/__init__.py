"""Reversible steps on one array, chained: top-k, stochastic levels, packing. See `chain`."""
