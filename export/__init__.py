"""What happens after training: ONNX files at several bit-widths. Not built yet; see CHANGELOG.md."""
