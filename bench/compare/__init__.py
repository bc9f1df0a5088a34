"""Two or more results side by side: whether they may be compared, by how much they differ, what passes."""
