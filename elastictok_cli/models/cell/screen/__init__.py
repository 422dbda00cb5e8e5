"""Screen modes: transforms for cells of text, graphics and dense detail, which few KLT coefficients cannot describe.

dct: the complete DCT 8x8x4, coded in passes of halving threshold. palette: a few colours and a label for each pixel.
palette_search: how many colours. symbols: how both modes are written as codes. patches: the pixels of some cells.
mode_decision: which cells use which mode. decode: the screen cells of one block.
"""
