//! Names: the tree, its members and its locks as replicated, signed metadata.
