//! The `wormhole` program.

fn main() {}
