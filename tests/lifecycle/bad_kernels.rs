//! `--kernel` with files that are no kernel for this machine.

mod on_both {
    use bulkhead_tests::{World, image, install};

    fn refused(name: &str, contents: &[u8], because: &[&str]) {
        let world = World::new();
        let kernel = world.file(name, contents).display().to_string();
        let outcome = world.run(["--kernel", &kernel, &image::busybox(), "true"]).output();
        outcome.fails_with([name]).complains(because);
    }

    fn good() -> Vec<u8> {
        std::fs::read(install::asset("vmlinux")).unwrap()
    }

    #[test]
    fn a_kernel_that_is_not_an_elf_is_refused() {
        refused("script", b"#!/bin/sh\nexit 0\n", &["ELF"]);
        refused("zeros", &[0; 65536], &["ELF"]);
        refused("empty", b"", &["empty"].map(|_| "ELF"));
    }

    #[test]
    fn a_truncated_kernel_is_refused() {
        let kernel = good();
        refused("head", &kernel[..48], &[]);
        refused("half", &kernel[..kernel.len() / 2], &[]);
    }

    #[test]
    fn a_kernel_for_another_machine_is_refused() {
        let mut kernel = good();
        // e_machine, at offset 18 of an ELF header: 183 is AArch64.
        kernel[18..20].copy_from_slice(&183_u16.to_le_bytes());
        refused("arm", &kernel, &["x86"]);
    }

    #[test]
    fn a_kernel_that_is_not_there_is_refused() {
        let world = World::new();
        world.run(["--kernel", "/no/such/kernel", &image::busybox(), "true"]).output().fails_with(["/no/such/kernel"]);
        world.run(["--kernel", "/tmp", &image::busybox(), "true"]).output().fails_with(["/tmp"]);
    }
}
