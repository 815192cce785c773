"""How weights lie in a file: bit planes, and the nodes that turn what is stored into weights."""
