//! Tools: everything a newcomer types goes through `cargo`.

fn main() {}
