//! The sandbox library: everything the host does for containers that live in a VM of their own.
//!
//! The `sandbox` command and the containerd shim are thin over it. From the outside in:
//!
//! - [`image`]: images from registries, layouts and archives, unpacked into layers.
//! - [`spec`]: the OCI specification of a container asked for on a command line; [`resources`]: its CPUs and memory.
//! - [`accel`]: which accelerator runs the VM; [`paths`]: where its parts are; [`scratch`]: the disk that takes its writes.
//! - [`lifecycle`]: [`lifecycle::Sandbox`], its containers and processes, from start to shutdown; [`timings`].
//! - [`runtime_dir`], [`process_identity`], [`vmm_process`], [`control`], [`vsock`], [`agent`]: what a running sandbox is
//!   made of on the host, and how the guest is reached.
//! - [`stdio`], [`terminal`], [`signals`]: a process's streams, the user's terminal, the signals passed on.

pub mod accel;
pub mod agent;
pub mod control;
pub mod image;
pub mod lifecycle;
pub mod paths;
pub mod process_identity;
mod ready;
pub mod resources;
pub mod runtime_dir;
pub mod scratch;
pub mod signals;
pub mod spec;
pub mod stdio;
mod sys;
pub mod terminal;
pub mod timings;
pub mod vmm_process;
pub mod vsock;
