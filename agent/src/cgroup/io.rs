//! The io controller.

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};

use super::Setting;

/// `linux.resources.blockIO`.
pub(super) fn settings(block_io: &LinuxBlockIo, all: &mut Vec<Setting>) -> Result<(), String> {
    if block_io.leaf_weight().is_some_and(|weight| weight != 0) {
        return Err("linux.resources.blockIO.leafWeight does not exist in cgroup version 2".into());
    }
    if let Some(weight) = block_io.weight().filter(|weight| *weight != 0) {
        all.push(Setting::new("blockIO.weight", "io.weight", format!("default {}", io_weight(weight)?)));
    }
    for device in block_io.weight_device().iter().flatten() {
        if device.leaf_weight().is_some_and(|weight| weight != 0) {
            return Err("linux.resources.blockIO.weightDevice.leafWeight does not exist in cgroup version 2".into());
        }
        if let Some(weight) = device.weight() {
            let value = format!("{}:{} {}", device.major(), device.minor(), io_weight(weight)?);
            all.push(Setting::new("blockIO.weightDevice", "io.weight", value));
        }
    }
    throttle("throttleReadBpsDevice", "rbps", block_io.throttle_read_bps_device().as_deref(), all);
    throttle("throttleWriteBpsDevice", "wbps", block_io.throttle_write_bps_device().as_deref(), all);
    throttle("throttleReadIOPSDevice", "riops", block_io.throttle_read_iops_device().as_deref(), all);
    throttle("throttleWriteIOPSDevice", "wiops", block_io.throttle_write_iops_device().as_deref(), all);
    Ok(())
}

fn throttle(property: &str, key: &str, devices: Option<&[LinuxThrottleDevice]>, all: &mut Vec<Setting>) {
    for device in devices.unwrap_or_default() {
        let value = format!("{}:{} {key}={}", device.major(), device.minor(), device.rate());
        all.push(Setting::new(&format!("blockIO.{property}"), "io.max", value));
    }
}

/// Maps a weight of version 1 (10 to 1,000) to one of version 2 (1 to 10,000), in the same straight line as runc.
fn io_weight(weight: u16) -> Result<u32, String> {
    if !(10..=1000).contains(&weight) {
        return Err(format!("linux.resources.blockIO.weight is {weight}, not within 10 to 1000"));
    }
    Ok(1 + (u32::from(weight) - 10) * 9999 / 990)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_keep_their_ends() {
        assert_eq!([io_weight(10), io_weight(1000)], [Ok(1), Ok(10_000)]);
        assert!(io_weight(9).is_err());
        assert!(io_weight(1001).is_err());
    }
}
