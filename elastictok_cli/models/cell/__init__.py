"""The default model: a residual codec in the classical order, every step of which can be trained.

One block of 4 frames is coded in four steps. Untrained, each of them is what textbooks describe:

1. Motion (`motion/`): cells of 16x16 pixels move the last decoded frame along one motion vector each. A motion vector
   is one token, sent only where it pays. A cell that sends none inherits its vector from the block before, changed by
   camera pans (`motion/camera_pan.py`) and the camera shake (`motion/camera_shake.py`).
2. Prediction (`prediction.py`, `networks.py`): a network refines the moved frame. It sees the features that the last
   block left behind, and starts at zero.
3. Transform and quantizer (`transform.py`, `quantizer.py`): the 16x16x4 residual of each cell is projected on its KLT
   basis. Residual FSQ quantizes the coefficients in the order of reverse water-filling: each token refines the 6
   coefficients with most variance left. Which these are differs from cell to cell (flat, striped, busy, moving), so
   two digits of the first token name one of 40 classes, each with its order and steps (`classes.py`). Means and
   steps of later tokens depend on what earlier tokens of the cell say.
4. Synthesis (`networks.py`): the inverse transform, then the synthesis network, a learned in-loop filter. It sees
   neighbours, kept lengths and the prediction, and removes what quantization and dropped tails did. It starts at zero.

Cells of text, graphics and dense detail may have a screen mode in place of 2 to 4 (`screen/`): a complete DCT or a
palette, on the plain moved frame. No network touches them in this block, nor in later ones until they keep an FSQ code.

In keyframe blocks, cells that keep no token are filled in from the others between 3 and 4 (`fill.py`). In other
blocks, cells that keep none and do not move are copied from the last frame.

The encoder (`encode.py`) never sees how many tokens will be kept, so tokens are nested: one encode serves every
length. Keyframe blocks have no prediction, and a basis of their own. `token_layout.py` says what each token value
means, `tokenizer.py` is what the codec sees.
"""
