//! Standard input and output of processes, each on a vsock stream of its own (`protocols::wire`).
//!
//! [`listener`] accepts streams and parks them in [`parking`]; a Create or Exec takes them from there, and [`pump`] moves
//! bytes until either side ends.

pub(crate) mod header;
pub(crate) mod listener;
pub(crate) mod parking;
pub(crate) mod pump;
