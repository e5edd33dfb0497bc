//! What is under test, and what it is tested with: `cargo xtask test` says so in the environment.

use std::path::{Path, PathBuf};

use bulkhead_protocols::vm::Accelerator;

/// The accelerator of this test run: `BULKHEAD_TEST_ACCEL`, `emulated` if it is not set.
///
/// # Panics
///
/// If the variable has another value.
pub fn accelerator() -> Accelerator {
    match std::env::var("BULKHEAD_TEST_ACCEL").as_deref() {
        Ok("kvm") => Accelerator::Kvm,
        Ok("emulated") | Err(_) => Accelerator::Emulated,
        Ok(other) => panic!("BULKHEAD_TEST_ACCEL is {other:?}; it can be kvm or emulated"),
    }
}

/// The installation under test: `BULKHEAD_TEST_PREFIX`, or `dist` in cargo's target directory.
///
/// # Panics
///
/// If there is none.
pub fn prefix() -> PathBuf {
    let prefix = std::env::var_os("BULKHEAD_TEST_PREFIX").map_or_else(staged, PathBuf::from);
    assert!(prefix.join("bin/sandbox").exists(), "{} holds no bin/sandbox: run `cargo xtask dist`", prefix.display());
    prefix
}

/// `target/dist`, found from this executable, `target/<profile>/deps/<test>`.
fn staged() -> PathBuf {
    let executable = std::env::current_exe().expect("a test knows its executable");
    executable.ancestors().nth(3).expect("a test lies in target/<profile>/deps").join("dist")
}

/// The `sandbox` binary under test.
pub fn sandbox() -> PathBuf {
    prefix().join("bin/sandbox")
}

/// A file of the installation's `lib/bulkhead`.
pub fn asset(name: &str) -> PathBuf {
    prefix().join("lib/bulkhead").join(name)
}

/// The test images that `cargo xtask test` made.
pub mod image {
    use super::{Path, PathBuf};

    fn directory() -> PathBuf {
        let directory = std::env::var_os("BULKHEAD_TEST_IMAGES")
            .expect("BULKHEAD_TEST_IMAGES names no directory: run the tests by `cargo xtask test`");
        Path::new(&directory).to_path_buf()
    }

    /// Debian's static busybox, as a docker archive.
    pub fn busybox_archive() -> PathBuf {
        directory().join("busybox.tar")
    }

    /// A Debian userland with a shell, coreutils and python3, as a docker archive of two layers.
    pub fn debian_archive() -> PathBuf {
        directory().join("debian.tar")
    }

    /// The busybox image, an OCI layout, as `sandbox run` takes it.
    pub fn busybox() -> String {
        format!("oci:{}:demo", directory().join("busybox").display())
    }

    /// The Debian image, an OCI layout, as `sandbox run` takes it.
    pub fn debian() -> String {
        format!("oci:{}:debian", directory().join("debian").display())
    }
}
