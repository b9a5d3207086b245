//! The centre's program, built with the tests so that they can start, kill and restart the real thing.

fn main() -> std::process::ExitCode {
    carebed::main()
}
