"""What the gate compares with: the net in PyTorch, operators after optimisation, clocks."""
