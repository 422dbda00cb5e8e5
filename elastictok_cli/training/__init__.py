"""`elastictok train`: data, the KLT start, the loop."""
