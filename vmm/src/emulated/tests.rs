//! The command line against a real configuration.

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;

use bulkhead_protocols::vm::VmConfig;
use bulkhead_protocols::wire::KERNEL_CMDLINE;

use super::boot_files::BootFiles;
use super::command::CommandLine;
use super::image;
use crate::config::Config;
use crate::vhost_user::Endpoint;

/// A configuration whose kernel is the probe's.
fn config(directory: &std::path::Path) -> Config {
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    std::fs::write(path("vmlinux"), image::build().unwrap()).unwrap();
    std::fs::write(path("initramfs"), "cpio").unwrap();
    std::fs::write(path("disk"), [0; 512]).unwrap();
    std::fs::create_dir(path("layer")).unwrap();
    let json = serde_json::json!({
        "accelerator": "emulated", "kernel": path("vmlinux"), "initramfs": path("initramfs"),
        "cmdline_extra": "loglevel=7", "vcpus": 3, "memory_mib": 200,
        "vsock": {"guest_cid": 3, "uds": path("v.sock")},
        "shares": [{"tag": "layers", "caching": "immutable",
                    "entries": [{"name": "0", "source": path("layer"), "read_only": true}]}],
        "disks": [{"path": path("disk"), "read_only": true, "serial": "data-1"}],
        "control_socket": path("c.sock"), "runtime_dir": directory.to_str().unwrap(),
    });
    Config::try_from(serde_json::from_value::<VmConfig>(json).unwrap()).unwrap()
}

fn value<'a>(arguments: &'a [String], option: &str) -> Vec<&'a str> {
    let pairs = arguments.windows(2).filter(|pair| pair[0] == option);
    pairs.map(|pair| pair[1].as_str()).collect()
}

#[test]
fn a_configuration_becomes_a_machine() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let boot_files = BootFiles::new(&config).unwrap();
    let vsock = Endpoint::new("vsock", directory.path()).unwrap();
    let shares = [("layers".to_owned(), Endpoint::new("fs0", directory.path()).unwrap())];
    let line = CommandLine::new(&config, &boot_files, &vsock, &shares);
    let arguments: Vec<String> = line.arguments.iter().map(|word| word.to_str().unwrap().to_owned()).collect();

    assert_eq!(value(&arguments, "-smp"), ["3"]);
    assert_eq!(value(&arguments, "-m"), ["200M"]);
    assert_eq!(value(&arguments, "-append"), [format!("{KERNEL_CMDLINE} {} loglevel=7", boot_files.tsc_parameter)]);
    assert_eq!(
        value(&arguments, "-device"),
        [
            "vhost-user-vsock-device,chardev=vsock",
            "vhost-user-fs-device,tag=layers,chardev=fs0",
            "virtio-blk-device,drive=disk0,serial=data-1",
            "virtio-rng-device,rng=rng",
        ]
    );
    assert!(value(&arguments, "-blockdev")[0].contains("read-only=on"));

    // Every descriptor that is named is inherited, and no other.
    let named: BTreeSet<i32> = arguments
        .iter()
        .flat_map(|word| word.split([',', ' ']))
        .filter_map(|part| part.strip_prefix("fd=").or_else(|| part.strip_prefix("/proc/self/fd/")))
        .map(|number| number.parse().unwrap())
        .collect();
    let inherited: BTreeSet<i32> = line.inherited.iter().map(AsRawFd::as_raw_fd).collect();
    assert_eq!(named, inherited);
    assert_eq!(inherited.len(), 5, "kernel, initramfs, two sockets, one disk");
}
