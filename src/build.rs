//! Tells the programs from which commit they were built, for `--version`.
//!
//! Only in builds that are given to somebody: in a debug build every commit would mean
//! another compilation of everything. A package made from a tarball says it in
//! `PENSTOCK_COMMIT`; without that and without git, the version stands alone.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=PENSTOCK_COMMIT");
    println!("cargo:rerun-if-changed=src/build.rs");
    let said = std::env::var("PENSTOCK_COMMIT").ok();
    let commit = said.filter(|it| !it.is_empty()).or_else(|| {
        let release = std::env::var("PROFILE").is_ok_and(|it| it == "release");
        release.then(from_git).flatten()
    });
    let suffix = commit.map(|it| format!(" ({it})")).unwrap_or_default();
    println!("cargo:rustc-env=PENSTOCK_COMMIT_SUFFIX={suffix}");
}

/// The commit that is checked out, with `+` when something differs from it.
fn from_git() -> Option<String> {
    let commit = git(&["rev-parse", "--short=10", "HEAD"])?;
    // A tarball unpacked within somebody else's repository has another commit around it.
    git(&["ls-files", "--error-unmatch", "src/build.rs"])?;
    for watched in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", watched])?;
        // One that is not there would be found changed by every build.
        if Path::new(&path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    // What changes here is compiled again anyway.
    println!("cargo:rerun-if-changed=src");
    println!("cargo:rerun-if-changed=Cargo.lock");
    let changed = git(&[
        "status",
        "--porcelain",
        "--",
        "src",
        "Cargo.toml",
        "Cargo.lock",
    ])?;
    Some(match changed.is_empty() {
        true => commit,
        false => format!("{commit}+"),
    })
}

fn git(words: &[&str]) -> Option<String> {
    let output = Command::new("git").args(words).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
