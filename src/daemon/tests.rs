//! The daemon as a whole: parts that fail, and what a start that fails leaves behind.

use super::*;

/// A setup over files in this folder.
fn setup(folder: &Path, config: &str) -> Setup {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("penstock.toml");
    let state = folder.join("state");
    let text = format!(
        "hostname = \"penstock.test\"\n[spool]\npath = \"{}\"\nmin-free = \"1MB\"\n{config}",
        state.display()
    );
    for (path, text) in [(&path, text.as_str()), (&folder.join("users.toml"), "")] {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let checked = crate::config::load(&path).unwrap_or_else(|error| panic!("{error}"));
    let mut setup = Setup::new(checked, Some(path)).unwrap();
    setup.control = folder.join("control.sock");
    setup
}

const LISTENER: &str = "[[listen]]\naddress = \"127.0.0.1:0\"\n";

#[tokio::test]
async fn a_daemon_that_lost_a_part_ends_with_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(setup(folder.path(), LISTENER)).await.unwrap();
    // As if the delivery task had a mistake that nobody foresaw.
    let lost = daemon.deliveries.clone();
    lost.spawn_vital("a part", async { panic!("a mistake of ours") });
    let ended = daemon.run_until(std::future::pending()).await;
    assert_eq!(ended, Ended::PartFailed);
}
