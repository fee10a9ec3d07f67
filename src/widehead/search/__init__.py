"""Maximum inner product search: exhaustive, and by an index of FAISS."""
