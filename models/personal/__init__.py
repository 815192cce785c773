"""A model of the device's own beside the global one (QuPeD). Only `settings` is free of torch."""
