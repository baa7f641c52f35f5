//! One bench for each step of a byte's journey through this device: cut and keep, refer, read,
//! serve. Fixed seeds, so that two runs do the same work.

mod store;

use criterion::{criterion_group, criterion_main};

criterion_group!(steps, store::import, store::keep, store::read);
criterion_main!(steps);
