"""The board's own power meters: what a stretch of work took in joules, and nothing where no meter is."""
