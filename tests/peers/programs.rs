//! Where programs of others are found, and what to do when they are not.

use std::path::{Path, PathBuf};

/// Where `.ci/run` puts what it unpacks.
fn unpacked(variable: &str, name: &str) -> PathBuf {
    match std::env::var_os(variable) {
        Some(path) => path.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("target/peers")
            .join(name),
    }
}

/// A folder with `nodemailer` in it.
pub fn node_modules() -> PathBuf {
    let folder = unpacked("PENSTOCK_NODE_MODULES", "node_modules");
    let module = folder.join("nodemailer");
    assert!(
        module.exists(),
        "{} is missing: npm install --prefix target/peers nodemailer",
        module.display()
    );
    folder
}

/// Debian's postfix package, unpacked and not installed: it cannot be beside Exim.
pub fn postfix() -> PathBuf {
    let folder = unpacked("PENSTOCK_POSTFIX", "postfix");
    assert!(
        folder.join("usr/sbin/smtp-sink").exists(),
        "no smtp-sink in {}: apt-get download postfix && dpkg -x postfix_*.deb {}",
        folder.display(),
        folder.display()
    );
    folder
}

/// The authoritative name server.
pub fn nsd() -> PathBuf {
    let path = PathBuf::from("/usr/sbin/nsd");
    assert!(path.exists(), "nsd is missing: apt-get install nsd");
    path
}

/// The Exim daemon.
pub fn exim() -> PathBuf {
    let path = PathBuf::from("/usr/sbin/exim4");
    assert!(
        path.exists(),
        "exim4 is missing: apt-get install exim4-daemon-light"
    );
    path
}
