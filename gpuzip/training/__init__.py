"""Training of codecs: k-means, levels of scalar quantizers, sums of codewords."""
