//! The units as systemd itself judges them.

use std::collections::{BTreeMap, BTreeSet};
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

/// The names in a set of system calls, the sets within it included.
fn calls_of<'a>(
    name: &'a str,
    sets: &'a BTreeMap<String, Vec<String>>,
    found: &mut BTreeSet<&'a str>,
) {
    match sets.get(name) {
        Some(inside) => inside.iter().for_each(|it| calls_of(it, sets, found)),
        None => {
            assert!(!name.starts_with('@'), "no set is called {name}");
            found.insert(name);
        }
    }
}

#[test]
#[ignore = "needs systemd-analyze; .ci/run installs it"]
fn the_unit_allows_what_gives_the_control_socket_to_its_group() {
    let told = Command::new("systemd-analyze")
        .args(["syscall-filter", "--no-pager"])
        .output()
        .unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let mut sets = BTreeMap::<String, Vec<String>>::new();
    let mut set = String::new();
    for line in told.lines() {
        match line.strip_prefix("    ") {
            Some(call) if !call.starts_with('#') => {
                sets.entry(set.clone()).or_default().push(call.to_owned());
            }
            Some(_) => {}
            None => line.clone_into(&mut set),
        }
    }
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/penstock.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    // The first line says what is allowed; each further one adds to it or takes away.
    let mut allowed = BTreeSet::new();
    for filter in unit
        .lines()
        .filter_map(|it| it.strip_prefix("SystemCallFilter="))
    {
        let (names, takes_away) = match filter.strip_prefix('~') {
            Some(names) => (names, true),
            None => (filter, false),
        };
        let mut meant = BTreeSet::new();
        for name in names.split(' ') {
            calls_of(name, &sets, &mut meant);
        }
        match takes_away {
            true => allowed.retain(|it| !meant.contains(it)),
            false => allowed.extend(meant),
        }
    }
    for call in ["chown", "fchownat", "chmod", "fchmodat", "bind", "listen"] {
        assert!(allowed.contains(call), "{call} is refused");
    }
    for call in ["setuid", "mount", "ptrace", "setrlimit"] {
        assert!(!allowed.contains(call), "{call} is allowed");
    }
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
