"""The lossless codec beneath the packed formats, and the plug-in with which transformers loads them."""
