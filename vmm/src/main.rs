//! `vmm`: one process per sandbox that runs one microVM.

mod accelerator;
mod console;
mod counters;
mod vhost_user;
mod virtio;

fn main() {}
