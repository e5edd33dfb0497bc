//! System calls that no safe crate covers, each behind a safe function. Nothing else in the agent is `unsafe`.

pub(crate) mod bpf;
pub(crate) mod child;
pub(crate) mod entropy;
pub(crate) mod execve;
pub(crate) mod fds;
pub(crate) mod limits;
pub(crate) mod mount_attr;
pub(crate) mod namespace;
pub(crate) mod network;
pub(crate) mod packet;
pub(crate) mod signal;
pub(crate) mod watch;
