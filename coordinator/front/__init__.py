"""What a person sees: the commands, the demo, the live table, the report."""
