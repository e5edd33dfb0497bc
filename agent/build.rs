//! Links the guest's agent at a fixed address.
//!
//! Rust makes a static program position-independent. For the agent that costs more than it brings: 260 KB of relocations in
//! every guest's memory, fifty page faults in every start of a helper, and, where the processor is emulated, a translation of the
//! whole program anew at each start's new address. Its stack, heap and mappings stay randomised.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let features = std::env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if features.split(',').any(|feature| feature == "crt-static") {
        println!("cargo:rustc-link-arg-bins=-no-pie");
        println!("cargo:rustc-link-arg-bins=-static");
    }
}
