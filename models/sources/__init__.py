"""Where data come from: the sets that Bitfleet knows, folders of files, and two foreign file formats."""
