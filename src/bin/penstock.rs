//! The companion CLI; see `penstock::cli`.

#![deny(clippy::print_stdout, clippy::print_stderr)]

fn main() -> std::process::ExitCode {
    penstock::cli::main()
}
