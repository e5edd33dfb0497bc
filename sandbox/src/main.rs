//! The `sandbox` command: containers that each live in a virtual machine of their own.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
