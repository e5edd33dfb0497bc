//! What crosses a process or machine boundary, types only: no I/O, no policy.
//!
//! - [`vm`]: the configuration a sandbox hands to its `vmm` process, unvalidated wire form.
//! - [`control`]: the messages on a vmm's control socket, and what `vmm probe` prints.
//! - [`wire`]: ports, tags, paths and limits that host and guest agree on.
//! - `agent`, `agent_ttrpc` (feature `agent`): messages and ttrpc services of the agent, generated from
//!   `proto/agent.proto`.

pub mod control;
pub mod vm;
pub mod wire;

#[cfg(feature = "agent")]
mod generated {
    #![allow(
        missing_docs,
        unreachable_pub,
        unused_mut,
        clippy::all,
        clippy::allow_attributes_without_reason,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        reason = "generated code"
    )]
    include!(concat!(env!("OUT_DIR"), "/mod.rs"));
}

#[cfg(feature = "agent")]
pub use generated::{agent, agent_ttrpc};
