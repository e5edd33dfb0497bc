//! Ports, tags, paths and limits that host and guest agree on.
//!
//! # A stdio stream
//!
//! ```text
//! host                                         agent (STDIO_PORT)
//!  |-- connect ---------------------------------->|
//!  |-- "<container> <process> <stream>\n" ------->|  stream: stdin | stdout | stderr
//!  |<-- "OK\n" (or "ERR <why>\n" and close) ------|  parked until Create/Exec takes it, 10 s at most
//!  |== raw bytes =================================|  half-close by the sender is end of file
//! ```

/// Version of everything in this crate that host and guest share; raised on an incompatible change.
pub const PROTOCOL_VERSION: u32 = 1;

/// The CID of the host as a guest sees it (virtio 1.2, section 5.10.4).
pub const HOST_CID: u32 = 2;
/// The CID given to every guest: each VM has a vsock device of its own, so one number serves all.
pub const GUEST_CID: u32 = 3;

/// Guest port of the agent's ttrpc service.
pub const AGENT_PORT: u32 = 1024;
/// Guest port on which stdio streams are opened.
pub const STDIO_PORT: u32 = 1025;
/// Host port to which the agent reports that it listens.
pub const READY_PORT: u32 = 1026;
/// What the agent writes to [`READY_PORT`] before it closes the connection.
pub const READY_LINE: &str = "BULKHEAD READY 1\n";
/// What the agent answers to a stdio header it accepts.
pub const STDIO_ACCEPTED: &str = "OK\n";
/// Longest stdio header line in bytes, newline included.
pub const STDIO_HEADER_MAX: usize = 300;
/// Process id of a container's first process.
pub const INIT_PROCESS: &str = "init";

/// virtio-fs tag of the image layers: immutable while the VM lives, cached without revalidation.
pub const LAYERS_TAG: &str = "layers";
/// virtio-fs tag of volumes: files that the host may change at any time.
pub const VOLUMES_TAG: &str = "volumes";
/// Where the guest mounts each share: `SHARES_DIR/<tag>`.
pub const SHARES_DIR: &str = "/run/bulkhead/shares";
/// Serial of the scratch disk (virtio-blk, at most 20 bytes) that takes the writes of containers.
pub const SCRATCH_SERIAL: &str = "scratch";

/// The kernel command line common to both accelerators; the vmm adds its devices, the caller its extras.
///
/// `panic=-1` reboots at once on a panic, which ends the VM; `reboot=t` makes that a triple fault, which needs no device.
/// `swiotlb=noforce`: no 64 MiB of bounce buffers in guests above 3 GiB; virtio-mmio devices reach all memory.
pub const KERNEL_CMDLINE: &str = "console=ttyS0 quiet panic=-1 reboot=t no_timer_check tsc=reliable random.trust_cpu=on 8250.nr_uarts=1 swiotlb=noforce rdinit=/init";

/// Least guest memory in MiB with which kernel and agent start a container.
pub const MEMORY_MIN_MIB: u32 = 64;
/// Most vCPUs of one VM.
pub const VCPUS_MAX: u32 = 32;
