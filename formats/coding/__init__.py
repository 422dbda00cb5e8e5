"""Entropy coders of keep maps and tokens (SPEC.md, 5.2 and 6).

keep_maps: how many tokens each cell keeps. tokens: the order of tokens in a file, and which coding is smallest.
range_coding: codes, digit by digit. control_tokens: motion vectors and other control tokens. vector_tokens: float16
vectors. networks, wavefront: how keep maps and control tokens are predicted. rans: symbols to bytes. rice: errors.
"""
