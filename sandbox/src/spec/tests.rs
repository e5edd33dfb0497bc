use oci_spec::runtime::Spec;

use super::*;
use crate::resources::HostCapacity;

const HOST: HostCapacity = HostCapacity { cpus: 4, memory_mib: 8192 };

fn spec() -> ContainerSpec {
    ContainerSpec {
        args: vec!["sh".into(), "-c".into(), "exit 3".into()],
        env: vec!["A=1".into()],
        cwd: "/work".into(),
        terminal: None,
        read_only: false,
        hostname: "box".into(),
        cpus: CpuLimit::ONE,
        memory: MemoryLimit::new(64 << 20, HOST).unwrap(),
        mounts: vec![],
    }
}

fn parse(spec: &ContainerSpec) -> Spec {
    serde_json::from_slice(&spec.to_json()).unwrap()
}

#[test]
fn is_a_valid_runtime_specification() {
    let parsed = parse(&spec());
    let process = parsed.process().as_ref().unwrap();
    assert_eq!(process.args().as_ref().unwrap(), &["sh", "-c", "exit 3"]);
    assert_eq!(process.cwd().to_str(), Some("/work"));
    assert_eq!(process.terminal(), Some(false));
    assert_eq!(process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(), 14);
    let linux = parsed.linux().as_ref().unwrap();
    assert_eq!(linux.resources().as_ref().unwrap().memory().unwrap().limit(), Some(64 << 20));
    assert!(linux.resources().as_ref().unwrap().cpu().is_none(), "one whole CPU needs no quota");
    assert_eq!(linux.namespaces().as_ref().unwrap().len(), 6);
}

#[test]
fn a_terminal_has_its_size_from_the_start() {
    let size = TerminalSize { rows: 40, columns: 132 };
    let parsed = parse(&ContainerSpec { terminal: Some(Some(size)), ..spec() });
    let process = parsed.process().as_ref().unwrap();
    let console = process.console_size().unwrap();
    assert_eq!((process.terminal(), console.height(), console.width()), (Some(true), 40, 132));
    let unknown = parse(&ContainerSpec { terminal: Some(None), ..spec() });
    assert_eq!(unknown.process().as_ref().unwrap().console_size(), None);
}

#[test]
fn a_part_of_a_cpu_is_a_quota() {
    let parsed = parse(&ContainerSpec { cpus: CpuLimit::new(1.5, HOST).unwrap(), ..spec() });
    let resources = parsed.linux().as_ref().unwrap().resources().clone().unwrap();
    let cpu = resources.cpu().as_ref().unwrap();
    assert_eq!((cpu.quota(), cpu.period()), (Some(150_000), Some(100_000)));
}

#[test]
fn mounts_of_the_user_come_last() {
    let bind = Mount::Bind { source: "/s".into(), destination: "/data".into(), read_only: true };
    let tmpfs = Mount::Tmpfs { destination: "/t".into(), options: vec!["size=1m".into()] };
    let parsed = parse(&ContainerSpec { mounts: vec![bind, tmpfs], ..spec() });
    let [.., bind, tmpfs] = parsed.mounts().as_ref().unwrap().as_slice() else { panic!("two mounts") };
    assert_eq!(bind.destination().to_str(), Some("/data"));
    assert!(bind.options().as_ref().unwrap().contains(&"ro".to_owned()));
    assert_eq!(tmpfs.typ().as_deref(), Some("tmpfs"));
    assert_eq!(tmpfs.options().as_ref().unwrap(), &["size=1m"]);
}
