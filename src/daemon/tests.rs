//! The daemon as a whole: parts that fail, and what a start that fails leaves behind.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::*;

mod rebuilding;

/// Writes the files into this folder.
fn configure(folder: &Path, config: &str) {
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
}

/// A setup over files in this folder.
fn setup(folder: &Path, config: &str) -> Setup {
    configure(folder, config);
    let path = folder.join("penstock.toml");
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

#[tokio::test]
async fn programs_that_may_not_read_the_configuration_are_told_where_to_hand_in_mail() {
    let folder = tempfile::tempdir().unwrap();
    let login = "[[listen]]\naddress = \"127.0.0.1:0\"\nauth = \"required\"\n";
    let config = format!("{login}{LISTENER}");
    let mut daemon = Daemon::start(setup(folder.path(), &config)).await.unwrap();
    let told = || control::submission::read(&folder.path().join("submission"));
    assert_eq!(told(), Some(daemon.addresses()[1]));
    configure(folder.path(), login);
    daemon.reload().await.unwrap();
    assert_eq!(told(), None);
    configure(folder.path(), &config.replace(":0", ":0 "));
    daemon.reload().await.unwrap_err();
    configure(folder.path(), LISTENER);
    daemon.reload().await.unwrap();
    assert_eq!(told(), Some(daemon.addresses()[0]));
    daemon.stop().await;
}

#[tokio::test]
async fn a_start_that_fails_leaves_nothing_running() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = format!("{LISTENER}[http]\nadmin = \"{address}\"\n");
    let setup = setup(folder.path(), &config);
    let options = setup.spool.clone();
    let started = Daemon::start(setup).await;
    assert!(matches!(started, Err(StartError::System { .. })));
    // A delivery task that had begun would keep the spool.
    for _ in 0..3_000 {
        if Spool::open(options.clone(), Clock::system()).is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("something still has the spool");
}

#[tokio::test]
async fn a_spool_that_cannot_be_made_is_told_with_its_cause_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("state"), "a file").unwrap();
    let Err(error) = Daemon::start(setup(folder.path(), LISTENER)).await else {
        panic!("it starts");
    };
    let words = error.to_string();
    let state = folder.path().join("state");
    let told = format!("cannot open the spool: cannot make {}: ", state.display());
    assert!(words.starts_with(&told), "{words}");
    assert!(words.contains("os error"), "{words}");
    assert!(words.contains("move it away, or set spool.path"), "{words}");
}

#[tokio::test]
async fn an_answer_that_pauses_for_an_hour_does_not_hold_up_the_stop() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(setup(folder.path(), LISTENER)).await.unwrap();
    let top = control::protocol::Request::Top {
        interval_seconds: 3_600,
    };
    let request = serde_json::to_string(&top).unwrap() + "\n";
    let mut client = tokio::net::UnixStream::connect(daemon.control())
        .await
        .unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(client).lines();
    for _greeting_and_picture in 0..2 {
        lines.next_line().await.unwrap().unwrap();
    }
    daemon.stop_control.send_replace(true);
    assert!(daemon.controls.stop(Duration::from_secs(60)).await);
    assert!(
        lines
            .next_line()
            .await
            .unwrap()
            .unwrap()
            .contains("stopping")
    );
    daemon.stop().await;
}

#[tokio::test]
async fn the_socket_of_the_pages_is_for_those_of_the_control_socket() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("http.sock");
    let config = format!("[http]\nadmin = \"unix:{}\"\n", socket.display());
    let setup = setup(folder.path(), &format!("{LISTENER}{config}"));
    let daemon = Daemon::start(setup).await.unwrap();
    let facts = std::fs::metadata(&socket).unwrap();
    assert_eq!(facts.permissions().mode() & 0o777, 0o660);
    let control = std::fs::metadata(daemon.control()).unwrap();
    assert_eq!(facts.gid(), control.gid());
    daemon.stop().await;
    assert!(!socket.exists());
}

/// The first three characters that a client is told; nothing if it is cut off.
async fn greeting(address: SocketAddr) -> String {
    let Ok(mut stream) = TcpStream::connect(address).await else {
        return String::new();
    };
    let mut code = [0; 3];
    match stream.read_exact(&mut code).await {
        Ok(_) => String::from_utf8_lossy(&code).into_owned(),
        Err(_) => String::new(),
    }
}

#[tokio::test]
async fn a_reload_narrows_and_widens_a_listener() {
    let folder = tempfile::tempdir().unwrap();
    let listeners = |addresses: &[SocketAddr]| -> String {
        let one = |it| format!("[[listen]]\naddress = \"{it}\"\nallow-from = [\"127.0.0.0/8\"]\n");
        addresses.iter().map(one).collect()
    };
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    let setup = setup(folder.path(), &listeners(&[any]));
    let mut daemon = Daemon::start(setup).await.unwrap();
    let port = daemon.addresses()[0].port();
    let narrow = SocketAddr::from(([127, 0, 0, 1], port));
    let wide = SocketAddr::from(([0, 0, 0, 0], port));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();

    for wanted in [narrow, wide] {
        // What fails leaves the old listener as it was.
        let impossible = [wanted, taken.local_addr().unwrap()];
        configure(folder.path(), &listeners(&impossible));
        daemon.reload().await.unwrap_err();
        assert_eq!(greeting(narrow).await, "220");

        configure(folder.path(), &listeners(&[wanted]));
        daemon.reload().await.unwrap();
        assert_eq!(daemon.addresses(), [wanted]);
        // Whoever still came to the old one is cut off, or told that it is gone.
        for _ in 0..3_000 {
            if greeting(narrow).await == "220" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(greeting(narrow).await, "220");
    }
    assert_eq!(daemon.stop().await, Ended::InGoodOrder);
    assert!(
        TcpStream::connect(narrow).await.is_err(),
        "the port is free"
    );
}

#[tokio::test]
async fn a_reload_lowers_and_raises_what_must_stay_free_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(setup(folder.path(), LISTENER)).await.unwrap();
    let path = folder.path().join("penstock.toml");
    let before = std::fs::read_to_string(&path).unwrap();
    // What is coming in meanwhile is held to it, too: both go to a file at once.
    let large = || daemon.spool.new_content(Some(1 << 20));
    let (mut one, mut other) = (large(), large());
    for (min_free, has_room) in [("900TB", false), ("1KB", true)] {
        std::fs::write(&path, before.replace("1MB", min_free)).unwrap();
        let report = daemon.reload().await.unwrap();
        assert_eq!(report.needs_restart, Vec::<String>::new());
        assert_eq!(daemon.spool.check_room().is_ok(), has_room, "{min_free}");
        let coming = if has_room { &mut other } else { &mut one };
        assert_eq!(coming.write(b"text").await.is_ok(), has_room, "{min_free}");
    }
    std::fs::write(&path, before.replace("/state\"", "/elsewhere\"")).unwrap();
    let report = daemon.reload().await.unwrap();
    assert_eq!(report.needs_restart.len(), 1);
    assert!(report.needs_restart[0].starts_with("spool: "));
    daemon.stop().await;
}

#[tokio::test]
async fn a_socket_from_systemd_that_a_reload_removes_answers_and_can_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let both = format!("{LISTENER}[[listen]]\naddress = \"{address}\"\n");
    let mut setup = setup(folder.path(), &both);
    // systemd has one, too.
    setup.inherited.tcp = vec![(address, socket.try_clone().unwrap())];
    let mut daemon = Daemon::start(setup).await.unwrap();
    for (config, code) in [(LISTENER, "421"), (both.as_str(), "220")] {
        configure(folder.path(), config);
        daemon.reload().await.unwrap();
        assert_eq!(greeting(address).await, code);
    }
    assert_eq!(daemon.stop().await, Ended::InGoodOrder);
}
