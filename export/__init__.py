"""What happens after training: ONNX files at several bit-widths, each proven before it is written.

graph (float model) -> grids (weights onto forms) -> variant (a file of a form a weight) -> gate (proof).
"""
