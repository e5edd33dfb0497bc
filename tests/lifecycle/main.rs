//! The life of a sandbox: from every way to ask for it, through every way to use it, to every way it can end.
//!
//! Each file holds modules named after the accelerators its tests run on (see the harness, `bulkhead_tests`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test speaks by panicking, and all of this is test code"
)]

mod bad_flags;
mod bad_kernels;
mod bad_layers;
mod doctor;
mod exit_status;
mod faults;
mod flags;
mod guests;
mod harness;
mod images;
mod isolation;
mod registries;
mod run;
mod signals;
mod stdin;
mod terminal;
mod volumes;
