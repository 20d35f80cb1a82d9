//! What a bad disk, or a hand that slipped, leaves in the state directory: the daemon
//! starts, and has all mail but at most what the damage hit, which it shows.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::client::{Client, message};
use crate::daemon::{Home, free_address, relay_table};
use crate::relay::{Answer, FakeRelay};

const MESSAGES: usize = 12;

/// Twelve messages that wait, and a copy of them as the daemon left them.
struct Setting {
    home: Home,
    kept: PathBuf,
    _relay: crate::relay::Relay,
}

impl Setting {
    async fn new() -> Self {
        let relay = FakeRelay::default()
            .answering("connect", Answer::Close)
            .start()
            .await;
        let listen = free_address();
        let home = Home::new("", "");
        let table = relay_table("out", &relay, &home.path("ca.pem"), None, "");
        let config = format!(
            "hostname = \"penstock.test\"\ndefault-relay = \"out\"\n[[listen]]\naddress = \"{listen}\"\n\
             [spool]\npath = \"{{dir}}/state\"\nmin-free = \"1MB\"\n{table}"
        );
        home.configure(&config, "");
        let mut daemon = home.start().await;
        // Nothing is tried, so that each message has one record.
        assert!(home.cli(&["relay", "pause", "out"]).status.success());
        let mut client = Client::connect(listen).await;
        for number in 0..MESSAGES {
            let content = message("a@app.test", "b@example.net", &format!("{number}"), "hello");
            client
                .submit("a@app.test", &["b@example.net"], &content)
                .await
                .expect_code(250);
        }
        assert!(daemon.stop().await.success(), "{}", home.log());
        let kept = home.path("kept");
        copy(&home.path("state"), &kept);
        Self {
            home,
            kept,
            _relay: relay,
        }
    }

    /// Puts everything back as it was, does the damage, starts the daemon and asks it:
    /// the rows of the queue, what the status says, and how many copies are in corrupt/.
    async fn after(&self, damage: impl FnOnce(&Path)) -> (Vec<String>, String, usize) {
        let state = self.home.path("state");
        fs::remove_dir_all(&state).unwrap();
        copy(&self.kept, &state);
        damage(&state);
        let mut daemon = self.home.start().await;
        let queue = self.home.cli(&["queue", "--json"]);
        assert!(queue.status.success(), "{queue:?}");
        let rows = String::from_utf8(queue.stdout).unwrap();
        let rows = rows.lines().map(str::to_owned).collect();
        let status = self.home.cli(&["status"]);
        let status = String::from_utf8(status.stdout).unwrap();
        assert!(daemon.stop().await.success(), "{}", self.home.log());
        let corrupt = fs::read_dir(state.join("corrupt")).unwrap().count();
        (rows, status, corrupt)
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success());
}

fn flip(file: &Path, place: usize) {
    let mut octets = fs::read(file).unwrap();
    octets[place] ^= 0x10;
    fs::write(file, octets).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happened_to_the_index_all_mail_is_there() {
    let it = Setting::new().await;
    let index = |state: &Path, name: &str| state.join("index").join(name);
    type Damage = Box<dyn FnOnce(&Path)>;
    let length = fs::metadata(index(&it.kept, "db")).unwrap().len() as usize;
    let mut damages: Vec<(String, Damage)> = vec![
        ("nothing".into(), Box::new(|_| {})),
        (
            "deleted".into(),
            Box::new(|state| fs::remove_dir_all(state.join("index")).unwrap()),
        ),
        (
            "a file in its place".into(),
            Box::new(|state| {
                fs::remove_dir_all(state.join("index")).unwrap();
                fs::write(state.join("index"), "x").unwrap();
            }),
        ),
        (
            "db deleted".into(),
            Box::new(move |state| fs::remove_file(index(state, "db")).unwrap()),
        ),
        (
            "conf deleted".into(),
            Box::new(move |state| fs::remove_file(index(state, "conf")).unwrap()),
        ),
        (
            "conf garbled".into(),
            Box::new(move |state| fs::write(index(state, "conf"), "garbage").unwrap()),
        ),
        (
            "a snapshot begun".into(),
            Box::new(move |state| {
                fs::write(index(state, "snap.0000000000000000.generating"), "x").unwrap();
            }),
        ),
        (
            "snapshots garbled".into(),
            Box::new(|state| {
                for entry in fs::read_dir(state.join("index")).unwrap() {
                    let path = entry.unwrap().path();
                    if path
                        .file_name()
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .starts_with("snap.")
                    {
                        fs::write(path, "garbage").unwrap();
                    }
                }
            }),
        ),
    ];
    for parts in [0, 1, 2, 3] {
        damages.push((
            format!("db cut to {parts} quarters"),
            Box::new(move |state| {
                let file = fs::File::options().write(true).open(index(state, "db"));
                file.unwrap().set_len((length * parts / 4) as u64).unwrap();
            }),
        ));
    }
    for part in 0..16 {
        damages.push((
            format!("db flipped in part {part}"),
            Box::new(move |state| flip(&index(state, "db"), length * part / 16)),
        ));
    }
    for (what, damage) in damages {
        let (rows, status, corrupt) = it.after(damage).await;
        assert_eq!(rows.len(), MESSAGES, "{what}: {status}\n{}", it.home.log());
        assert_eq!(corrupt, 0, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_costs_one_message_and_is_shown() {
    let it = Setting::new().await;
    let (segment, place) = record_of_a_message(&it.kept);
    let (rows, status, corrupt) = it
        .after(|state| flip(&state.join("log").join(&segment), place))
        .await;
    assert_eq!(rows.len(), MESSAGES);
    let damaged: Vec<_> = rows.iter().filter(|it| it.contains("damaged")).collect();
    assert_eq!(damaged.len(), 1, "{rows:?}");
    assert!(damaged[0].contains("\"state\":\"held\""), "{damaged:?}");
    assert_eq!(corrupt, 1);
    assert!(
        status.contains("1 damaged record of the spool was put aside in corrupt/"),
        "{status}"
    );
}

/// A segment, and a place within the words of a record that accepts a message.
fn record_of_a_message(state: &Path) -> (String, usize) {
    for entry in fs::read_dir(state.join("log")).unwrap() {
        let path = entry.unwrap().path();
        let octets = fs::read(&path).unwrap();
        let words = b"\"reverse-path\":\"a@app.test\"";
        let found = octets.windows(words.len()).position(|it| it == words);
        if let Some(place) = found {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            return (name, place);
        }
    }
    panic!("no record of a message");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_of_a_newer_version_is_left_alone() {
    let it = Setting::new().await;
    let state = it.home.path("state");
    let log = state.join("log");
    let before = newest_record(&log);
    let output = it.home.run();
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("newer version of Penstock"), "{said}");
    let after: Vec<_> = fs::read_dir(&log)
        .unwrap()
        .map(|it| it.unwrap().path())
        .map(|it| (fs::read(&it).unwrap(), it))
        .collect();
    assert_eq!(before.len(), after.len());
    assert!(after.iter().all(|it| before.contains(it)), "it was changed");
}

/// Makes the first record of the last segment one of a later version, checksum and all.
fn newest_record(log: &Path) -> Vec<(Vec<u8>, PathBuf)> {
    let mut segments: Vec<PathBuf> = fs::read_dir(log)
        .unwrap()
        .map(|it| it.unwrap().path())
        .collect();
    segments.sort();
    let last = segments.last().unwrap();
    let name = last.file_name().unwrap().to_str().unwrap();
    let number = u64::from_str_radix(&name[..16], 16).unwrap();
    let mut octets = fs::read(last).unwrap();
    // src/spool/frame.rs has the layout: the version, and the checksum over number,
    // offset and header.
    octets[8] = 200;
    let sum = crc32c::crc32c(&number.to_le_bytes());
    let sum = crc32c::crc32c_append(sum, &0u64.to_le_bytes());
    let sum = crc32c::crc32c_append(sum, &octets[..40]);
    octets[40..44].copy_from_slice(&sum.to_le_bytes());
    fs::write(last, octets).unwrap();
    segments
        .into_iter()
        .map(|it| (fs::read(&it).unwrap(), it))
        .collect()
}
