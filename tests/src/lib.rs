//! The harness of the system tests: they run the installed `sandbox` binary, on the real guest, as a user does.
//!
//! ```text
//!  #[test] ── World ── Invocation ── Running ── Outcome          what a test does, in this order
//!               │          └── Terminal (a pty around it)
//!               ├── private runtime directory, one image store per test process
//!               └── on drop: nothing may be left (processes, files, mounts, loop devices)
//! ```
//!
//! A test names the accelerators it runs on by the module it is in: `on_both`, `on_kvm`, `on_emulated`, or
//! `on_machine` for what needs no guest or is about choosing an accelerator. `cargo xtask test` runs the first and the
//! last two where it is, with `BULKHEAD_TEST_ACCEL=emulated`, and the first two in the lab, with `kvm`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test speaks by panicking, and all of this is test code"
)]

pub mod archive;
pub mod install;
pub mod leftovers;
pub mod proxy;
pub mod registry;
pub mod running;
pub mod terminal;
pub mod world;

pub use install::{accelerator, image};
pub use running::{Invocation, Outcome, Running, Stdin};
pub use terminal::Terminal;
pub use world::World;
