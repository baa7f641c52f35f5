//! The folder's engine, driven step by step without a kernel watch or a network. `device` is the harness; the cases are by
//! what a user would call them.

mod attack;
mod base;
mod both;
mod copy;
mod crash;
pub(crate) mod device;
pub(crate) mod fault;
mod guard;
mod ignore;
mod kind;
mod mode;
mod name;
mod owner;
mod race;
mod refused;
mod rename;
mod run;
mod stamp;
mod transfer;
mod trash;
mod trouble;
