"""Files that are cut from the first bytes of a bundle."""
