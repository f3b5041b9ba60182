"""Recall per byte on real embeddings, gpuzip beside FAISS: `python -m bench.recall`."""
