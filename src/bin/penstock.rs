//! The companion CLI; see `penstock::cli`.

fn main() -> std::process::ExitCode {
    penstock::cli::main()
}
