//! The pids controller.

use oci_spec::runtime::LinuxPids;

use super::Setting;

/// `linux.resources.pids`: a limit that is not positive is none.
pub(super) fn settings(pids: LinuxPids, all: &mut Vec<Setting>) {
    let value = if pids.limit() > 0 { pids.limit().to_string() } else { "max".to_owned() };
    all.push(Setting::new("pids.limit", "pids.max", value));
}
