"""The Flower app that peers/flower.py runs: the same work as our recipe "echo"."""
