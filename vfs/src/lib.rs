//! Files: what the operating system sees of a mesh.
