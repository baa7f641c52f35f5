//! Bytes: chunks, packs, manifests and references. Knows no names and no peers.
