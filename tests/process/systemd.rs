//! The units as systemd itself judges them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The units in a folder of their own, with the program that was just built.
fn units(folder: &Path) -> Vec<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    ["penstock.service", "penstock.socket"]
        .map(|name| {
            let text = std::fs::read_to_string(source.join(name)).unwrap();
            let text = text
                .replace(
                    "/usr/bin/penstockd ",
                    concat!(env!("CARGO_BIN_EXE_penstockd"), " "),
                )
                .replace(
                    "/usr/bin/penstock ",
                    concat!(env!("CARGO_BIN_EXE_penstock"), " "),
                );
            std::fs::write(folder.join(name), text).unwrap();
            folder.join(name)
        })
        .to_vec()
}

#[test]
#[ignore = "needs systemd-analyze; .ci/run installs it"]
fn the_units_are_clean_and_exposed_less_than_2() {
    let folder = tempfile::tempdir().unwrap();
    let units = units(folder.path());
    let verify = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(&units)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verify.stderr).into_owned();
    // Complaints about units of the machine itself are not ours.
    let ours: Vec<&str> = said.lines().filter(|it| it.contains("penstock")).collect();
    assert!(ours.is_empty(), "{said}");

    let security = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", "--threshold=19"])
        .arg(&units[0])
        .output()
        .unwrap();
    let judged = String::from_utf8_lossy(&security.stdout).into_owned();
    assert!(security.status.success(), "{judged}");
    assert!(judged.contains("Overall exposure level"), "{judged}");
}

#[test]
fn the_units_name_what_the_package_has() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let service = std::fs::read_to_string(source.join("penstock.service")).unwrap();
    let users = std::fs::read_to_string(source.join("sysusers.d/penstock.conf")).unwrap();
    for line in [
        "Type=notify",
        "User=penstock",
        "WatchdogSec=",
        "ExecReload=",
        "NoNewPrivileges=yes",
    ] {
        assert!(service.lines().any(|it| it.starts_with(line)), "{line}");
    }
    for group in ["penstock", "penstock-admin"] {
        assert!(
            users
                .lines()
                .any(|it| it.split(' ').any(|word| word == group)),
            "{group}"
        );
    }
    // A credential or capability is for the administrator to take in.
    let active = service.lines().filter(|it| !it.starts_with('#'));
    for line in active {
        assert!(
            !line.starts_with("AmbientCapabilities") && !line.starts_with("LoadCredential"),
            "{line}"
        );
    }
}
