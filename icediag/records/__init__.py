"""Records: what instruments have seen, one kind a file. Facts only, serializable."""
