"""What codecs learn: Lloyd's k-means, the best levels of single values, sums of codewords."""
