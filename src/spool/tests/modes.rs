//! Who else on the machine can look into the spool: nobody.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn open_to_all(path: &Path) {
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_directory_that_others_could_look_into_is_closed_to_them() {
    let directory = tempfile::tempdir().unwrap();
    // Made by an administrator, with mkdir.
    open_to_all(directory.path());
    for _first_and_second_start in 0..2 {
        let (spool, _) = open(directory.path());
        spool.accept("ann@example.org", 300).await;
        spool.until_complete().await.unwrap();
        spool.close().await.unwrap();
        assert_eq!(mode(directory.path()), 0o711);
        for entry in fs::read_dir(directory.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                assert_eq!(mode(&path), 0o700, "{}", path.display());
                // As an earlier version left it.
                open_to_all(&path);
            }
        }
        open_to_all(directory.path());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_with_other_things_in_it_keeps_its_mode_and_the_spool_in_it_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    open_to_all(directory.path());
    fs::write(directory.path().join("of others"), "").unwrap();
    let (spool, _) = open(directory.path());
    spool.until_complete().await.unwrap();
    spool.close().await.unwrap();
    assert_eq!(mode(directory.path()), 0o755);
    for name in ["log", "index", "large", "history", "corrupt"] {
        assert_eq!(mode(&directory.path().join(name)), 0o700, "{name}");
    }
}
