//! Parse, run, exit code.

fn main() -> std::process::ExitCode {
    carebed_gateway::main()
}
