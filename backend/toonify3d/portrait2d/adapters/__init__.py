"""2D stylizers that bring their own weights or programs: DCT-Net, VToonify, ONNX, a command."""
