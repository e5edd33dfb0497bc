//! Where root file systems come from and writes go to: the host's shares and the scratch disk, mounted when first named.

pub(crate) mod scratch;
pub(crate) mod shares;

/// Where shares are mounted.
pub(crate) const SHARES_ROOT: &str = bulkhead_protocols::wire::SHARES_DIR;
/// Where the scratch disk is mounted.
pub(crate) const SCRATCH_ROOT: &str = "/run/bulkhead/scratch";
/// Where each helper, in its own mount namespace, mounts its container's root.
pub(crate) const CONTAINER_ROOT_DIR: &str = "/run/bulkhead/root";
/// Where each helper, in its own mount namespace, mounts the files that are bound into its container.
pub(crate) const CONTAINER_FILES_DIR: &str = "/run/bulkhead/files";
